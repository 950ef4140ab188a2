"""Relations read off the picture: what a person who sees masks and depth would say, and would not dispute.

Names are those of `graph.RELATIONS`, and "hides". Widths and gaps are shares of the picture, depths metres:

    left of, right of   the centre of neither lies within the other's width
    in front of, behind widths overlap, and one is clearly nearer and its foot lower
    on                  the graph says so, and in the picture its foot stands upon the other
    between             near the middle of a line from one to the other, and so in depth
    next to             a small gap sideways at about the same depth
    far from            more than half a picture apart
    hides               covers at least a twentieth of the other's silhouette

Margins leave out what is arguable: a pair may stand in no relation at all. (`world_relations.py` plans a scene's
relations before there is a picture.) Read next: `annotate.py`.
"""

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
        resting: pairs (i, j) where the scene graph has i on j.

    Returns:
        (i, name, j) or (i, "between", (j, k)) with j < k; indices from 0.
    """
    seen = masks.any((1, 2))
    # Of a subject and what it stands on, "on" is all there is to say; neither is "between it and a third".
    stacked = np.zeros((len(masks), len(masks)), bool)
    for i, j in resting:
        stacked[i, j] = True
    apart = seen[:, None] & seen[None] & ~stacked & ~stacked.T & ~np.eye(len(masks), dtype=bool)
    picture = _Picture(masks, amodal, distances)
    pairs = {name: holds & apart for name, holds in picture.pairs().items()}
    pairs["on"] = picture.on() & stacked & seen[:, None] & seen[None]
    found: list[Found] = [
        (int(i), name, int(j)) for name, holds in pairs.items() for i, j in np.argwhere(holds)
    ]
    for j, k in combinations(np.flatnonzero(seen).tolist(), 2):
        for i in np.flatnonzero(apart[:, j] & apart[:, k] & apart[j, k]).tolist():
            if picture.between(i, j, k):
                found.append((i, "between", (j, k)))
    return tuple(found)


class _Picture:
    """Measures of each subject, taken once; each method is one relation's definition."""

    def __init__(self, masks, amodal, distances):
        area, whole = masks.sum((1, 2)), amodal.sum((1, 2))
        height, width = masks.shape[1:]
        self.x = masks.sum(1) @ (np.arange(width) + 0.5) / width / np.maximum(area, 1)
        self.y = masks.sum(2) @ (np.arange(height) + 0.5) / height / np.maximum(area, 1)
        self.left, self.right = _extent(masks.any(1))
        self.whole_left, self.whole_right = _extent(amodal.any(1))
        self.top, self.foot = _extent(amodal.any(2))
        self.distances = distances
        flat = masks.reshape(len(masks), -1).astype(np.float32)
        self.covered = flat @ amodal.reshape(len(masks), -1).T / np.maximum(whole, 1)
        self.left_of = (self.right[:, None] <= self.x) & (self.x[:, None] <= self.left)

    def pairs(self) -> dict[str, Pairs]:
        """Every relation of two but "on": [i, j] says whether i stands in it to j."""
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
    """First and last edge on 0..1 where each row of `present` holds anything."""
    n = present.shape[1]
    return present.argmax(1) / n, (n - present[:, ::-1].argmax(1)) / n
