"""INSET's image branch: an image is captioned and taken apart, and its caption told again with the parts in it.

photo -> caption -> tag -> detect -> (sizes, masks, cut-outs: `regions.py`) -> describe -> merge
"""

from macro.engines.core import group_answers, load_source, map_answers, set_answers
from macro.engines.inset.regions import InsetCandidate, Options, Pair
from macro.engines.provider import Provider


def photo(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """An image, target and source of the references in one."""
    del options

    def get(candidate: InsetCandidate) -> Pair:
        image = provider.sources.photo(*candidate.material)
        return Pair(image, image)

    return load_source(candidates, "photo", "pair", get)


def caption(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """What the whole image shows."""
    del options
    answers = provider.caption([d.target for d in candidates], [d.seed_for("caption") for d in candidates])
    return set_answers(candidates, "caption", "caption", answers)


def tag(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """Labels for the detector."""
    del options
    return map_answers(
        candidates,
        "tag",
        provider.tag([d.target for d in candidates]),
        lambda d, labels: d.replace(labels=tuple(labels)),
    )


def detect(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """Where the labels' things are."""
    del options
    answers = provider.detect([d.target for d in candidates], [d.labels for d in candidates])
    return map_answers(
        candidates, "detect", answers, lambda d, found: d.replace(regions=tuple(found), placed=tuple(found))
    )


def describe(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """A noun phrase for each region."""
    del options
    asked = [(d.source, region, d.seed_for(f"describe {n}")) for d in candidates for n, region in enumerate(d.regions)]
    images, regions, seeds = ([thing[i] for thing in asked] for i in range(3))
    answers = group_answers(provider.describe(images, regions, seeds), [len(c.regions) for c in candidates])
    return map_answers(candidates, "describe", answers, lambda d, texts: d.replace(descriptions=tuple(texts)))


def merge(candidates: list[InsetCandidate], provider: Provider, options: Options) -> list[InsetCandidate]:
    """Caption and descriptions become one interleaved caption."""
    del options
    answers = provider.merge(
        [d.target for d in candidates],
        [d.caption for d in candidates],
        [d.regions for d in candidates],
        [d.descriptions for d in candidates],
        [d.seed_for("merge") for d in candidates],
    )
    return set_answers(candidates, "merge", "told", answers)
