"""INSET's image branch: a picture is captioned and taken apart, and its caption told again with the parts in it.

photo -> caption -> tag -> detect -> (sizes, masks, cut-outs: `parts.py`) -> describe -> merge
"""

from macro.engines.drafts import fill, gather, regroup, use
from macro.engines.inset.parts import InsetDraft, Options, Pair
from macro.engines.stages import Stages


def photo(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """A picture, target and source of the references in one."""
    del options

    def get(draft: InsetDraft) -> Pair:
        picture = stages.sources.photo(*draft.material)
        return Pair(picture, picture)

    return gather(drafts, "photo", "pair", get)


def caption(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """What the whole picture shows."""
    del options
    answers = stages.caption([d.target for d in drafts], [d.number("caption") for d in drafts])
    return fill(drafts, "caption", "caption", answers)


def tag(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Labels for the detector."""
    del options
    return use(drafts, "tag", stages.tag([d.target for d in drafts]), lambda d, labels: d.set(labels=tuple(labels)))


def detect(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Where the labels' things are."""
    del options
    answers = stages.detect([d.target for d in drafts], [d.labels for d in drafts])
    return use(drafts, "detect", answers, lambda d, found: d.set(regions=tuple(found), placed=tuple(found)))


def describe(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """A noun phrase for each region."""
    del options
    asked = [(d.source, region, d.number(f"describe {n}")) for d in drafts for n, region in enumerate(d.regions)]
    pictures, regions, seeds = ([thing[i] for thing in asked] for i in range(3))
    answers = regroup(stages.describe(pictures, regions, seeds), [len(draft.regions) for draft in drafts])
    return use(drafts, "describe", answers, lambda d, texts: d.set(descriptions=tuple(texts)))


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

