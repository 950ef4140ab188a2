"""What INSET's two branches share: options, the candidate, filters of regions, and cutting references out.

Read next: `images.py`, `video.py`, `__init__.py` (the steps in order).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from macro.engines.core import Candidate, map_answers
from macro.engines.ground_truth import overlap
from macro.engines.material.types import EngineImage
from macro.engines.provider import InterleavedCaption, Provider, Region
from macro.scenes.ground_truth.annotate import tight_boxes
from macro.utils.errors import UserError, check_range
from macro.utils.images import resize

IMAGE, VIDEO = "image", "video"
MOST = 12  # references in a sentence at most
REPEATED = 0.7  # intersection over union above which two boxes are one thing with two names


@dataclass(frozen=True)
class Options:
    """How INSET samples are made. Published: 3 to 8 images, 10M samples of images, 5M of videos; the rest is ours.

    Attributes:
        video: share of samples that are made from clips.
        references: fewest and most references of a sample of the image branch ...
        entities: ... and of the video branch. If there are more, the largest stay.
        areas: smallest and largest share of the image that a bounding box may cover.
        filled: least share of its bounding box that a mask must fill.
        apart: least distance of a clip's two frames, as a share of its length.
        stillest: a pair of frames is static if more than this share of it stays in place.
        reference_size: side of the references, pixels.
        margin: plain background around a cut-out, as a share of its longer side.
        ground: sRGB 0..255 of that background.
        plan: adds a chain of thought and a layout, which INSET does not have.
    """

    video: float = 1 / 3
    references: tuple[int, int] = (3, 8)
    entities: tuple[int, int] = (1, 8)
    areas: tuple[float, float] = (0.01, 0.5)
    filled: float = 0.2
    apart: float = 0.4
    stillest: float = 0.8
    reference_size: int = 96
    margin: float = 0.08
    ground: tuple[int, int, int] = (255, 255, 255)
    plan: bool = False

    def __post_init__(self):
        check_range("inset options", self, 0, 1, "video", "filled", "apart", "stillest")
        check_range("inset options", self, 1, np.inf, "reference_size")
        check_range("inset options", self, 0, np.inf, "margin")
        for name in ("references", "entities"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most <= MOST:
                raise UserError(f"inset options: {name}={fewest, most} must be fewest and most, within 1..{MOST}")
        if not 0 <= self.areas[0] <= self.areas[1] <= 1:
            raise UserError(f"inset options: areas={self.areas} must be smallest and largest, within 0..1")
        if len(self.ground) != 3 or not all(0 <= value <= 255 for value in self.ground):
            raise UserError(f"inset options: ground={self.ground} must be three numbers in 0..255")


@dataclass(frozen=True, eq=False)
class Pair:
    """The image that references are cut from and the target: the same image, or two frames with their `seconds`."""

    source: EngineImage
    target: EngineImage
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class InsetCandidate(Candidate):
    """A candidate whose `bucket` is its branch, "image" or "video".

    Attributes:
        rank: how many samples before it are of its branch.
        pair: source and target images.
        labels: the tagger's output.
        regions: entry n - 1 is what reference n shows, in `source`; placed: the same things in `target`.
        judged: the filter result of every region, for the notes.
        references: the cut-outs.
        caption, descriptions: of the target, and of each region (image branch).
        told: the interleaved caption; cot: the chain of thought, if a plan is requested.
    """

    rank: int = 0
    pair: Pair | None = None
    labels: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    placed: tuple[Region, ...] = ()
    judged: tuple[dict, ...] = ()
    references: tuple[EngineImage, ...] = ()
    caption: str = ""
    descriptions: tuple[str, ...] = ()
    told: InterleavedCaption | None = None
    cot: str | None = None

    @property
    def source(self) -> EngineImage:
        return self.pair.source

    @property
    def target(self) -> EngineImage:
        return self.pair.target

    @property
    def material(self) -> tuple[int, int]:
        """(seed, index) of its raw material."""
        return self.seed, self.source_index(self.rank)

    def only(self, places: Sequence[int]) -> "InsetCandidate":
        """A copy with these regions (from 0), in this order, and all that belongs to them."""
        lists = ("regions", "placed", "references", "descriptions")
        return self.replace(
            **{name: tuple(getattr(self, name)[i] for i in places) for name in lists if getattr(self, name)}
        )


Batch = list[InsetCandidate]


# ---- filters of regions ----


def choose_sizes(candidate: InsetCandidate, options: Options) -> InsetCandidate:
    """Drops regions of extreme size in either image, and duplicates; keeps the largest of too many."""
    return _choose(candidate, _size_faults(candidate, options), "sizes", options)


def _size_faults(candidate: InsetCandidate, options: Options) -> list[str]:
    """Why each region is rejected, "" if it is not."""
    smallest, largest = options.areas
    most = _limits(candidate, options)[1]
    faults = [""] * len(candidate.regions)
    taken: list[int] = []
    for i in sorted(range(len(faults)), key=lambda i: (-candidate.regions[i].area, i)):
        areas = (candidate.regions[i].area, candidate.placed[i].area)
        if min(areas) < smallest:
            faults[i] = f"too small: {min(areas):.3f} of the image"
        elif max(areas) > largest:
            faults[i] = f"too large: {max(areas):.3f} of the image"
        elif any(overlap(candidate.regions[i].box, candidate.regions[j].box) >= REPEATED for j in taken):
            faults[i] = "found before by another name"
        elif len(taken) == most:
            faults[i] = f"not among the {most} largest"
        else:
            taken.append(i)
    return faults


def _limits(candidate: InsetCandidate, options: Options) -> tuple[int, int]:
    return options.references if candidate.bucket == IMAGE else options.entities


def _choose(candidate: InsetCandidate, faults: Sequence[str], name: str, options: Options) -> InsetCandidate:
    """The candidate with only the regions without fault, dropped if they are too few."""
    judged = tuple(
        {"filter": name, "label": region.label, "box": list(region.box), "kept": not fault, "reason": fault}
        for region, fault in zip(candidate.regions, faults, strict=True)
    )
    candidate = candidate.only([i for i, fault in enumerate(faults) if not fault]).replace(
        judged=candidate.judged + judged
    )
    return enough(candidate, name, sum(not fault for fault in faults), options)


def enough(candidate: InsetCandidate, name: str, count: int, options: Options) -> InsetCandidate:
    """Filters by the number of remaining references."""
    fewest = _limits(candidate, options)[0]
    reason = "" if count >= fewest else f"{count} left of at least {fewest}"
    return candidate.check(name, not reason, float(count), reason)


# ---- masks and cut-outs ----


def segment(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """Masks in the source; also in the target if it is another image and a plan is requested."""
    candidates = _masked(candidates, "source", "regions", provider)
    candidates = [c.replace(placed=c.regions) if c.bucket == IMAGE else c for c in candidates]
    if options.plan:
        living = [candidate for candidate in candidates if candidate.bucket == VIDEO and not candidate.dropped]
        after = iter(_masked(living, "target", "placed", provider) if living else ())
        candidates = [next(after) if c.bucket == VIDEO and not c.dropped else c for c in candidates]
    return [c if c.dropped else _choose(c, _mask_faults(c, options), "masks", options) for c in candidates]


def _masked(candidates: list[InsetCandidate], image: str, field: str, provider: Provider) -> list[InsetCandidate]:
    def with_masks(candidate: InsetCandidate, masks: list[np.ndarray]) -> InsetCandidate:
        pairs = zip(getattr(candidate, field), masks, strict=True)
        return candidate.replace(**{field: tuple(replace(region, mask=mask) for region, mask in pairs)})

    answers = provider.segment([getattr(d, image) for d in candidates], [getattr(d, field) for d in candidates])
    return map_answers(candidates, "segment", answers, with_masks)


def _mask_faults(candidate: InsetCandidate, options: Options) -> list[str]:
    """Why each region's masks are rejected, "" if they are not."""
    faults = []
    for pair in zip(candidate.regions, candidate.placed, strict=True):
        share = min(float(each.mask.mean()) / max(each.area, 1e-9) for each in pair if each.mask is not None)
        fit = share > 0 and share >= options.filled
        faults.append("" if fit else f"its mask fills {share:.2f} of its box")
    return faults


def cut(candidate: InsetCandidate, options: Options) -> InsetCandidate:
    """References: the masked pixels of the source on a plain background."""
    cutouts = (cut_out(candidate.source.pixels, region.mask, options) for region in candidate.regions)
    return candidate.replace(references=tuple(map(EngineImage, cutouts)))


def cut_out(pixels: np.ndarray, mask: Bool[np.ndarray, "h w"], options: Options) -> np.ndarray:
    """uint8[n, n, 3]: the masked pixels, centred in a square of plain background, n = `options.reference_size`."""
    height, width = mask.shape
    x0, y0, x1, y1 = (round(float(edge)) for edge in tight_boxes(mask[None])[0] * (width, height, width, height))
    part, seen = pixels[y0:y1, x0:x1], mask[y0:y1, x0:x1]
    longer = max(part.shape[:2])
    side = longer + 2 * round(options.margin * longer)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = options.ground
    top, left = (side - part.shape[0]) // 2, (side - part.shape[1]) // 2
    square[top : top + part.shape[0], left : left + part.shape[1]][seen] = part[seen]
    return resize(square, (options.reference_size, options.reference_size))
