"""The spatial task on rendered objects and places: views, overlaps, words, judges, and material that is unusable."""

import re
from dataclasses import replace

import numpy as np
import pytest
from engines.macrodata.provided import OPTIONS, SIZE, Rendered, engine, provider

from macro.engines.core import make
from macro.engines.macrodata import geometry, spatial
from macro.engines.macrodata.mixture import BUCKETS
from macro.engines.macrodata.options import Options, SpatialOptions
from macro.engines.material.types import EngineImage, Panorama, Turntable
from macro.engines.provider import JudgeRequest
from macro.scenes.render.batches import render_all
from macro.scenes.render.cameras import VIEWS, looking
from macro.sentence.prompt import images_by_number, marker, prompt_of
from macro.utils.errors import ItemError, UserError

SEED, COUNT = 1, 16


@pytest.fixture(scope="module")
def made():
    made = make(engine(spatial), provider(), OPTIONS, SEED, range(COUNT))
    assert len(made.samples) == COUNT
    return made


def both(made):
    """Samples of either way, of which there are some."""
    ways = [[s for s in made.samples if s.notes["way"] == way] for way in ("outside-in", "inside-out")]
    assert all(len(way) > 3 for way in ways)
    return ways


def test_the_number_of_inputs_is_in_the_bucket(made):
    for sample in made.samples:
        bucket = list(BUCKETS)[sample.idx % 4]
        assert len(sample.images) in BUCKETS[bucket]
        assert sample.task == "spatial" and sample.target.pixels.shape == (SIZE, SIZE, 3)
        assert all(i.pixels.shape == (SIZE, SIZE, 3) and i.subject is None for i in sample.images)


def test_the_prompt_names_every_view_their_order_and_what_is_wanted(made):
    for sample in made.samples:
        prompt, names = prompt_of(sample), [view["view"] for view in sample.notes["views"]]
        assert len(images_by_number(sample)) == len(names) == len(set(names))
        places = [prompt.index(marker(n)) for n in range(1, len(names) + 1)]
        ends = [*places[1:], prompt.index("seen from above")]
        assert places == sorted(places)
        for name, start, end in zip(names, places, ends, strict=True):
            assert re.search(rf"\b{name.replace('_', ' ')}\b", prompt[start:end])
        assert ", ".join(geometry.HORIZONTAL).replace("_", " ") in prompt
        clock = "counter-clockwise" if sample.notes["way"] == "outside-in" else " clockwise"
        assert clock in prompt
        asked = sample.notes["asked"]["view"]
        assert asked not in names
        assert re.search(rf"\b{asked.replace('_', ' ')}\b", prompt.split("left, front left.")[1])


def test_a_horizontal_view_of_an_object_has_a_neighbour_among_the_inputs(made):
    outside, _ = both(made)
    for sample in outside:
        names = [view["view"] for view in sample.notes["views"]]
        assert geometry.has_neighbour(sample.notes["asked"]["view"], names)
        assert all(view["ring"] in VIEWS for view in sample.notes["views"])


def test_overlaps_are_those_of_the_views_and_within_bounds(made):
    _, inside = both(made)
    for sample in inside:
        asked, overlaps = sample.notes["asked"], sample.notes["overlaps"]
        for view, overlap in zip(sample.notes["views"], overlaps, strict=True):
            expected = geometry.view_overlap(view["yaw"], view["pitch"], asked["yaw"], asked["pitch"], 90, 90)
            assert overlap == pytest.approx(expected)
            nominal = {"top": 90, "bottom": -90}.get(view["view"], 0)
            assert abs(view["pitch"] - nominal) <= 10 and abs(view["pitch"]) <= 90
            assert view["yaw"] == geometry.YAWS.get(view["view"], 0)
        assert 0.3 <= max(overlaps) <= 0.8


def test_images_are_the_views_that_the_notes_say(made):
    outside, inside = both(made)
    seen = 0
    for sample in [*outside[:2], *inside[:2]]:
        which = int(sample.notes["material"].split()[1])
        views = [*sample.notes["views"], sample.notes["asked"]]
        pixels = [i.pixels for i in images_by_number(sample)] + [sample.target.pixels]
        if sample.notes["way"] == "outside-in":
            ring = Rendered().turntable(SEED, which)
            for view, image in zip(views, pixels, strict=True):
                np.testing.assert_array_equal(image, ring.views[view["ring"]].pixels)
        else:
            scene = Rendered().panorama(SEED, which).image.scene
            direct = [looking(scene, view["yaw"], view["pitch"], 90.0) for view in views]
            drawn = np.stack([part["pixels"] for part in render_all(direct, SIZE, SIZE, 1)]).astype(int)
            apart = np.abs(drawn[:, None] - np.stack(pixels)[None]).mean((2, 3, 4))
            assert (apart.argmin(0) == range(len(views))).all() and apart.diagonal().max() < 12
        seen += len(views)
    assert seen > 8


def test_the_truth_is_that_of_the_target(made):
    for sample in made.samples:
        ids = sample.truth.masks.any(0)
        assert ids.shape == (SIZE, SIZE)
        if sample.notes["way"] == "outside-in":
            assert ids.any()


def test_a_sample_alone_is_the_same_as_in_a_batch(made):
    for index in (2, 3):
        assert make(engine(spatial), provider(), OPTIONS, SEED, [index]).samples[0] == made.samples[index]


def test_filters_are_counted(made):
    counts = made.counts
    assert counts["overlap", "kept"] + counts["neighbour", "kept"] == COUNT


def of_way(way, **changes):
    return replace(OPTIONS, spatial=SpatialOptions(inside_out=float(way == "inside-out"), **changes))


def only_dead(task_options, sources=None, index=0, **given):
    made = make(engine(spatial, max_attempts=2), provider(sources, **given), task_options, SEED, [index])
    assert not made.samples and [dead.attempt for dead in made.dead] == [0, 1]
    return made.dead[0]


def test_views_that_cannot_overlap_enough_are_dropped():
    dead = only_dead(of_way("inside-out", lowest=0.9, highest=1.0))
    assert dead.step == "overlap" and "not in 0.9..1" in dead.reason


def test_the_mean_overlap_asks_for_all_inputs_to_be_near():
    made = make(engine(spatial), provider(), of_way("inside-out", overlap="mean"), SEED, [0, 4])
    for sample in made.samples:
        assert 0.3 <= np.mean(sample.notes["overlaps"]) <= 0.8
    assert made.samples
    assert only_dead(of_way("inside-out", overlap="mean"), index=1).step == "overlap"


def test_unusable_material_is_said():
    flat = Panorama("hall", EngineImage(np.zeros((16, 30, 3), np.uint8)))
    dead = only_dead(of_way("inside-out"), Rendered(panorama=lambda seed, index: flat))
    assert dead.step == "draw" and dead.reason.startswith("hall: not twice as wide")
    poor = Turntable("cup", {"h000": EngineImage(np.zeros((8, 8, 3), np.uint8))})
    dead = only_dead(of_way("outside-in"), Rendered(turntable=lambda seed, index: poor))
    assert dead.step == "draw" and dead.reason.startswith("cup: has no view")

    def broken(seed, index):
        raise ItemError("cup.glb: is broken")

    assert only_dead(of_way("outside-in"), Rendered(turntable=broken)).reason == "cup.glb: is broken"


def test_real_material_needs_no_scene():
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    sources = Rendered(panorama=lambda seed, index: Panorama("hall", EngineImage(noise, path="hall.jpg")))
    given = {"judge": lambda asked: [{"viewpoint": 8.0, "content": 9.0} for _ in asked]}
    sample = make(engine(spatial), provider(sources, **given), of_way("inside-out"), SEED, [0]).samples[0]
    assert sample.truth is None and sample.target.pixels.shape == (SIZE, SIZE, 3)


def test_no_true_view_is_compared_with_itself(made):
    """Geometry decides about a true view; the judge is for drawn ones."""
    assert "judge" not in {step.name for step in spatial.STEPS}
    assert not made.dead and all("viewpoint" not in str(s.notes.get("verdicts")) for s in made.samples)


def test_views_are_called_as_people_call_them(made):
    for sample in made.samples:
        assert "_" not in prompt_of(sample), prompt_of(sample)
    assert any("back right" in prompt_of(sample) for sample in made.samples)


def test_the_exact_judge_does_not_take_another_view_for_the_true_one(made):
    judge, outside = provider().judge, both(made)[0]
    ring = Rendered().turntable(SEED, int(outside[0].notes["material"].split()[1]))
    true, other = ring.views["h045"], ring.views["h225"]
    question = JudgeRequest("spatial", "", (ring.views["h000"],), true, true)
    assert min(judge([question])[0].values()) > 9
    assert judge([replace(question, image=other)])[0]["viewpoint"] < 6


@pytest.mark.parametrize(
    "wrong", [{"overlap": "least"}, {"inside_out": 1.5}, {"lowest": 0.9}, {"fov": 180.0}, {"base_pitch": 50.0}], ids=str
)
def test_options_that_cannot_be(wrong):
    with pytest.raises(UserError, match="spatial options"):
        SpatialOptions(**wrong)
    assert Options().spatial == SpatialOptions()
