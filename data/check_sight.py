"""What an image shows, from its pixels and masks alone: the colours of each subject, where it is, how two relate.

Every answer is True, False, or None where the image leaves it open: a text is wrong only where the answer is False, and
a question answered "no" only where it is True. Widths and gaps are shares of the image. Nothing here comes from the
code that renders or annotates. Read next: `check_reader.py` (what a text says), `check.py`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int8, UInt8

# sRGB prototypes of the fifteen names; a painted pixel has the name of the closest.
PROTOTYPES = {
    "red": (217, 33, 36), "orange": (250, 133, 26), "yellow": (252, 212, 41), "lime": (158, 212, 51),
    "green": (31, 140, 61), "teal": (0, 148, 148), "cyan": (115, 212, 242), "blue": (38, 92, 217),
    "navy": (28, 38, 107), "purple": (125, 56, 184), "pink": (250, 140, 184), "brown": (120, 71, 41),
    "white": (245, 245, 240), "grey": (140, 143, 150), "black": (33, 33, 38),
}  # fmt: skip
HALF, SLACK = 0.5, 0.02  # one word: at least half of the visible pixels, give or take this share of them
FEW = 12  # with fewer visible pixels a subject's colour cannot be judged
COLUMNS = {"far left": (0, 0.2), "left": (0.2, 0.4), "centre": (0.4, 0.6), "right": (0.6, 0.8), "far right": (0.8, 1)}
ROWS = {"upper": (0, 0.4), "level": (0.4, 0.6), "lower": (0.6, 1)}
EDGE = 0.03  # how far a centre may lie outside the named part of the image
_INVERSE = {
    "right of": "left of", "behind": "in front of", "hidden by": "hides", "under": "on", "smaller than": "larger than",
}  # fmt: skip


def lightness_and_hue(rgb: UInt8[np.ndarray, "n 3"]) -> np.ndarray:
    """CIE L*a*b* of sRGB colours, [n, 3]."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


_NAMES = list(PROTOTYPES)
_POINTS = lightness_and_hue(np.array(list(PROTOTYPES.values()), np.uint8))


def colour_shares(pixels: UInt8[np.ndarray, "n 3"]) -> dict[str, float]:
    """The share of the pixels that each colour name has, largest first."""
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    nearest = ((lightness_and_hue(colours)[:, None] - _POINTS) ** 2).sum(2).argmin(1)
    shares = np.bincount(nearest, counts, len(_NAMES)) / max(len(pixels), 1)
    return {_NAMES[n]: float(shares[n]) for n in np.argsort(-shares, kind="stable") if shares[n]}


def is_coloured(shares: Mapping[str, float], colours: Sequence[str]) -> bool | None:
    """Whether "red" (at least half) or "red and blue" (the two largest) is true of these shares; see `SLACK`."""
    if len(colours) == 1:
        share = shares.get(colours[0], 0.0)
        return None if abs(share - HALF) <= SLACK else share > HALF
    named = sorted(shares.get(colour, 0.0) for colour in colours)
    others = max((share for name, share in shares.items() if name not in colours), default=0.0)
    if named[0] == 0:
        return False
    return None if abs(named[0] - others) <= SLACK else named[0] > others


class Sight:
    """The subjects of one image, numbered from 1.

    Args:
        masks, amodal: [s, h, w], visible parts and whole silhouettes.
        order: subject numbers, nearest first.
        albedo: the painted colours of each pixel, uint8[h, w, 3]; None if they are not stored.
        outlined: whether masks are outlines; False where they are the cells of a layout.
    """

    def __init__(
        self,
        masks: Bool[np.ndarray, "s h w"],
        amodal: Bool[np.ndarray, "s h w"],
        order: Sequence[int],
        albedo: UInt8[np.ndarray, "h w 3"] | None,
        outlined: bool = True,
    ):
        self.masks, self.amodal, self.albedo = masks, amodal | masks, albedo
        self.outlined = outlined
        self.rank = {subject: place for place, subject in enumerate(order)}
        self._colours: dict[int, dict[str, float]] = {}

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def visible(self) -> list[int]:
        """The subjects with a visible pixel."""
        return [n + 1 for n in np.flatnonzero(self.masks.any((1, 2))).tolist()]

    def colours(self, subject: int) -> dict[str, float] | None:
        """Shares of colour names; None where they are not stored or the subject is too small to judge."""
        mask = self.masks[subject - 1]
        if self.albedo is None or mask.sum() < FEW:
            return None
        if subject not in self._colours:
            self._colours[subject] = colour_shares(self.albedo[mask])
        return self._colours[subject]

    def coloured(self, subject: int, colours: Sequence[str]) -> bool | None:
        """Whether a subject has these colours; None where that is open or cannot be seen."""
        shares = self.colours(subject)
        return None if shares is None else is_coloured(shares, colours)

    @cached_property
    def centres(self) -> np.ndarray:
        """[s, 2]: x, y of the visible parts' middles, 0..1."""
        height, width = self.masks.shape[1:]
        area = np.maximum(self.masks.sum((1, 2)), 1)
        x = self.masks.sum(1) @ (np.arange(width) + 0.5) / area / width
        y = self.masks.sum(2) @ (np.arange(height) + 0.5) / area / height
        return np.stack([x, y], 1)

    def box(self, subject: int, whole: bool = False) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in 0..1 of the visible part, or of the whole silhouette."""
        mask = (self.amodal if whole else self.masks)[subject - 1]
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return 0.0, 0.0, 0.0, 0.0
        height, width = mask.shape
        return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height

    def is_depth(self, subject: int, depth: str) -> bool | None:
        """Whether a subject is "near" or "far": False only where both its foot and its rank in depth say otherwise."""
        feet = {n: self.box(n, whole=True)[3] for n in self.visible}
        lowest, highest = max(feet.values()), min(feet.values())
        if lowest == highest or subject not in self.rank:
            return None
        foot = (feet[subject] - highest) / (lowest - highest)
        rank = self.rank[subject] / (len(feet) - 1)
        wrong = foot < 0.35 and rank > 0.2 if depth == "near" else foot > 0.5 and rank < 0.6
        return False if wrong else None

    def sees(self, who: int, name: str, other: int | tuple[int, int]) -> bool | None:
        """Whether a relation holds; None where the image leaves it open or the relation is unknown."""
        among = (who, *other) if isinstance(other, tuple) else (who, other)
        if not set(among) <= set(self.visible) or len(set(among)) < len(among):
            return False if len(set(among)) < len(among) else None
        if not self.outlined and name in ("on", "under", "hides", "hidden by", "next to"):
            return None
        if name in _INVERSE:
            return self.sees(other, _INVERSE[name], who)
        test = getattr(self, f"_{name.replace(' ', '_')}", None)
        return test(who, other) if test else None

    def _left_of(self, i: int, j: int) -> bool | None:
        (xi, _), (xj, _) = self.centres[i - 1], self.centres[j - 1]
        if xi >= xj - 0.005:
            return False
        return True if self.box(i)[2] <= xj and xi <= self.box(j)[0] else None

    def _in_front_of(self, i: int, j: int) -> bool | None:
        if not self.rank:
            return None
        if self.rank[i] > self.rank[j]:
            return False
        (a, _, b, foot), (c, _, d, other) = self.box(i, True), self.box(j, True)
        shared = min(b, d) - max(a, c)
        return True if shared >= 0.35 * min(b - a, d - c) and foot > other else None

    def _hides(self, i: int, j: int) -> bool | None:
        covered = (self.masks[i - 1] & self.amodal[j - 1]).sum() / max(self.amodal[j - 1].sum(), 1)
        return True if covered >= 0.05 else False if covered < 0.01 else None

    def _next_to(self, i: int, j: int) -> bool | None:
        gap = self._gap(i, j)
        return False if gap > 0.12 else None

    def _near(self, i: int, j: int) -> bool | None:
        return False if self._distance(i, j) > 0.6 else None

    def _far_from(self, i: int, j: int) -> bool | None:
        distance = self._distance(i, j)
        return True if distance > 0.6 else False if distance < 0.5 else None

    def _on(self, i: int, j: int) -> bool | None:
        (xi, yi), (_, yj) = self.centres[i - 1], self.centres[j - 1]
        foot, (left, top, right, bottom) = self.box(i, True)[3], self.box(j, True)
        if not left <= xi <= right or yi >= yj or foot < top - 0.05 or foot > bottom + 0.01:
            return False
        # The foot of what stands behind is hidden, and of what stands in front is lower still.
        seen = self.box(i)[3] >= foot - 1.5 / self.masks.shape[1]
        return True if seen and foot <= bottom - 0.1 * (bottom - top) else None

    def _above(self, i: int, j: int) -> bool | None:
        return bool(self.centres[i - 1][1] < self.centres[j - 1][1])

    def _larger_than(self, i: int, j: int) -> bool | None:
        ratio = self.amodal[i - 1].sum() / max(self.amodal[j - 1].sum(), 1)
        return True if ratio > 1.1 else False if ratio < 0.9 else None

    def _between(self, i: int, pair: tuple[int, int]) -> bool | None:
        j, k = pair
        x, ends = self.centres[i - 1][0], sorted((self.centres[j - 1][0], self.centres[k - 1][0]))
        if not ends[0] < x < ends[1]:
            return False
        line, offset = self.centres[k - 1] - self.centres[j - 1], self.centres[i - 1] - self.centres[j - 1]
        along = offset @ line / (line @ line)
        aside = abs(offset[0] * line[1] - offset[1] * line[0]) / (line @ line)
        return True if 0.25 <= along <= 0.75 and aside <= 0.25 else None if aside < 0.8 else False

    def _gap(self, i: int, j: int) -> float:
        (a, _, b, _), (c, _, d, _) = self.box(i), self.box(j)
        return max(a, c) - min(b, d)

    def _distance(self, i: int, j: int) -> float:
        return float(np.hypot(*(self.centres[i - 1] - self.centres[j - 1])))


def in_place(centre: Sequence[float], place: tuple[str | None, str | None], edge: float = EDGE) -> bool:
    """Whether a centre (x, y) is in a named part of the image, such as ("lower", "far left")."""
    row, column = place
    x, y = centre
    left, right = COLUMNS.get(column, (0, 1))
    top, bottom = ROWS.get(row, (0, 1))
    return bool(left - edge <= x <= right + edge and top - edge <= y <= bottom + edge)


def of_boxes(boxes: Sequence[Sequence[float]], side: int = 128) -> Sight:
    """What boxes (x0, y0, x1, y1 in 0..1) show, where no masks are stored; without depth or colours."""
    masks = np.zeros((len(boxes), side, side), bool)
    for mask, box in zip(masks, boxes, strict=True):
        x0, y0, x1, y1 = (round(float(np.clip(edge, 0, 1)) * side) for edge in box)
        mask[y0:y1, x0:x1] = True
    return Sight(masks, masks, (), None)


def of_grid(grid: Int8[np.ndarray, "8 8"]) -> Sight:
    """What a layout shows, where no masks are stored: cells as masks; without depth or colours."""
    count = int(grid.max(initial=0))
    masks = grid[None] == np.arange(1, count + 1)[:, None, None]
    return Sight(masks, masks, (), None, outlined=False)
