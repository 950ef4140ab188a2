"""Spatial relations between subjects, computed from an image's masks and depth: their only definition.

Widths and gaps are shares of the image, distances are metres from the camera:

    left of, right of   the centre of neither lies within the other's width
    in front of, behind widths overlap, and one is clearly nearer and its foot lower
    on                  it was put there (`placement.supports_of`), and in the image its foot is on the other
    between             near the middle of a line from one to the other, and so in depth
    next to             a small gap sideways at about the same depth
    far from            more than half an image apart
    hides               covers at least a twentieth of the other's silhouette

The margins exclude ambiguous cases, so a pair may have no relation. `Extents.from_boxes` applies the same
rules to projected bounding boxes, before an image is rendered (`macro/evals/benches/alternative_layouts.py`).
Read next: `annotate.py`.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

OPPOSITE = {"left of": "right of", "right of": "left of", "in front of": "behind", "behind": "in front of"}

_NEARER = 0.92  # in front: at most this share of the other's distance
_ALIGNED = 0.4  # in front: at least this share of the narrower one's width is shared
_LEVEL = 1.15  # next to: distances differ by at most this factor
_GAP = 0.06  # next to: at most this far apart sideways
_FAR = 0.55
_HIDDEN = 0.05

Found = tuple[int, str, int | tuple[int, int]]
Pairs = Bool[np.ndarray, "s s"]
Values = Float[np.ndarray, "s"]


def read_relations(
    masks: Bool[np.ndarray, "s h w"],
    amodal: Bool[np.ndarray, "s h w"],
    distances: Float[np.ndarray, "s"],
    resting: tuple[tuple[int, int], ...] = (),
) -> tuple[Found, ...]:
    """All relations that clearly hold between visible subjects.

    Args:
        masks, amodal: visible parts and whole silhouettes.
        distances: of each subject from the camera, metres.
        resting: pairs (i, j) where i was placed on j.

    Returns:
        (i, name, j) or (i, "between", (j, k)) with j < k; indices from 0.
    """
    seen = masks.any((1, 2))
    # A subject and its support have no relation but "on"; neither is "between" the other and a third.
    stacked = np.zeros((len(masks), len(masks)), bool)
    for i, j in resting:
        stacked[i, j] = True
    apart = seen[:, None] & seen[None] & ~stacked & ~stacked.T & ~np.eye(len(masks), dtype=bool)
    extents = Extents.from_masks(masks, amodal, distances)
    pairs = {name: holds & apart for name, holds in extents.pairs().items()}
    pairs["on"] = extents.on() & stacked & seen[:, None] & seen[None]
    found: list[Found] = [
        (int(i), name, int(j)) for name, holds in pairs.items() for i, j in np.argwhere(holds)
    ]
    for j, k in combinations(np.flatnonzero(seen).tolist(), 2):
        for i in np.flatnonzero(apart[:, j] & apart[:, k] & apart[j, k]).tolist():
            if extents.between(i, j, k):
                found.append((i, "between", (j, k)))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Extents:
    """Where s subjects are in the image; each method is the definition of one relation.

    Attributes:
        x, y: middle of the visible part, shares of the image's width and height.
        left, right: of the visible part; `whole_left`, `whole_right`, `top`, `foot`: of the whole silhouette.
        distances: from the camera, metres.
        covered: [i, j] is the share of j's silhouette that i covers.
    """

    x: Values
    y: Values
    left: Values
    right: Values
    whole_left: Values
    whole_right: Values
    top: Values
    foot: Values
    distances: Values
    covered: Float[np.ndarray, "s s"]

    @classmethod
    def from_masks(
        cls, masks: Bool[np.ndarray, "s h w"], amodal: Bool[np.ndarray, "s h w"], distances: Values
    ) -> "Extents":
        """Exact extents: `masks` are visible parts, `amodal` whole silhouettes."""
        flat = masks.reshape(len(masks), -1).astype(np.float32)
        covered = flat @ amodal.reshape(len(masks), -1).T / np.maximum(amodal.sum((1, 2)), 1)
        middles = centroids(masks)
        sides, whole = _extent(masks.any(1)), _extent(amodal.any(1))
        return cls(middles[:, 0], middles[:, 1], *sides, *whole, *_extent(amodal.any(2)), distances, covered)

    @classmethod
    def from_boxes(cls, boxes: Float[np.ndarray, "s 4"], distances: Values) -> "Extents":
        """Extents from bounding boxes (x0, y0, x1, y1), without occlusion."""
        x0, y0, x1, y1 = boxes.T
        return cls(
            (x0 + x1) / 2, (y0 + y1) / 2, x0, x1, x0, x1, y0, y1, distances, np.zeros((len(boxes), len(boxes)))
        )

    @cached_property
    def left_of(self) -> Pairs:
        return (self.right[:, None] <= self.x) & (self.x[:, None] <= self.left)

    def pairs(self) -> dict[str, Pairs]:
        """Every binary relation but "on": [i, j] is whether it holds from i to j."""
        front = self.in_front()
        distance = np.hypot(self.x[:, None] - self.x, self.y[:, None] - self.y)
        return {
            "left of": self.left_of,
            "right of": self.left_of.T,
            "in front of": front,
            "behind": front.T,
            "next to": self.next_to(),
            "far from": distance >= _FAR,
            "hides": self.covered >= _HIDDEN,
        }

    def in_front(self) -> Pairs:
        wide = self.whole_right - self.whole_left
        shared = np.minimum(self.whole_right[:, None], self.whole_right)
        shared = shared - np.maximum(self.whole_left[:, None], self.whole_left)
        aligned = shared >= _ALIGNED * np.minimum(wide[:, None], wide)
        nearer = self.distances[:, None] <= _NEARER * self.distances
        return aligned & nearer & (self.foot[:, None] > self.foot)

    def next_to(self) -> Pairs:
        gap = np.maximum(self.left[:, None], self.left) - np.minimum(self.right[:, None], self.right)
        nearer = np.minimum(self.distances[:, None], self.distances)
        level = np.maximum(self.distances[:, None], self.distances) <= _LEVEL * nearer
        return level & (gap <= _GAP) & (self.left_of | self.left_of.T)

    def on(self) -> Pairs:
        above = (self.foot[:, None] <= self.foot) & (self.y[:, None] < self.y)
        standing = self.top - 0.02 <= self.foot[:, None]
        within = (self.whole_left <= self.x[:, None]) & (self.x[:, None] <= self.whole_right)
        return above & standing & within

    def between(self, i: int, j: int, k: int) -> bool:
        left_of = self.left_of
        if not (left_of[j, i] and left_of[i, k]) and not (left_of[k, i] and left_of[i, j]):
            return False
        line = np.array([self.x[k] - self.x[j], self.y[k] - self.y[j]])
        offset = np.array([self.x[i] - self.x[j], self.y[i] - self.y[j]])
        along = offset @ line / (line @ line)
        aside = abs(offset[0] * line[1] - offset[1] * line[0]) / (line @ line)
        expected = (1 - along) * self.distances[j] + along * self.distances[k]
        level = 1 / 1.25 <= self.distances[i] / expected <= 1.25
        return bool(0.25 <= along <= 0.75 and aside <= 0.25 and level)


def _extent(present: Bool[np.ndarray, "s n"]) -> tuple[Float[np.ndarray, "s"], Float[np.ndarray, "s"]]:
    """First and last edge on 0..1 of the nonzero part of each row of `present`."""
    n = present.shape[1]
    return present.argmax(1) / n, (n - present[:, ::-1].argmax(1)) / n


def centroids(masks: Bool[np.ndarray, "s h w"]) -> Float[np.ndarray, "s 2"]:
    """Centroid (x, y) of each mask in 0..1; the middle of the image for an empty one."""
    height, width = masks.shape[1:]
    area = np.maximum(masks.sum((1, 2)), 1)
    x = masks.sum(1) @ (np.arange(width) + 0.5) / width / area
    y = masks.sum(2) @ (np.arange(height) + 0.5) / height / area
    return np.where(masks.any((1, 2))[:, None], np.stack([x, y], 1), 0.5)
