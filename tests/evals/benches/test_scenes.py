"""The benchmark on a few rendered scenes, with composers whose scores are known beforehand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from macro.evals import report
from macro.evals.benches import scenes
from macro.sampling.pipeline import Pipeline
from macro.scenes.ground_truth import annotate
from macro.scenes.layout import layout_sampler
from macro.scenes.render.batches import render_all
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text

COUNT, SIZE = 3, 128


def drawn(graphs):
    whole_batch = graphs + graphs[-1:] * (-len(graphs) % 16)
    return list(render_all(whole_batch, SIZE, SIZE, silhouettes=True))[: len(graphs)]


@pytest.fixture(scope="module")
def five():
    """A case of three subjects for each bucket, all rendered in one batch with their other versions."""
    rng = np.random.default_rng(scenes.CALIBRATION)
    graphs = [layout_sampler.sample_scene(rng, COUNT) for _ in range(6)]
    parts = drawn(graphs + [layout_sampler.jitter(graph, rng) for graph in graphs])
    sentences = []
    for n, (graph, part) in enumerate(zip(graphs, parts, strict=False)):
        truth = annotate.truth_of(graph, part)
        plan = Plan("", annotate.layout(truth.masks, truth.boxes))
        images = [Image(np.full((16, 16, 3), k, np.uint8), subject=k, number=k) for k in range(1, COUNT + 1)]
        sentences.append(Sentence((Text("see "), *images, plan, Target(part["pixels"])), idx=n, truth=truth))
    return [
        scenes.Case(
            name, 0, sentences[n], parts[n + 6]["pixels"], sentences[n + 1], sentences[n].plan.grid, (1, 2),
            parts[n]["pixels"],
        )
        for n, name in enumerate(scenes.NAMES)
    ]  # fmt: skip


class Perfect(Pipeline):
    """Draws what `rerender` shows, after the true plan; exchanged cells it fills with each other's image."""

    def __init__(self, cases, dies_after=None):
        self.cases, self.asked, self.dies_after = {case.sentence.idx: case for case in cases}, [], dies_after
        self.params, self.config = {"vae": {}}, SimpleNamespace(vae=None)

    def compose_sentence(self, sentence, plan=None, candidates=1, seed=0, **changes):
        if len(self.asked) == self.dies_after:
            raise KeyboardInterrupt
        assert sentence.plan is None and sentence.truth is None and sentence.target.pixels is None
        self.asked.append(sentence.idx)
        case = self.cases[sentence.idx]
        return SimpleNamespace(plan=plan or case.sentence.plan, pixels=case.rerendered)


@pytest.fixture(scope="module")
def bench(five):
    """`scenes.evaluate` over these five cases, without a VAE."""
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(scenes, "cases", lambda name, *_: [case for case in five if case.bucket == name])
    monkeypatch.setattr(scenes, "through_vae", lambda params, config, images: list(images))

    def run(pipeline, workdir, **changes):
        options = {"num": 1, "seed": 0, "plans": "own", "swaps": 1, "settings": {}, "options": None}
        return scenes.evaluate(pipeline, workdir=str(workdir), **options | changes)

    yield run
    monkeypatch.undo()


@pytest.fixture(scope="module")
def whole(bench, five, tmp_path_factory):
    """Results and strips of a run that nothing interrupts."""
    return bench(Perfect(five), tmp_path_factory.mktemp("whole"))


def test_yardsticks_are_in_order(whole, tmp_path):
    results, strips = whole
    best, chance = results["yardsticks"]["rerender"], results["yardsticks"]["chance"]
    assert best["subject_recall"] >= 0.9 and chance["subject_recall"] <= 0.4
    assert best["swap_rate"] < 0.1 and best["palette_distance"] < chance["palette_distance"]
    assert best["kind_recall"] > chance["kind_recall"]
    assert results["yardsticks"]["vae"]["subject_recall"] == 1
    assert chance["layout_iou"] < best["layout_iou"] == 1
    # This composer draws the yardstick itself, but does not follow an exchange.
    for key in scenes.KEYS[:-1]:
        assert results["overall"][key] == best[key]
    assert results["overall"]["swap_follow"] == 0
    assert [row["bucket"] for row in results["buckets"]] == list(scenes.NAMES)
    assert json.loads(json.dumps(results)) == results
    report.write(tmp_path, results, strips, None)
    assert (tmp_path / "evaluation.html").read_text().count("<img") == 5


def test_a_killed_run_goes_on(bench, five, whole, tmp_path):
    killed = Perfect(five, dies_after=5)  # two drawings per case: in the middle of the third
    with pytest.raises(KeyboardInterrupt):
        bench(killed, tmp_path / "killed")
    rest = Perfect(five)
    resumed, _ = bench(rest, tmp_path / "killed")
    assert rest.asked == [2, 2, 3, 3, 4, 4]
    assert resumed == whole[0]


def test_true_plans_are_handed_in(bench, five, tmp_path):
    handed = []

    class Listening(Perfect):
        def compose_sentence(self, sentence, plan=None, **more):
            handed.append(plan)
            return super().compose_sentence(sentence, plan, **more)

    bench(Listening(five), tmp_path, plans="truth", swaps=0)
    assert handed.count(None) == 0 and len(handed) == 10  # an exchange for each case that has a pair


def test_exchange():
    grid = np.zeros((8, 8), np.int8)
    grid[0, :3], grid[5, 5] = (1, 2, 3), 1
    other = scenes.exchange(grid, (1, 3))
    assert other[0, :3].tolist() == [3, 2, 1] and other[5, 5] == 3
    assert np.array_equal(scenes.exchange(other, (1, 3)), grid)


def test_an_exchange_is_seen_in_the_image(five):
    case = five[0]
    judge, grid = scenes.Judge(case), case.sentence.plan.grid
    truth = case.sentence.truth
    flat = case.rerendered.copy()
    for n in (1, 2):
        other = truth.palettes[2 - n, 0]
        flat[scenes.cells_mask(grid, n, flat.shape[:2])] = np.round(255 * other)
    assert judge.follows(flat, grid)["swap_follow"] == [1, 1]
    assert judge.follows(case.rerendered, grid)["swap_follow"] == [0, 1]


def test_kind_and_texture_must_both_be_right(five):
    judge, truth = scenes.Judge(five[0]), five[0].sentence.truth
    right = [scenes.Prediction(k, t) for k, t in zip(truth.kinds, truth.textures, strict=True)]
    half = [scenes.Prediction(truth.kinds[0], "another"), scenes.Prediction("nothing", truth.textures[1]), None]
    assert judge.kind_measures(right, right)["kind_recall"] == [3, 3]
    assert judge.kind_measures(half, right) == {
        "kind_recall": [0, 3],
        "kind_alone": [1, 3],
        "texture_alone": [1, 3],
    }
    # A texture that the classifier cannot tell in the true image is not asked for.
    assert judge.kind_measures(half, half) == {
        "kind_recall": [1, 3],
        "kind_alone": [1, 3],
        "texture_alone": [1, 1],
    }


def test_a_composer_sees_neither_plan_nor_truth(five):
    asked = scenes.question(five[0].sentence)
    assert asked.plan is None and asked.truth is None and asked.target.pixels is None
    assert asked.target.size == (SIZE, SIZE) and asked.images == five[0].sentence.images


@pytest.mark.slow
def test_limits_on_the_calibration_scenes():
    """A perfect composer passes, another sample's image does not: for few subjects and for many."""
    for bucket, number in (("1-3", 16), ("11-12", 32)):
        counts = scenes.scenes_engine.BUCKETS[scenes.NAMES.index(bucket)]
        odds = tuple(float(n in counts) for n in range(1, 13))
        options = scenes.scenes_engine.Options(reference_size=48, counts=odds)
        first = scenes.NAMES.index(bucket) * 1_000_000
        made = scenes.scenes_engine.samples(scenes.CALIBRATION, first, number + 1, options)
        again = scenes.scenes_engine.rerenders(scenes.CALIBRATION, first, number, options)
        held, subjects = {"rerender": 0, "chance": 0}, 0
        for n in range(number):
            case = scenes.Case(bucket, n, made[n], again[n], made[n + 1], None, None, None)
            judge, grid = scenes.Judge(case), case.sentence.plan.grid
            held["rerender"] += judge.colour_measures(case.rerendered, grid)["subject_recall"][0]
            held["chance"] += judge.colour_measures(case.other.target.pixels, grid)["subject_recall"][0]
            subjects += judge.count
        assert held["rerender"] >= 0.95 * subjects
        assert held["chance"] <= 0.3 * subjects
