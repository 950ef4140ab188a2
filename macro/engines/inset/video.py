"""INSET's video branch: two distant frames; references show things as they were in the first, the target as they are.

clip -> a pair of frames -> match -> not static (ORB), then really changed (a light VLM) -> (sizes, masks, cut-outs
from the first frame: `regions.py`) -> narrate the second
"""

from macro.engines.core import load_source, map_answers, set_answers
from macro.engines.inset.regions import Batch, InsetCandidate, Options, Pair
from macro.engines.material.types import VideoClip
from macro.engines.provider import Match, Provider
from macro.utils.errors import ItemError


def pair(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Two distant frames of a clip: the earlier is the source of the references, the later the target."""

    def get(candidate: InsetCandidate) -> Pair:
        clip = provider.sources.clip(*candidate.material)
        pairs = far_apart(clip, options.apart)
        if not pairs:
            raise ItemError(f"a clip of {len(clip.frames)} frames, of which no two are far enough apart")
        i, j = pairs[int(candidate.rng("pair").integers(len(pairs)))]
        return Pair(clip.frames[i], clip.frames[j], (clip.seconds[i], clip.seconds[j]))

    return load_source(candidates, "pair", "pair", get)


def far_apart(clip: VideoClip, apart: float) -> list[tuple[int, int]]:
    """Pairs of different frames that are at least this share of the clip's length apart, the earlier one first."""
    least = apart * (clip.seconds[-1] - clip.seconds[0]) if clip.seconds else 0.0
    count = len(clip.frames)
    return [(i, j) for i in range(count) for j in range(i + 1, count) if clip.seconds[j] - clip.seconds[i] >= least]


def match(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Things that are in both frames."""
    answers = provider.match([d.source for d in candidates], [d.target for d in candidates])

    def matched(candidate: InsetCandidate, found: list[Match]) -> InsetCandidate:
        return candidate.replace(regions=tuple(m.before for m in found), placed=tuple(m.after for m in found))

    return map_answers(candidates, "match", answers, matched)


def moving(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Drops pairs of frames that stay the same in most places."""

    def judged(candidate: InsetCandidate, still: float) -> InsetCandidate:
        kept = still <= options.stillest
        reason = "" if kept else f"{still:.2f} of it stands still, over {options.stillest:g}"
        return candidate.check("stillness", kept, still, reason)

    answers = provider.static_share([d.source for d in candidates], [d.target for d in candidates])
    return map_answers(candidates, "stillness", answers, judged)


def changing(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Drops pairs in which only the light or the camera changes."""

    def judged(candidate: InsetCandidate, changed: bool) -> InsetCandidate:
        return candidate.check("changed", changed, reason="" if changed else "no action, pose or shape is another")

    answers = provider.changed([d.source for d in candidates], [d.target for d in candidates])
    return map_answers(candidates, "changed", answers, judged)


def narrate(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """An interleaved instruction for the second frame."""
    matches = [
        [Match(before.label, before, after) for before, after in zip(d.regions, d.placed, strict=True)]
        for d in candidates
    ]
    seeds = [candidate.seed_for("narrate") for candidate in candidates]
    answers = provider.narrate([d.source for d in candidates], [d.target for d in candidates], matches, seeds)
    return set_answers(candidates, "narrate", "told", answers)
