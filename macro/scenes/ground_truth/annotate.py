"""Exact ground truth of a rendered image: masks, boxes, visibility, depth order, relations, MUSIC's layout.

The renderer's id buffer holds the subject of each pixel, so nothing here is estimated. The layout rule is
that of MUSIC (arXiv 2604.07422): for the region b_i of subject i (its mask, or its box) and a patch p of the
8 x 8 grid

    p takes label i   when   IoU(b_i, p) >= tau,   tau = 0.05 * (1/K) * sum IoU

The paper leaves open what the sum and K run over; `layout` has an option for the three readings. Where two
subjects pass on one patch, the higher IoU wins. Read next: `relations.py`, `questions.py`, `captions.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from macro.scenes.assets.palettes import nearest_colours
from macro.scenes.graph import Scene
from macro.scenes.ground_truth.relations import read_relations
from macro.scenes.layout.placement import supports_of
from macro.sentence.layout import GRID_SIZE, Grid
from macro.sentence.spans import Truth

LAMBDA = 0.05  # the paper's lambda: tau drops slivers only
READINGS_OF_K = ("overlap", "all_patches", "subjects_at_patch")
REGIONS = ("mask", "box")


def truth_of(scene: Scene, drawn: Mapping[str, np.ndarray]) -> Truth:
    """The ground truth of a rendered scene; its questions are added by `questions.ask`.

    Args:
        scene: the graph; subject i of `scene.subjects` has number i + 1 in the result.
        drawn: arrays of `raycast.render` for this scene, "amodal" among them.
    """
    count, ids, amodal, depth = len(scene.subjects), drawn["ids"], drawn["amodal"], drawn["depth"]
    masks = ids[None] == np.arange(1, count + 1)[:, None, None]
    # A ray that grazes an edge may hit a subject in one pass and miss it in the other: visible pixels count in both.
    amodal = amodal[:count] | masks
    distances = mean_depths(masks, depth)
    found = read_relations(masks, amodal, distances, tuple(supports_of(scene.subjects).items()))
    return Truth(
        kinds=tuple(s.kind for s in scene.subjects),
        palettes=np.array([s.palette for s in scene.subjects], np.float32).reshape(count, 3, 3),
        textures=tuple(s.texture for s in scene.subjects),
        colours=visible_colours(drawn["albedo"], masks),
        boxes=tight_boxes(masks),
        masks=masks,
        amodal=amodal,
        visibility=(masks.sum((1, 2)) / np.maximum(amodal.sum((1, 2)), 1)).astype(np.float32),
        depth_order=tuple(int(i) + 1 for i in np.argsort(distances, kind="stable")),
        relations=tuple((i + 1, name, _numbers(j)) for i, name, j in found),
        albedo=drawn["albedo"],
    )


def visible_colours(
    albedo: UInt8[np.ndarray, "h w 3"], masks: Bool[np.ndarray, "s h w"]
) -> tuple[tuple[str, ...], ...]:
    """The colours by which the eye would name each subject: (largest,) if half of its visible pixels or more have that
    name, else (largest, second largest); () if none is visible. Every pixel counts for the nearest name."""
    paints, index = np.unique(albedo.reshape(-1, 3), axis=0, return_inverse=True)
    names, number = nearest_colours(paints)
    named = number[index].reshape(albedo.shape[:2])
    found = []
    for mask in masks:
        shares = np.bincount(named[mask], minlength=len(names))
        first, second = np.argsort(-shares, kind="stable")[:2]
        both = (names[first],) if 2 * shares[first] >= shares.sum() else (names[first], names[second])
        found.append(both if mask.any() else ())
    return tuple(found)


def truth_subset(truth: Truth, subjects: Sequence[int]) -> Truth:
    """The part of the truth about these subjects (from 0), renumbered in this order; without questions."""
    new = {old + 1: i + 1 for i, old in enumerate(subjects)}
    order = list(subjects)

    def renumbered(j):
        if isinstance(j, tuple):
            # "between" names its two subjects in the order of their numbers, also the new ones.
            both = [new[k] for k in j if k in new]
            return tuple(sorted(both)) if len(both) == len(j) else None
        return new.get(j)

    relations = ((new.get(i), name, renumbered(j)) for i, name, j in truth.relations)
    return Truth(
        kinds=tuple(truth.kinds[i] for i in order),
        palettes=truth.palettes[order],
        textures=tuple(truth.textures[i] for i in order),
        colours=tuple(truth.colours[i] for i in order),
        boxes=truth.boxes[order],
        masks=truth.masks[order],
        amodal=truth.amodal[order],
        visibility=truth.visibility[order],
        depth_order=tuple(new[i] for i in truth.depth_order if i in new),
        relations=tuple(r for r in relations if None not in (r[0], r[2])),
        albedo=truth.albedo,
    )


def visible_truth(truth: Truth, first: Sequence[int] = ()) -> Truth:
    """The truth about all that is visible in the image: the subjects `first` (from 0), then the others."""
    others = [i for i, mask in enumerate(truth.masks) if mask.any() and i not in first]
    return truth_subset(truth, [*first, *others])


def _numbers(j: int | tuple[int, int]) -> int | tuple[int, int]:
    return (j[0] + 1, j[1] + 1) if isinstance(j, tuple) else j + 1


def mean_depths(masks: Bool[np.ndarray, "s h w"], depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "s"]:
    """Mean distance of each subject's visible pixels, metres; infinite where none is visible."""
    return np.array([depth[mask].mean() if mask.any() else np.inf for mask in masks], np.float64)


def tight_boxes(masks: Bool[np.ndarray, "s h w"]) -> Float[np.ndarray, "s 4"]:
    """(x0, y0, x1, y1) in 0..1 around each mask's pixels; zeros for an empty mask."""
    boxes = np.zeros((len(masks), 4), np.float32)
    height, width = masks.shape[1:]
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = (
                columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
            )  # fmt: skip
    return boxes


def layout(
    masks: Bool[np.ndarray, "s h w"],
    boxes: Float[np.ndarray, "s 4"] | None = None,
    K: str = "overlap",
    region: str | Sequence[str] = "mask",
) -> Grid:
    """The 8 x 8 layout by MUSIC's rule.

    Args:
        masks: visible part of subjects 1..s.
        boxes: x0, y0, x1, y1 in 0..1; by default the masks' tight boxes. Only read where `region` is "box".
        K: what tau's mean runs over. "overlap": the patches this subject overlaps. "all_patches": all 64, so
            that tau is lower for small subjects. "subjects_at_patch": the subjects that overlap this patch.
        region: "mask" or "box", one for all subjects or one for each (in MUSIC, CLIP chooses).

    Returns:
        int8[8, 8]: 0 for background, n for subject n.

    Raises:
        ValueError: an unknown `K` or `region`.
    """
    regions = [region] * len(masks) if isinstance(region, str) else list(region)
    if K not in READINGS_OF_K or len(regions) != len(masks) or set(regions) - set(REGIONS):
        raise ValueError(f"layout: K is one of {READINGS_OF_K}, region (one or per subject) of {REGIONS}")
    if not len(masks):
        return np.zeros((GRID_SIZE, GRID_SIZE), np.int8)
    boxes = tight_boxes(masks) if boxes is None else boxes
    boxed = np.array([name == "box" for name in regions])[:, None, None]
    iou = _patch_iou(np.where(boxed, _box_areas(boxes), _mask_areas(masks)))
    passes = (iou > 0) & (iou >= LAMBDA * _mean_iou(iou, K))
    contest = np.where(passes, iou, 0)
    return np.where(passes.any(0), contest.argmax(0) + 1, 0).astype(np.int8)


def _mean_iou(iou: Float[np.ndarray, "s 8 8"], K: str) -> Float[np.ndarray, "#s #8 #8"]:
    if K == "subjects_at_patch":
        return iou.sum(0, keepdims=True) / np.maximum((iou > 0).sum(0, keepdims=True), 1)
    total = iou.sum((1, 2), keepdims=True)
    if K == "all_patches":
        return total / GRID_SIZE**2
    return total / np.maximum((iou > 0).sum((1, 2), keepdims=True), 1)


def _patch_iou(inside: Float[np.ndarray, "s 8 8"]) -> Float[np.ndarray, "s 8 8"]:
    """IoU of each region with each patch. `inside`: the region's area in each patch, in units of patches."""
    whole = inside.sum((1, 2), keepdims=True)
    return inside / (whole + 1 - inside)


def _mask_areas(masks: Bool[np.ndarray, "s h w"]) -> Float[np.ndarray, "s 8 8"]:
    """Area of each mask in each patch, in units of patches. A pixel on a border counts for both by its share."""
    height, width = masks.shape[1:]
    rows = _interval_shares(np.arange(height) / height, np.arange(1, height + 1) / height)
    columns = _interval_shares(np.arange(width) / width, np.arange(1, width + 1) / width)
    return rows.T @ masks.astype(np.float64) @ columns


def _box_areas(boxes: Float[np.ndarray, "s 4"]) -> Float[np.ndarray, "s 8 8"]:
    x0, y0, x1, y1 = np.clip(boxes.astype(np.float64), 0, 1).T
    return _interval_shares(y0, y1)[:, :, None] * _interval_shares(x0, x1)[:, None, :]


def _interval_shares(start: Float[np.ndarray, "n"], stop: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n 8"]:
    """How much of each of the 8 patches' intervals on 0..1 lies between start and stop, in 0..1."""
    edges = np.arange(GRID_SIZE + 1)
    first = np.maximum(start[:, None] * GRID_SIZE, edges[None, :-1])
    last = np.minimum(stop[:, None] * GRID_SIZE, edges[None, 1:])
    return np.maximum(last - first, 0)
