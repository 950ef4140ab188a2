"""MACRO's temporal task (arXiv 2603.25319): key frames of a video and a summary are given; the next one is the target.

    clip      frames of a video
    shots     shot boundaries, by the pixels (`shot_boundaries.py`); the middle of each shot is its key frame
    resemble  runs of key frames whose neighbours have a similarity of .7 or more (DINOv2)
    summarise a VLM says in under 50 words what has happened up to the last input
    word      the prompt: the frames in order, the summary, and a request for the next one
    judge     context and sequence, both 6 or more

A sample's inputs are `count` consecutive key frames of one run, its target the next one. Buckets count inputs, so
the last needs up to eleven shots of one story. Read next: `shot_boundaries.py`, `spatial.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.engines.core import Candidate, Step, arranged, each, group_answers, load_source, map_answers
from macro.engines.ground_truth import known_truth
from macro.engines.macrodata import shot_boundaries
from macro.engines.macrodata.filters import judge_scores
from macro.engines.macrodata.mixture import rank_of, references_of
from macro.engines.macrodata.options import Options
from macro.engines.material.types import EngineImage, VideoClip
from macro.engines.provider import JudgeRequest, Provider
from macro.scenes.language.lexicon import listed
from macro.sentence.prompt import marker
from macro.sentence.spans import Image, Sentence, Target


@dataclass(frozen=True, eq=False)
class TemporalCandidate(Candidate):
    """A candidate with `count` inputs.

    Attributes:
        clip: the video; cut: (start, stop) of its shots, indices of frames.
        first: the shot of the first input; the other inputs and the target follow it.
        summary: what happens in them.
    """

    count: int = 1
    clip: VideoClip | None = None
    cut: tuple[tuple[int, int], ...] = ()
    first: int = 0
    summary: str = ""
    prompt: str = ""

    @property
    def keys(self) -> tuple[int, ...]:
        """Indices of all key frames, one per shot."""
        return shot_boundaries.centres(self.cut)

    @property
    def chosen(self) -> tuple[int, ...]:
        """Indices of inputs and target among the frames, in order."""
        return self.keys[self.first : self.first + self.count + 1]

    @property
    def shown(self) -> tuple[EngineImage, ...]:
        """Images of inputs and target."""
        return tuple(self.clip.frames[i] for i in self.chosen)


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> TemporalCandidate:
    """An empty candidate; its number of inputs is the same for every attempt."""
    return TemporalCandidate(seed, index, attempt, "temporal", bucket, count=references_of(seed, index, bucket))


# ---- steps ----

Batch = list[TemporalCandidate]


def _clip(candidates: Batch, provider: Provider, options: Options) -> Batch:
    clip = provider.sources.clip
    return load_source(candidates, "clip", "clip", lambda d: clip(d.seed, d.source_index(rank_of(d.index))))


def _shots(candidate: TemporalCandidate, options: Options) -> TemporalCandidate:
    """Key frames; a video needs one for each input and one more."""
    clip = candidate.clip
    frames = [frame.pixels for frame in (clip.frames if clip.small is None else clip.small)]
    cut = shot_boundaries.shots(frames, options.temporal.cut_least, options.temporal.cut_times)
    kept = len(cut) > candidate.count
    reason = "" if kept else f"the video has {len(cut)} shots; {candidate.count} inputs and a target need more"
    return candidate.replace(cut=cut).check("shots", kept, float(len(cut)), reason)


def _resemble(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Picks a window of the runs that are long enough, each equally likely."""
    pairs = [pair for candidate in candidates for pair in _neighbours(candidate)]
    answers = provider.image_similarity([a for a, _ in pairs], [b for _, b in pairs])
    grouped = group_answers(answers, [len(candidate.keys) - 1 for candidate in candidates])

    def choose(candidate: TemporalCandidate, alike: list[float]) -> TemporalCandidate:
        found = runs([value >= options.temporal.alike for value in alike])
        longest = max(stop - start for start, stop in found)
        windows = [n for start, stop in found for n in range(start, stop - candidate.count)]
        reason = "" if windows else f"at most {longest} key frames in a row are alike, {candidate.count + 1} are needed"
        candidate = candidate.check("resemble", bool(windows), float(longest), reason)
        if not windows:
            return candidate
        return candidate.replace(first=windows[int(candidate.rng("window").integers(len(windows)))])

    return map_answers(candidates, "resemble", grouped, choose)


def _neighbours(candidate: TemporalCandidate) -> list[tuple[EngineImage, EngineImage]]:
    keys = [candidate.clip.frames[i] for i in candidate.keys]
    return list(zip(keys[:-1], keys[1:], strict=True))


def runs(alike: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of the longest runs of frames with similar neighbours: `alike[i]` is of i and i + 1."""
    edges = [0, *(i + 1 for i, yes in enumerate(alike) if not yes), len(alike) + 1]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _summarise(candidates: Batch, provider: Provider, options: Options) -> Batch:
    most = options.temporal.words

    def checked(candidate: TemporalCandidate, summary: str) -> TemporalCandidate:
        words = len(summary.split())
        reason = "" if 0 < words < most else f"the summary has {words} words, not 1 to {most - 1}"
        if "<image" in summary:  # it would name an image of the prompt
            reason = "the summary names images"
        return candidate.replace(summary=summary.strip()).check("summarise", not reason, float(words), reason)

    told = provider.summarise([c.shown[:-1] for c in candidates], [c.seed_for("summary") for c in candidates])
    return map_answers(candidates, "summarise", told, checked)


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
    """A prompt that names the frames in order and what happens, and requests the next."""
    ways = _FRAMES if count > 1 else _FRAME
    frames = listed([marker(n) for n in range(1, count + 1)])
    return ways[int(rng.integers(len(ways)))].format(frames=frames, summary=summary)


def _word(candidate: TemporalCandidate, options: Options) -> TemporalCandidate:
    return candidate.replace(prompt=prompt_of(candidate.count, candidate.summary, candidate.rng("words")))


def _judge(candidates: Batch, provider: Provider, options: Options) -> Batch:
    requests = [JudgeRequest("temporal", d.prompt, d.shown[:-1], d.shown[-1]) for d in candidates]
    return judge_scores(candidates, requests, provider, options.threshold)


def finish(candidate: TemporalCandidate, options: Options) -> Sentence:
    """The prompt with its frames in one of the two arrangements, the next frame, the truth if rendered.

    A frame shows several things, so it is not assigned to a subject.
    """
    *references, image = candidate.shown
    images = [Image(frame.pixels, number=n) for n, frame in enumerate(references, 1)]
    spans = arranged(candidate.prompt, images, candidate.rng("arrangement"), options.image_first)
    seconds = [float(candidate.clip.seconds[i]) for i in candidate.chosen]
    notes = {"summary": candidate.summary, "frames": list(candidate.chosen), "seconds": seconds}
    return Sentence((*spans, Target(image.pixels)), "temporal", candidate.index, known_truth(image), notes)


STEPS = (
    Step("clip", _clip), Step("shots", each(_shots)), Step("resemble", _resemble), Step("summarise", _summarise),
    Step("word", each(_word)), Step("judge", _judge),
)  # fmt: skip
