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

from macro.engines.drafts import Draft, Step, gather, regroup, use
from macro.engines.known import truths
from macro.engines.macrodata import shots
from macro.engines.macrodata.judging import judged
from macro.engines.macrodata.mixture import references_of
from macro.engines.macrodata.options import Options, TemporalOptions
from macro.engines.sources import Clip, Picture
from macro.engines.stages import Judgement, Stages
from macro.sentence.formats import ARRANGEMENTS, marker
from macro.sentence.spans import Image, Sentence, Target


@dataclass(frozen=True, eq=False)
class TemporalDraft(Draft):
    """What is known of a sample with `count` inputs.

    Attributes:
        clip: the video; cut: (start, stop) of its shots, places of frames.
        first: which shot the first input is of; the others and the target are of those after it.
        summary: what happens in them.
    """

    count: int = 1
    clip: Clip | None = None
    cut: tuple[tuple[int, int], ...] = ()
    first: int = 0
    summary: str = ""
    prompt: str = ""

    @property
    def keys(self) -> tuple[int, ...]:
        """Places of all key frames, one a shot."""
        return shots.centres(self.cut)

    @property
    def chosen(self) -> tuple[int, ...]:
        """Places of inputs and target among the frames, in order."""
        return self.keys[self.first : self.first + self.count + 1]

    @property
    def shown(self) -> tuple[Picture, ...]:
        """Inputs and target."""
        return tuple(self.clip.frames[i] for i in self.chosen)


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> TemporalDraft:
    """An empty draft; its number of inputs is the same for every attempt."""
    del options
    return TemporalDraft(seed, index, attempt, "temporal", bucket, count=references_of(seed, index, bucket))


# ---- steps ----


def _clip(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    del options
    return gather(drafts, "clip", "clip", lambda draft: stages.sources.clip(draft.seed, draft.number("clip")))


def _shots(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    """Key frames; a video needs one for each input and one more."""
    del stages
    return [_with_keys(draft, options.temporal) for draft in drafts]


def _with_keys(draft: TemporalDraft, options: TemporalOptions) -> TemporalDraft:
    clip = draft.clip
    frames = [frame.pixels for frame in (clip.frames if clip.small is None else clip.small)]
    cut = shots.shots(frames, options.cut_least, options.cut_times)
    kept = len(cut) > draft.count
    reason = "" if kept else f"the video has {len(cut)} shots; {draft.count} inputs and a target need more"
    return draft.set(cut=cut).passes("shots", kept, float(len(cut)), reason)


def _resemble(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    """A window of the runs that are long enough, each equally likely."""
    pairs = [pair for draft in drafts for pair in _neighbours(draft)]
    answers = stages.resemble([a for a, _ in pairs], [b for _, b in pairs])
    grouped = regroup(answers, [len(draft.keys) - 1 for draft in drafts])

    def choose(draft: TemporalDraft, alike: list[float]) -> TemporalDraft:
        found = runs([value >= options.temporal.alike for value in alike])
        longest = max(stop - start for start, stop in found)
        windows = [n for start, stop in found for n in range(start, stop - draft.count)]
        reason = "" if windows else f"at most {longest} key frames in a row are alike, {draft.count + 1} are needed"
        draft = draft.passes("resemble", bool(windows), float(longest), reason)
        if not windows:
            return draft
        return draft.set(first=windows[int(draft.stream("window").integers(len(windows)))])

    return use(drafts, "resemble", grouped, choose)


def _neighbours(draft: TemporalDraft) -> list[tuple[Picture, Picture]]:
    keys = [draft.clip.frames[i] for i in draft.keys]
    return list(zip(keys[:-1], keys[1:], strict=True))


def runs(alike: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of the longest stretches of frames whose neighbours are alike: `alike[i]` is of i and i + 1."""
    edges = [0, *(i + 1 for i, yes in enumerate(alike) if not yes), len(alike) + 1]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _summarise(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    most = options.temporal.words

    def checked(draft: TemporalDraft, summary: str) -> TemporalDraft:
        words = len(summary.split())
        reason = "" if 0 < words < most else f"the summary has {words} words, not 1 to {most - 1}"
        if "<image" in summary:  # it would name a picture of the prompt
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
        draft.set(prompt=prompt_of(draft.count, draft.summary, draft.stream("words"))) for draft in drafts
    ]


def _judge(drafts: list[TemporalDraft], stages: Stages, options: Options) -> list[TemporalDraft]:
    judgements = [Judgement("temporal", d.prompt, d.shown[:-1], d.shown[-1]) for d in drafts]
    return judged(drafts, judgements, stages, options.threshold)


def finish(draft: TemporalDraft, options: Options) -> Sentence:
    """The prompt with its frames in one of the two arrangements, the next frame, the truth of a rendered one.

    A frame shows several things: it stands for no one subject.
    """
    *references, picture = draft.shown
    images = [Image(frame.pixels, number=n) for n, frame in enumerate(references, 1)]
    arrangement = "image_first" if draft.stream("arrangement").random() < options.image_first else "in_sentence"
    spans = (*ARRANGEMENTS[arrangement](draft.prompt, images), Target(picture.pixels))
    truth = None if picture.scene is None else truths([picture])[0]
    seconds = [float(draft.clip.seconds[i]) for i in draft.chosen]
    notes = {"summary": draft.summary, "frames": list(draft.chosen), "seconds": seconds}
    return Sentence(spans, "temporal", draft.index, truth, notes)


STEPS = (
    Step("clip", _clip), Step("shots", _shots), Step("resemble", _resemble), Step("summarise", _summarise),
    Step("word", _word), Step("judge", _judge),
)  # fmt: skip
