"""INSET's video branch: two frames far apart, whose things are shown as they were and drawn as they are.

clip -> a pair of frames -> match -> not static (ORB), then really changed (a light VLM) -> (sizes, masks, cut-outs
from the first frame: `parts.py`) -> narrate the second
"""

from macro.engines.drafts import fill, gather, use
from macro.engines.inset.parts import InsetDraft, Options, Pair
from macro.engines.sources import Clip, SourceFault
from macro.engines.stages import Match, Stages


def pair(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Two frames of a clip, far apart: the earlier is the source of the references, the later the target."""

    def get(draft: InsetDraft) -> Pair:
        clip = stages.sources.clip(*draft.material)
        pairs = far_apart(clip, options.apart)
        if not pairs:
            raise SourceFault(f"a clip of {len(clip.frames)} frames, of which no two are far enough apart")
        i, j = pairs[int(draft.stream("pair").integers(len(pairs)))]
        return Pair(clip.frames[i], clip.frames[j], (clip.seconds[i], clip.seconds[j]))

    return gather(drafts, "pair", "pair", get)


def far_apart(clip: Clip, apart: float) -> list[tuple[int, int]]:
    """Pairs of different frames that are at least this share of the clip's length apart, the earlier one first."""
    least = apart * (clip.seconds[-1] - clip.seconds[0]) if clip.seconds else 0.0
    count = len(clip.frames)
    return [
        (i, j) for i in range(count) for j in range(i + 1, count) if clip.seconds[j] - clip.seconds[i] >= least
    ]


def match(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """What is in both frames."""
    del options
    answers = stages.match([d.source for d in drafts], [d.target for d in drafts])
    return use(
        drafts,
        "match",
        answers,
        lambda d, found: d.set(regions=tuple(m.before for m in found), placed=tuple(m.after for m in found)),
    )


def moving(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Drops pairs whose frames are the same in most places."""

    def judged(draft: InsetDraft, still: float) -> InsetDraft:
        kept = still <= options.stillest
        reason = "" if kept else f"{still:.2f} of it stands still, over {options.stillest:g}"
        return draft.passes("stillness", kept, still, reason)

    answers = stages.stillness([d.source for d in drafts], [d.target for d in drafts])
    return use(drafts, "stillness", answers, judged)


def changing(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Drops pairs in which only the light or the camera is another."""
    del options

    def judged(draft: InsetDraft, changed: bool) -> InsetDraft:
        return draft.passes("changed", changed, reason="" if changed else "no action, pose or shape is another")

    return use(drafts, "changed", stages.changed([d.source for d in drafts], [d.target for d in drafts]), judged)


def narrate(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """An interleaved instruction for the second frame."""
    del options
    matches = [
        [Match(before.label, before, after) for before, after in zip(d.regions, d.placed, strict=True)] for d in drafts
    ]
    seeds = [draft.number("narrate") for draft in drafts]
    answers = stages.narrate([d.source for d in drafts], [d.target for d in drafts], matches, seeds)
    return fill(drafts, "narrate", "told", answers)
