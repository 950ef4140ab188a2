"""INSET's image branch: an image is captioned and cut into regions, and its caption rewritten to contain them.

photo -> caption -> tag -> detect -> (sizes, masks, cut-outs: `regions.py`) -> describe -> merge
"""

from macro.engines.core import group_answers, load_source, map_answers, set_answers
from macro.engines.inset.regions import Batch, Options, Pair
from macro.engines.provider import Provider


def photo(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Loads the image that is both target and source of the references."""

    return load_source(candidates, "photo", "pair", lambda d: Pair(*[provider.sources.photo(*d.material)] * 2))


def caption(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """A caption of the whole image."""
    answers = provider.caption([d.target for d in candidates], [d.seed_for("caption") for d in candidates])
    return set_answers(candidates, "caption", "caption", answers)


def tag(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Labels for the detector."""
    answers = provider.tag([d.target for d in candidates])
    return map_answers(candidates, "tag", answers, lambda d, labels: d.replace(labels=tuple(labels)))


def detect(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Bounding boxes for the labels."""
    answers = provider.detect([d.target for d in candidates], [d.labels for d in candidates])
    found = map_answers(candidates, "detect", answers, lambda d, regions: d.replace(regions=tuple(regions)))
    return [candidate.replace(placed=candidate.regions) for candidate in found]


def describe(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """A noun phrase for each region."""
    asked = [(d.source, region, d.seed_for(f"describe {n}")) for d in candidates for n, region in enumerate(d.regions)]
    images, regions, seeds = ([thing[i] for thing in asked] for i in range(3))
    answers = group_answers(provider.describe(images, regions, seeds), [len(c.regions) for c in candidates])
    return map_answers(candidates, "describe", answers, lambda d, texts: d.replace(descriptions=tuple(texts)))


def merge(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Merges caption and descriptions into one interleaved caption."""
    answers = provider.merge(
        [d.target for d in candidates],
        [d.caption for d in candidates],
        [d.regions for d in candidates],
        [d.descriptions for d in candidates],
        [d.seed_for("merge") for d in candidates],
    )
    return set_answers(candidates, "merge", "told", answers)
