"""INSET's video branch: two frames far apart, whose things are shown as they were and drawn as they are.

clip -> a pair of frames -> match -> not static (ORB), then really changed (a light VLM) -> (sizes, masks, cut-outs
from the first frame: `parts.py`) -> narrate the second
"""

from macro.engines.drafts import fill
from macro.engines.inset.parts import InsetDraft, Options
from macro.engines.sources import Clip, SourceFault
from macro.engines.stages import Fault, Match, Stages


def pair(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Two frames of a clip, far apart: the earlier is the source of the references, the later the target."""
    return [_with_pair(draft, stages, options) for draft in drafts]


def _with_pair(draft: InsetDraft, stages: Stages, options: Options) -> InsetDraft:
    try:
        clip = stages.sources.clip(*draft.material)
    except SourceFault as fault:
        return draft.set(dropped=("pair", str(fault)))
    pairs = far_apart(clip, options.apart)
    if not pairs:
        return draft.set(dropped=("pair", f"{len(clip.frames)} frames, of which no two are far enough apart"))
    i, j = pairs[int(draft.stream("pair").integers(len(pairs)))]
    return draft.set(source=clip.frames[i], target=clip.frames[j], seconds=(clip.seconds[i], clip.seconds[j]))


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
    out = []
    for draft, found in zip(drafts, answers, strict=True):
        if isinstance(found, Fault):
            out.append(draft.set(dropped=("match", found.reason)))
        else:
            out.append(draft.set(regions=tuple(m.before for m in found), placed=tuple(m.after for m in found)))
    return out


def moving(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Drops pairs whose frames are the same in most places."""
    answers = stages.stillness([d.source for d in drafts], [d.target for d in drafts])
    return [_judged(draft, "stillness", value, options) for draft, value in zip(drafts, answers, strict=True)]


def _judged(draft: InsetDraft, name: str, value: float | Fault, options: Options) -> InsetDraft:
    if isinstance(value, Fault):
        return draft.set(dropped=(name, value.reason))
    kept = value <= options.stillest
    return draft.passes(name, kept, value, "" if kept else f"{value:.2f} of it stands still, over {options.stillest:g}")


def changing(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Drops pairs in which only the light or the camera is another."""
    del options
    answers = stages.changed([d.source for d in drafts], [d.target for d in drafts])
    return [
        draft.set(dropped=("changed", answer.reason))
        if isinstance(answer, Fault)
        else draft.passes("changed", answer, reason="" if answer else "no action, pose or shape is another")
        for draft, answer in zip(drafts, answers, strict=True)
    ]


def narrate(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """An interleaved instruction for the second frame."""
    del options
    matches = [
        [Match(before.label, before, after) for before, after in zip(d.regions, d.placed, strict=True)] for d in drafts
    ]
    seeds = [draft.number("narrate") for draft in drafts]
    answers = stages.narrate([d.source for d in drafts], [d.target for d in drafts], matches, seeds)
    return fill(drafts, "narrate", "told", answers)
