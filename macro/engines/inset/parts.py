"""What INSET's two branches share: options, the draft, which regions are fit to be references, cutting them out.

Read next: `images.py`, `video.py`, `__init__.py` (the steps in order).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from macro.engines.drafts import Draft, use
from macro.engines.known import overlap
from macro.engines.sources import Picture
from macro.engines.stages import Interleaved, Region, Stages
from macro.scenes.ground_truth.annotate import tight_boxes
from macro.utils.errors import UserError
from macro.utils.images import resize

IMAGE, VIDEO = "image", "video"
MOST = 12  # a sentence has no more references
REPEATED = 0.7  # boxes that overlap this much are one thing with two names


@dataclass(frozen=True)
class Options:
    """How INSET samples are made. Published: 3 to 8 pictures, 10M samples of pictures, 5M of videos; the rest is ours.

    Attributes:
        video: share of samples that are made from clips.
        references: fewest and most references of a picture's sample ...
        entities: ... and of a clip's. Where there are more, the largest stay.
        areas: smallest and largest share of the picture that a thing's box may cover.
        filled: least share of its box that a thing's mask must fill.
        apart: how far apart the two frames of a clip are at least, as a share of its length.
        stillest: a pair of frames of which more than this share stands still is static.
        reference_size: side of the references, pixels.
        margin: plain ground around a cut-out, as a share of its longer side.
        ground: sRGB 0..255 of that ground.
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
        for name in ("video", "filled", "apart", "stillest"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"inset options: {name}={getattr(self, name)} must lie in 0..1")
        for name in ("references", "entities"):
            fewest, most = getattr(self, name)
            if not 1 <= fewest <= most <= MOST:
                raise UserError(f"inset options: {name}={fewest, most} must be fewest and most, within 1..{MOST}")
        if not 0 <= self.areas[0] <= self.areas[1] <= 1:
            raise UserError(f"inset options: areas={self.areas} must be smallest and largest, within 0..1")
        for name, least in (("reference_size", 1), ("margin", 0)):
            if getattr(self, name) < least:
                raise UserError(f"inset options: {name}={getattr(self, name)} must be at least {least}")
        if len(self.ground) != 3 or not all(0 <= value <= 255 for value in self.ground):
            raise UserError(f"inset options: ground={self.ground} must be three numbers in 0..255")


@dataclass(frozen=True, eq=False)
class Pair:
    """What references are cut from, and what is drawn: one picture, or two frames, then with their `seconds`."""

    source: Picture
    target: Picture
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class InsetDraft(Draft):
    """A sample on its way; `bucket` is its branch, "image" or "video".

    Attributes:
        pair: the pictures that it is made from.
        labels: what the tagger saw.
        regions: entry n - 1 is what reference n shows, in `source`; placed: the same things in `target`.
        judged: the verdict of every region that was looked at, for the notes.
        references: the cut-outs.
        caption, descriptions: of the target, of each region (image branch).
        told: the interleaved caption; cot: the chain of thought, where a plan is asked for.
    """

    pair: Pair | None = None
    labels: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    placed: tuple[Region, ...] = ()
    judged: tuple[dict, ...] = ()
    references: tuple[Picture, ...] = ()
    caption: str = ""
    descriptions: tuple[str, ...] = ()
    told: Interleaved | None = None
    cot: str | None = None

    @property
    def source(self) -> Picture:
        return self.pair.source

    @property
    def target(self) -> Picture:
        return self.pair.target

    @property
    def material(self) -> tuple[int, int]:
        """(seed, index) of its raw material: first attempts walk through it, later ones take something else."""
        return self.seed, self.number("material") if self.attempt else self.index

    def only(self, places: Sequence[int]) -> "InsetDraft":
        """A copy with these of its regions (from 0), in this order, and all that belongs to them."""
        lists = ("regions", "placed", "references", "descriptions")
        return self.set(
            **{name: tuple(getattr(self, name)[i] for i in places) for name in lists if getattr(self, name)}
        )


Run = Callable[[list[InsetDraft], Stages, Options], list[InsetDraft]]


def only_in(branch: str, run: Run) -> Run:
    """A step that lets the drafts of the other branch pass."""

    def step(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
        mine = [draft for draft in drafts if draft.bucket == branch]
        after = iter(run(mine, stages, options) if mine else ())
        return [next(after) if draft.bucket == branch else draft for draft in drafts]

    return step


# ---- which regions are fit ----


def choose_sizes(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Drops things of extreme sizes, in either picture, and things found twice; keeps the largest of too many."""
    del stages
    return [_choose(draft, _size_faults(draft, options), "sizes", options) for draft in drafts]


def _size_faults(draft: InsetDraft, options: Options) -> list[str]:
    """Why each region is not fit, "" where it is."""
    smallest, largest = options.areas
    most = _limits(draft, options)[1]
    faults = [""] * len(draft.regions)
    taken: list[int] = []
    for i in sorted(range(len(faults)), key=lambda i: (-draft.regions[i].area, i)):
        areas = (draft.regions[i].area, draft.placed[i].area)
        if min(areas) < smallest:
            faults[i] = f"too small: {min(areas):.3f} of the picture"
        elif max(areas) > largest:
            faults[i] = f"too large: {max(areas):.3f} of the picture"
        elif any(overlap(draft.regions[i].box, draft.regions[j].box) >= REPEATED for j in taken):
            faults[i] = "found before by another name"
        elif len(taken) == most:
            faults[i] = f"not among the {most} largest"
        else:
            taken.append(i)
    return faults


def _limits(draft: InsetDraft, options: Options) -> tuple[int, int]:
    return options.references if draft.bucket == IMAGE else options.entities


def _choose(draft: InsetDraft, faults: Sequence[str], name: str, options: Options) -> InsetDraft:
    """The draft with only the regions that have no fault, dropped where they are too few."""
    judged = tuple(
        {"filter": name, "label": region.label, "box": list(region.box), "kept": not fault, "reason": fault}
        for region, fault in zip(draft.regions, faults, strict=True)
    )
    draft = draft.only([i for i, fault in enumerate(faults) if not fault]).set(judged=draft.judged + judged)
    return enough(draft, name, sum(not fault for fault in faults), options)


def enough(draft: InsetDraft, name: str, count: int, options: Options) -> InsetDraft:
    """The verdict on the number of references that are left."""
    fewest = _limits(draft, options)[0]
    reason = "" if count >= fewest else f"{count} left of at least {fewest}"
    return draft.passes(name, not reason, float(count), reason)


# ---- masks and cut-outs ----


def segment(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """Masks in the source; where the target is another picture and a plan is asked for, in the target as well."""
    drafts = _masked(drafts, "source", "regions", stages)
    drafts = [draft.set(placed=draft.regions) if draft.bucket == IMAGE else draft for draft in drafts]
    if options.plan:
        living = [draft for draft in drafts if draft.bucket == VIDEO and not draft.dropped]
        after = iter(_masked(living, "target", "placed", stages) if living else ())
        drafts = [next(after) if draft.bucket == VIDEO and not draft.dropped else draft for draft in drafts]
    return [
        draft if draft.dropped else _choose(draft, _mask_faults(draft, options), "masks", options) for draft in drafts
    ]


def _masked(drafts: list[InsetDraft], picture: str, field: str, stages: Stages) -> list[InsetDraft]:
    def with_masks(draft: InsetDraft, masks: list[np.ndarray]) -> InsetDraft:
        pairs = zip(getattr(draft, field), masks, strict=True)
        return draft.set(**{field: tuple(replace(region, mask=mask) for region, mask in pairs)})

    answers = stages.segment([getattr(d, picture) for d in drafts], [getattr(d, field) for d in drafts])
    return use(drafts, "segment", answers, with_masks)


def _mask_faults(draft: InsetDraft, options: Options) -> list[str]:
    """Why each region's masks are not fit, "" where they are."""
    faults = []
    for pair in zip(draft.regions, draft.placed, strict=True):
        share = min(float(each.mask.mean()) / max(each.area, 1e-9) for each in pair if each.mask is not None)
        fit = share > 0 and share >= options.filled
        faults.append("" if fit else f"its mask fills {share:.2f} of its box")
    return faults


def cut(drafts: list[InsetDraft], stages: Stages, options: Options) -> list[InsetDraft]:
    """References: what the masks show of the source, on a plain ground."""
    del stages
    return [
        draft.set(
            references=tuple(Picture(cut_out(draft.source.pixels, region.mask, options)) for region in draft.regions)
        )
        for draft in drafts
    ]


def cut_out(pixels: np.ndarray, mask: Bool[np.ndarray, "h w"], options: Options) -> np.ndarray:
    """uint8[n, n, 3]: what a mask shows, in the middle of a square of plain ground, `options.reference_size` a side."""
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
