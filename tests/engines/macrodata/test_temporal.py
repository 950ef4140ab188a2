"""The temporal task on rendered clips: shots, runs, words, the judge, and videos that are of no use."""

from dataclasses import replace

import numpy as np
import pytest
from engines.macrodata.provided import OPTIONS, SIZE, Rendered, engine, provider

from macro.engines.core import make
from macro.engines.macrodata import temporal
from macro.engines.macrodata.mixture import BUCKETS
from macro.engines.macrodata.options import TemporalOptions
from macro.engines.material.types import EngineImage, VideoClip
from macro.engines.procedural import videos
from macro.engines.provider import JudgeRequest
from macro.sentence.prompt import images_by_number, marker, prompt_of
from macro.utils.errors import ItemError, UserError

SEED, COUNT = 3, 4
INDICES = (0, 5, 10, 15)  # each in another bucket, and the n-th of its task: they take different clips


@pytest.fixture(scope="module")
def clips():
    """Every clip that was asked for, by its index."""
    return {}


@pytest.fixture(scope="module")
def kept(clips):
    def clip(seed, index):
        if index not in clips:
            clips[index] = videos.clip(seed, index, SIZE, 1)
        return clips[index]

    return Rendered(clip=clip)


@pytest.fixture(scope="module")
def made(kept):
    made = make(engine(temporal), provider(kept), OPTIONS, SEED, INDICES)
    assert len(made.samples) == COUNT
    return made


def clip_of(sample, clips):
    """The clip that a sample is of."""
    return next(c for c in clips.values() if any(np.array_equal(f.pixels, sample.target.pixels) for f in c.frames))


def test_the_number_of_inputs_is_in_the_bucket(made):
    for sample in made.samples:
        assert len(sample.images) in BUCKETS[list(BUCKETS)[sample.idx % 4]]
        assert sample.task == "temporal" and all(image.subject is None for image in sample.images)


def test_frames_are_key_frames_in_order_and_the_target_the_next(made, clips):
    for sample in made.samples:
        clip, frames = clip_of(sample, clips), sample.notes["frames"]
        shown = [i.pixels for i in images_by_number(sample)] + [sample.target.pixels]
        assert len(frames) == len(shown) and frames == sorted(frames)
        for place, pixels, seconds in zip(frames, shown, sample.notes["seconds"], strict=True):
            np.testing.assert_array_equal(clip.frames[place].pixels, pixels)
            assert clip.seconds[place] == seconds
        cameras = [clip.frames[place].scene.camera for place in frames]
        assert len(set(cameras)) == len(cameras)  # each of a shot of its own


def test_neighbours_are_alike_and_of_one_place(made, clips):
    for sample in made.samples:
        frames = [clip_of(sample, clips).frames[place] for place in sample.notes["frames"]]
        assert min(videos.image_similarity(frames[:-1], frames[1:])) >= 0.7
        assert len({frame.scene.surroundings for frame in frames}) == 1


def test_the_prompt_names_the_frames_in_order_and_tells_the_summary(made):
    for sample in made.samples:
        prompt, count = prompt_of(sample), len(sample.images)
        places = [prompt.index(marker(n)) for n in range(1, count + 1)]
        assert places == sorted(places) and sample.notes["summary"] in prompt
        assert 0 < len(sample.notes["summary"].split()) < 50


def test_a_sample_alone_is_the_same_as_in_a_batch(made, kept):
    again = make(engine(temporal), provider(kept), OPTIONS, SEED, [5]).samples[0]
    assert again == next(s for s in made.samples if s.idx == 5)


def test_the_exact_judge_knows_the_next_frame_from_others(made, clips):
    judge, worse = provider().judge, 0
    for sample in made.samples:
        frames = [clip_of(sample, clips).frames[place] for place in sample.notes["frames"]]
        question = JudgeRequest("temporal", prompt_of(sample), tuple(frames[:-1]), frames[-1])
        assert min(judge([question])[0].values()) >= 6
        assert judge([replace(question, image=frames[-2])])[0]["sequence"] < 6  # the last frame again
        elsewhere = next(c.frames[0] for c in clips.values() if c is not clip_of(sample, clips))
        worse += min(judge([replace(question, image=elsewhere)])[0].values()) < 6
    assert worse == len(made.samples)


def test_likeness_of_frames(clips, made):
    clip, other = list(clips.values())[:2]
    one, next_one, strange = clip.frames[0], clip.frames[1], other.frames[0]
    same, near, far = videos.image_similarity([one] * 3, [one, next_one, strange])
    assert same == pytest.approx(1) and 0.9 < near <= 1 and far < 0.6
    assert videos.image_similarity([strange], [one])[0] == pytest.approx(far)
    unknown = EngineImage(one.pixels)
    assert isinstance(videos.image_similarity([one], [unknown])[0], ItemError)
    assert isinstance(videos.summarise([[one, unknown]], [0])[0], ItemError)


def test_runs():
    assert temporal.runs([True, True, False, True]) == [(0, 3), (3, 5)]
    assert temporal.runs([False, False]) == [(0, 1), (1, 2), (2, 3)]
    assert temporal.runs([]) == [(0, 1)]


# ---- what is of no use ----


def only_dead(clip=None, index=0, **given):
    sources = Rendered(clip=clip) if clip else None
    made = make(engine(temporal, max_attempts=2), provider(sources, **given), OPTIONS, SEED, [index])
    assert not made.samples and [dead.attempt for dead in made.dead] == [0, 1]
    return made.dead[0]


def still(seed, index):
    return VideoClip((EngineImage(np.full((16, 16, 3), 90, np.uint8)),) * 8, tuple(n / 4 for n in range(8)))


def patchwork(seed, index):
    """Twelve shots of four frames, each in a colour of its own."""
    colours = np.random.default_rng(0).integers(0, 256, (12, 1, 1, 3)).astype(np.uint8)
    frames = [EngineImage(np.broadcast_to(c, (16, 16, 3)).copy()) for c in colours for _ in range(4)]
    return VideoClip(tuple(frames), tuple(n / 4 for n in range(len(frames))))


AGREEING = {
    "image_similarity": lambda first, second: [0.9] * len(first),
    "summarise": lambda frames, seeds: ["a wall is painted."] * len(frames),
    "judge": lambda asked: [{"context": 8.0, "sequence": 7.0} for _ in asked],
}


def test_cuts_are_found_in_the_small_frames_where_there_are_such():
    def small(seed, index):
        clip = patchwork(seed, index)
        return replace(still(seed, index), frames=clip.frames[:1] * 48, seconds=clip.seconds, small=clip.frames)

    sample = make(engine(temporal), provider(Rendered(clip=small), **AGREEING), OPTIONS, SEED, [0]).samples[0]
    assert (np.diff(sample.notes["frames"]) == 4).all()


def test_a_real_video_needs_no_scene():
    sources = Rendered(clip=patchwork)
    samples = make(engine(temporal), provider(sources, **AGREEING), OPTIONS, SEED, range(4)).samples
    assert len(samples) == 4
    for sample in samples:
        assert sample.truth is None
        steps = np.diff(sample.notes["frames"])
        assert (steps == 4).all()  # the middle of each shot


def test_a_video_without_shots():
    dead = only_dead(still)
    assert dead.step == "shots" and dead.reason.startswith("the video has 1 shots")


def test_an_unreadable_video():
    def broken(seed, index):
        raise ItemError("a.mp4: is cut off")

    assert only_dead(broken) == replace(only_dead(broken), step="clip", reason="a.mp4: is cut off")


def test_shots_that_are_not_alike():
    dead = only_dead(patchwork, **AGREEING | {"image_similarity": lambda a, b: [0.69] * len(a)})
    assert dead.step == "resemble" and "at most 1 key frames" in dead.reason
    broken = {"image_similarity": lambda a, b: [ItemError("no GPU")] * len(a)}
    assert only_dead(patchwork, **AGREEING | broken).reason == "no GPU"


@pytest.mark.parametrize("summary", ["", "word " * 50, "<image 3> is shown"], ids=["none", "long", "marker"])
def test_summaries_that_will_not_do(summary):
    dead = only_dead(patchwork, **AGREEING | {"summarise": lambda frames, seeds: [summary] * len(frames)})
    assert dead.step == "summarise" and "summary" in dead.reason


def test_both_scores_count():
    def judge(asked):
        return [{"context": 9.0, "sequence": 5.0} for _ in asked]

    assert only_dead(patchwork, **AGREEING | {"judge": judge}).step == "sequence"


@pytest.mark.parametrize("wrong", [{"alike": 2.0}, {"words": 1}, {"cut_least": -0.1}, {"cut_times": 0.5}], ids=str)
def test_options_that_cannot_be(wrong):
    with pytest.raises(UserError, match="temporal options"):
        TemporalOptions(**wrong)
