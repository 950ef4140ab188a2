"""INSET's image branch: a picture is captioned and taken apart, and its caption told again with the parts in it.

photo -> caption -> tag -> detect -> (sizes, masks, cut-outs: `parts.py`) -> describe -> merge
"""

from macro.engines.drafts import fill, regroup
from macro.engines.inset.parts import InsetDraft, Options
from macro.engines.sources import SourceFault
from macro.engines.stages import Fault, Stages


def photo(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """A picture, target and source of the references in one."""
    del options
    return [_with_photo(draft, stages) for draft in drafts]


def _with_photo(draft: InsetDraft, stages: Stages) -> InsetDraft:
    try:
        picture = stages.sources.photo(*draft.material)
    except SourceFault as fault:
        return draft.set(dropped=("photo", str(fault)))
    return draft.set(source=picture, target=picture)


def caption(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """What the whole picture shows."""
    del options
    answers = stages.caption([d.target for d in drafts], [d.number("caption") for d in drafts])
    return fill(drafts, "caption", "caption", answers)


def tag(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Labels for the detector."""
    del options
    return fill(drafts, "tag", "labels", _tuples(stages.tag([d.target for d in drafts])))


def detect(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Where the labels' things are."""
    del options
    answers = _tuples(stages.detect([d.target for d in drafts], [d.labels for d in drafts]))
    return [draft.set(placed=draft.regions) for draft in fill(drafts, "detect", "regions", answers)]


def describe(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """A noun phrase for each region."""
    del options
    asked = [(d.source, region, d.number(f"describe {n}")) for d in drafts for n, region in enumerate(d.regions)]
    answers = stages.describe(*map(list, zip(*asked, strict=True)))
    groups = regroup(answers, [len(draft.regions) for draft in drafts])
    return fill(drafts, "describe", "descriptions", _tuples(groups))


def merge(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Caption and descriptions become one interleaved caption."""
    del options
    answers = stages.merge(
        [d.target for d in drafts],
        [d.caption for d in drafts],
        [d.regions for d in drafts],
        [d.descriptions for d in drafts],
        [d.number("merge") for d in drafts],
    )
    return fill(drafts, "merge", "told", answers)


def _tuples(answers: list) -> list:
    return [answer if isinstance(answer, Fault) else tuple(answer) for answer in answers]
