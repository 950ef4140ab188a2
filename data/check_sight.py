"""What an image shows, from its pixels and masks alone: the colours of each subject, where it is, how two relate.

Every answer is True, False, or None where the image leaves it open: a text is wrong only where the answer is False, and
a question answered "no" only where it is True. Widths and gaps are shares of the image. Nothing here comes from the
code that renders or annotates. Read next: `check_reader.py` (what a text says), `check.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
HALF, SLACK = 0.5, 0.004  # one word: at least half of the visible pixels, give or take this share of them
SAME = 0.02  # shades closer than this in Oklab are one
BETWEEN = 1.06  # a shade has two names if the second is at most so many times as far away as the first
TINY = 0.01  # a box of less of the image may be passed over, as MUSIC does (arXiv 2604.07422)
FEW = 12  # with fewer visible pixels a subject's colour cannot be judged
COLUMNS = {"far left": (0, 0.2), "left": (0.2, 0.4), "centre": (0.4, 0.6), "right": (0.6, 0.8), "far right": (0.8, 1)}
ROWS = {"upper": (0, 0.4), "level": (0.4, 0.6), "lower": (0.6, 1)}
EDGE = 0.03  # how far a centre may lie outside the named part of the image
_INVERSE = {
    "right of": "left of", "behind": "in front of", "hidden by": "hides", "under": "on", "smaller than": "larger than",
}  # fmt: skip


def to_oklab(rgb: UInt8[np.ndarray, "n 3"]) -> np.ndarray:
    """Oklab of sRGB colours, [n, 3] (Ottosson, A perceptual color space for image processing, 2020)."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
              [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear @ np.array(to_lms).T) @ np.array(to_lab).T


_NAMES = list(PROTOTYPES)
_POINTS = to_oklab(np.array(list(PROTOTYPES.values()), np.uint8))


@dataclass(frozen=True)
class Shares:
    """The share of some pixels that each colour name has, largest first: by the closest name, at least, and at most."""

    closest: dict[str, float]
    least: dict[str, float]
    most: dict[str, float]


def colour_shares(pixels: UInt8[np.ndarray, "n 3"]) -> Shares:
    """Names every pixel. A shade between two names (`BETWEEN`) has one at closest, none at least, both at most."""
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    far = np.sqrt(((to_oklab(colours)[:, None] - _POINTS) ** 2).sum(2))
    possible = far <= np.maximum(BETWEEN * far.min(1, keepdims=True), SAME)
    sure = possible & (possible.sum(1, keepdims=True) == 1)
    closest = np.eye(len(_NAMES), dtype=bool)[far.argmin(1)]
    first, *others = (counts @ named / max(len(pixels), 1) for named in (closest, sure, possible))
    order = np.argsort(-first, kind="stable")
    return Shares(*({_NAMES[n]: float(shares[n]) for n in order if shares[n]} for shares in (first, *others)))


def is_coloured(shares: Shares, colours: Sequence[str]) -> bool | None:
    """Whether "red" (at least half) or "red and blue" (the two largest) is true of these shares; see `SLACK`."""
    if len(set(colours)) < len(colours):
        return False
    least, most = ([named.get(colour, 0.0) for colour in colours] for named in (shares.least, shares.most))
    if len(colours) == 1:
        return True if least[0] > HALF + SLACK else False if most[0] < HALF - SLACK else None
    rest = [{n: share for n, share in named.items() if n not in colours} for named in (shares.least, shares.most)]
    if min(most) == 0 or min(most) + SLACK < max(rest[0].values(), default=0.0):
        return False
    return True if min(least) > SLACK + max(rest[1].values(), default=0.0) else None


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
        self._colours: dict[int, Shares] = {}

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def visible(self) -> list[int]:
        """The subjects with a visible pixel."""
        return [n + 1 for n in np.flatnonzero(self.masks.any((1, 2))).tolist()]

    def colours(self, subject: int) -> Shares | None:
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
    def counted(self) -> list[int]:
        """The visible subjects that a text must speak of: those whose box is not tiny."""
        boxes = {n: self.box(n) for n in self.visible}
        return [n for n, (x0, y0, x1, y1) in boxes.items() if (x1 - x0) * (y1 - y0) >= TINY]

    @cached_property
    def centres(self) -> np.ndarray:
        """[s, 2]: x, y of the visible parts' middles, 0..1."""
        height, width = self.masks.shape[1:]
        area = np.maximum(self.masks.sum((1, 2)), 1)
        x = self.masks.sum(1) @ (np.arange(width) + 0.5) / area / width
        y = self.masks.sum(2) @ (np.arange(height) + 0.5) / area / height
        return np.stack([x, y], 1)

    def box(self, subject: int, whole: bool = False) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in 0..1 of the visible part, or of the whole silhouette; zeros for an empty one."""
        return self._boxes[whole][subject - 1]

    @cached_property
    def _boxes(self) -> tuple[list, list]:
        return [_box(mask) for mask in self.masks], [_box(mask) for mask in self.amodal]

    def is_depth(self, subject: int, depth: str) -> bool | None:
        """Whether a subject is "near" or "far": False only where both its foot and its rank in depth say otherwise."""
        own = {n: self.box(n, whole=True)[3] for n in self.visible}
        lowest, highest = max(own.values()), min(own.values())
        if lowest == highest or subject not in self.rank:
            return None
        rank = self.rank[subject] / (len(own) - 1)
        foot, carried = ((at[subject] - highest) / (lowest - highest) for at in (own, self._feet))
        wrong = carried < 0.35 and rank > 0.2 if depth == "near" else foot > 0.5 and rank < 0.7
        wrong |= rank >= 0.8 if depth == "near" else rank <= 0.2
        return False if wrong else None

    @cached_property
    def _feet(self) -> dict[int, float]:
        """Height in the image of where each stands on the ground, or of where that stands which seems to carry it."""
        return {
            n: max(self.box(m, whole=True)[3] for m in self.visible if m == n or self._on(n, m)) for n in self.visible
        }

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
        # What is seen right below the foot carries it, and hides nothing of it. Below what is in front lies the ground.
        rows = np.flatnonzero(self.masks[i - 1].any(1))
        under = self.masks[:, rows[-1] + 1 : rows[-1] + 3, self.masks[i - 1][rows[-1]]]
        hidden = (self.masks[j - 1] & self.amodal[i - 1]).sum() / self.amodal[i - 1].sum()
        carried = under.size and under[j - 1].mean() >= 0.5 and hidden < 0.01 and foot >= top + 0.01
        return True if carried else None

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


def _box(mask: Bool[np.ndarray, "h w"]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    height, width = mask.shape
    edges = columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    return tuple(map(float, edges))


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
