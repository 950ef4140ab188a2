"""MACRO's temporal task (arXiv 2603.25319): key frames of a video, what happens in them, and the next one to draw.

    clip      frames of a video
    shots     where the camera cuts, by the pixels (`shots.py`); the middle of each shot is its key frame
    resemble  runs of key frames of which neighbours are alike by .7 or more (DINOv2)
    summarise a VLM says in under 50 words what happens
    word      the prompt: the frames in order, the summary, and that the next one is wanted
    judge     context and sequence, both 6 or more

A sample's inputs are `count` neighbours of one run, its target is the one after them. Buckets are numbers of inputs, so
the last needs up to eleven shots of one story. Read next: `shots.py`, `spatial.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.engines.drafts import Draft, Engine, Step, gather, notes_of, regroup, use
from macro.engines.known import truths
from macro.engines.macrodata import shots
from macro.engines.sources import Clip, Picture
from macro.engines.stages import Judgement, Stages
from macro.sentence.formats import in_sentence, marker
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError

BUCKETS = ("1-3", "4-5", "6-7", "8-10")


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        alike: neighbouring key frames must resemble one another by this much [paper: .7].
        words: a summary must have fewer [paper: 50].
        least: score that context and sequence must reach [paper: 6].
        cut_least, cut_times: what a cut is, see `shots.cuts`.
    """

    alike: float = 0.7
    words: int = 50
    least: float = 6.0
    cut_least: float = shots.LEAST
    cut_times: float = shots.TIMES

    def __post_init__(self):
        if not -1 <= self.alike <= 1 or not 0 <= self.least <= 10:
            raise UserError("temporal options: alike must lie in -1..1, least in 0..10")
        if self.words < 2:
            raise UserError(f"temporal options: words={self.words} leaves no summary; it must be at least 2")
        if self.cut_least < 0 or self.cut_times < 1:
            raise UserError("temporal options: cut_least must be 0 or more, cut_times 1 or more")


@dataclass(frozen=True, eq=False)
class TemporalDraft(Draft):
    """What is known of a sample with `count` inputs.

    Attributes:
        clip: the video; keys: places of its key frames, one a shot.
        chosen: places of inputs and target among the frames, in order.
        summary: what happens in them.
        scores: the judge's.
    """

    count: int = 1
    clip: Clip | None = None
    keys: tuple[int, ...] = ()
    chosen: tuple[int, ...] = ()
    summary: str = ""
    prompt: str = ""
    scores: dict[str, float] | None = None

    @property
    def shown(self) -> tuple[Picture, ...]:
        """Inputs and target."""
        return tuple(self.clip.frames[i] for i in self.chosen)


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> TemporalDraft:
    """An empty draft: with how many inputs of the bucket's is the same for every attempt.

    Raises:
        ValueError: a bucket that is none of `BUCKETS`.
    """
    del options
    if bucket not in BUCKETS:
        raise ValueError(f"bucket {bucket!r} is none of {', '.join(BUCKETS)}")
    low, high = map(int, bucket.split("-"))
    rng = TemporalDraft(seed, index, 0, "temporal", bucket).stream("count")
    return TemporalDraft(seed, index, attempt, "temporal", bucket, count=int(rng.integers(low, high + 1)))


# ---- steps ----


def _clip(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    del options
    return gather(drafts, "clip", "clip", lambda draft: stages.sources.clip(draft.seed, draft.number("clip")))


def _shots(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    """Key frames; a video needs one for each input and one more."""
    del stages
    return [_with_keys(draft, options) for draft in drafts]


def _with_keys(draft: TemporalDraft, options: Options) -> TemporalDraft:
    frames = [frame.pixels for frame in draft.clip.frames]
    keys = shots.centres(shots.shots(frames, options.cut_least, options.cut_times))
    kept = len(keys) > draft.count
    reason = "" if kept else f"the video has {len(keys)} shots; {draft.count} inputs and a target need more"
    return draft.set(keys=keys).passes("shots", kept, float(len(keys)), reason)


def _resemble(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    """A window of the runs that are long enough, each equally likely."""
    pairs = [pair for draft in drafts for pair in _neighbours(draft)]
    answers = stages.resemble([a for a, _ in pairs], [b for _, b in pairs])
    grouped = regroup(answers, [len(draft.keys) - 1 for draft in drafts])

    def choose(draft: TemporalDraft, alike: list[float]) -> TemporalDraft:
        found = runs([value >= options.alike for value in alike])
        longest = max(stop - start for start, stop in found)
        windows = [n for start, stop in found for n in range(start, stop - draft.count)]
        reason = "" if windows else f"at most {longest} key frames in a row are alike, {draft.count + 1} are needed"
        draft = draft.passes("resemble", bool(windows), float(longest), reason)
        if not windows:
            return draft
        at = windows[int(draft.stream("window").integers(len(windows)))]
        return draft.set(chosen=draft.keys[at : at + draft.count + 1])

    return use(drafts, "resemble", grouped, choose)


def _neighbours(draft: TemporalDraft) -> list[tuple[Picture, Picture]]:
    keys = [draft.clip.frames[i] for i in draft.keys]
    return list(zip(keys[:-1], keys[1:], strict=True))


def runs(alike: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of the longest stretches of frames whose neighbours are alike: `alike[i]` is of i and i + 1."""
    edges = [0, *(i + 1 for i, yes in enumerate(alike) if not yes), len(alike) + 1]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _summarise(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    def checked(draft: TemporalDraft, summary: str) -> TemporalDraft:
        words = len(summary.split())
        reason = "" if 0 < words < options.words else f"the summary has {words} words, not 1 to {options.words - 1}"
        # A marker in it would name a picture of the prompt.
        if marker(1)[:-2] in summary:
            reason = "the summary names pictures"
        return draft.set(summary=summary.strip()).passes("summarise", not reason, float(words), reason)

    told = stages.summarise([draft.shown for draft in drafts], [draft.number("summary") for draft in drafts])
    return use(drafts, "summarise", told, checked)


_FRAMES = (
    "key frames of a video, in order: {frames}. what happens: {summary} draw the next key frame.",
    "{frames} are frames of one video, in this order. the story: {summary} show the frame that comes next.",
    "a video tells this: {summary} its frames so far: {frames}. draw the one that follows.",
)
_FRAME = (
    "a key frame of a video: {frames}. what happens: {summary} draw the next key frame.",
    "{frames} is a frame of a video. the story: {summary} show the frame that comes next.",
    "a video tells this: {summary} its first frame: {frames}. draw the one that follows.",
)


def prompt_of(count: int, summary: str, rng: np.random.Generator) -> str:
    """Names the frames in order and what happens, and asks for the next."""
    ways = _FRAMES if count > 1 else _FRAME
    names = [marker(n) for n in range(1, count + 1)]
    listed = ", ".join(names[:-1]) + " and " + names[-1] if count > 1 else names[0]
    return ways[int(rng.integers(len(ways)))].format(frames=listed, summary=summary)


def _word(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    del stages, options
    return [
        draft.set(prompt=prompt_of(len(draft.chosen) - 1, draft.summary, draft.stream("words"))) for draft in drafts
    ]


def _judge(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    def scored(draft: TemporalDraft, scores: dict[str, float]) -> TemporalDraft:
        name = min(scores, key=scores.get)
        kept = scores[name] >= options.least
        reason = "" if kept else f"{name} is {scores[name]:.1f}, less than {options.least:g}"
        return draft.set(scores=scores).passes("judge", kept, float(scores[name]), reason)

    asked = [Judgement("temporal", d.prompt, d.shown[:-1], d.shown[-1]) for d in drafts]
    return use(drafts, "judge", stages.judge(asked), scored)


def finish(draft: TemporalDraft, options: Options) -> Sentence:
    """The prompt with its frames, the next frame, the truth of a rendered one."""
    del options
    *references, picture = draft.shown
    spans = in_sentence(draft.prompt, [Image(frame.pixels, frame.path) for frame in references])
    truth = None if picture.scene is None else truths([picture])[0]
    seconds = [float(draft.clip.seconds[i]) for i in draft.chosen]
    events = [[float(at), words] for at, words in draft.clip.events if seconds[0] <= at <= seconds[-1]]
    notes = notes_of(
        draft, ENGINE, summary=draft.summary, frames=list(draft.chosen), seconds=seconds, events=events,
        scores=draft.scores,
    )  # fmt: skip
    return Sentence((*spans, Target(picture.pixels)), "temporal", draft.index, truth, notes)


STEPS = (
    Step("clip", _clip), Step("shots", _shots), Step("resemble", _resemble), Step("summarise", _summarise),
    Step("word", _word), Step("judge", _judge),
)  # fmt: skip


def _start_any(seed: int, index: int, attempt: int, options: Options) -> TemporalDraft:
    """The buckets in turn."""
    return start(seed, index, attempt, BUCKETS[index % len(BUCKETS)], options)


ENGINE = Engine("macrodata temporal", "1.0.0", Options, _start_any, STEPS, finish)
