"""Colours in an image's cells: is each subject's palette in its cells of the plan?

Pixels are compared with colours in Oklab. A generated image may have any light, so a colour is compared under
every light of the scenes, from shade to full sun:

    d(pixel, colour) = min over s of |Oklab(pixel) - Oklab(s colour)| + LIGHT_COST |ln s|

where the small cost keeps a sunlit grey from passing for a shaded white. For a given subject, a pixel has
one of its own three colours (or a blend of two, as on the edges of a pattern: half of each), another
subject's main colour, or the background's, whichever is nearest. Cells never contain only their subject,
so the true image sets the threshold: with e_c the share of colour c in the true image's cells, and a_c the
share in the judged cells,

    a subject's cells hold its palette   when   sum_c min(a_c, e_c) >= HELD sum_c e_c
                                         and    a_c >= PRESENT e_c  for each c with e_c >= LARGE sum_c e_c
                                         and    pure(a) >= PURE pure(e),   pure(x) = sum_c x_c / (sum_c x_c + f)

All thresholds were set on renders of scenes used by no evaluation (`scenes.CALIBRATION`): another light, pose
and texture phase passes, a little blur passes, another image does not. Read next: `benches/scenes.py`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from macro.scenes.assets.palettes import to_linear, to_oklab
from macro.sentence.layout import GRID_SIZE, Grid
from macro.sentence.spans import Truth

SHADES = np.array([0.2, 0.3, 0.45, 0.7, 1.0, 1.25, 1.5])  # light that falls on a colour; 1 shows it as named
LIGHT_COST = 0.03
BLEND_COST = 0.02  # a pure colour is preferred to a blend, and where two subjects share one, the main to the others
FAR = 0.09  # a pixel farther than this from every colour has none of them; 0.1 is another colour to the eye
HELD, PRESENT, LARGE, PURE = 0.5, 0.25, 0.2, 0.6
SWAPPED = 0.25  # of a cell's pixels; less of another's colour is a sliver of a neighbour
BEHIND, DOMINANT, LEAST_DOMINANT = (
    8,
    6,
    0.05,
)  # clusters of the background, of a subject's cells; share of one

Image = UInt8[np.ndarray, "h w 3"]
NOBODY = -1
BLENDS = ((0, 1), (0, 2), (1, 2))


def light_distance(pixels: Float[np.ndarray, "p 3"], colours: Float[np.ndarray, "c 3"]) -> Float32[np.ndarray, "p c"]:
    """d(pixel, colour) of the head: `pixels` in Oklab, `colours` in sRGB 0..1."""
    lit = np.clip(to_linear(colours)[None] * SHADES[:, None, None], 0, 1) ** (1 / 2.2)
    cost = LIGHT_COST * np.abs(np.log(SHADES))
    near = np.full((len(pixels), len(colours)), np.inf, np.float32)
    for shade, extra in zip(to_oklab(lit), cost, strict=True):
        np.minimum(near, _distance(pixels, shade) + np.float32(extra), out=near)
    return near


def _distance(a: Float[np.ndarray, "p 3"], b: Float[np.ndarray, "c 3"]) -> Float32[np.ndarray, "p c"]:
    a, b = a.astype(np.float32), b.astype(np.float32)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0))


def clusters(pixels: Float[np.ndarray, "p 3"], count: int) -> tuple[Float[np.ndarray, "k 3"], Float[np.ndarray, "k"]]:
    """k-means: centres, and the share of the pixels of each. Deterministic, from initial centres far apart."""
    centres = [pixels.mean(0)]
    while len(centres) < count:
        centres.append(pixels[_distance(pixels, np.array(centres)).min(1).argmax()])
    centres = np.array(centres)
    for _ in range(8):
        nearest = _distance(pixels, centres).argmin(1)
        sizes = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, pixels[:, c], count) for c in range(3)], 1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return centres, sizes / len(pixels)


def cells_mask(grid: Grid, number: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels of a subject's cells in an image of `size` (h, w), both multiples of 8."""
    return (grid == number).repeat(size[0] // GRID_SIZE, 0).repeat(size[1] // GRID_SIZE, 1)


@dataclass(frozen=True, eq=False)
class Colours:
    """The colours of one scene: palettes in sRGB 0..1, and those of the background, in Oklab."""

    palettes: Float[np.ndarray, "s 3 3"]
    background: Float[np.ndarray, "k 3"]

    @classmethod
    def of(cls, target: Image, truth: Truth) -> "Colours":
        """Background colours are those of the true image outside all subjects."""
        behind = to_oklab(target[~truth.masks.any(0)] / 255.0)
        background = clusters(behind, BEHIND)[0] if len(behind) >= BEHIND else np.empty((0, 3))
        return cls(truth.palettes.astype(np.float64), background)

    def others(self, subject: int) -> list[int]:
        """The subjects whose main colour is not among this subject's three."""
        own = self.palettes[subject - 1]
        mains = self.palettes[:, 0]
        return [n + 1 for n, main in enumerate(mains) if np.abs(own - main).max(1).min() > 1e-3]


class Judged:
    """One image classified by one scene's colours. Subjects are numbered from 1."""

    def __init__(self, image: Image, colours: Colours):
        self.size, self.colours = image.shape[:2], colours
        self._pixels = to_oklab(image.reshape(-1, 3) / 255.0)
        self._behind = np.full(len(self._pixels), FAR, np.float32)
        if len(colours.background):
            self._behind = np.minimum(FAR, _distance(self._pixels, colours.background).min(1))
        self._mains = light_distance(self._pixels, colours.palettes[:, 0])

    def shares(self, subject: int, where: Bool[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
        """Classifies each pixel of `where` for one subject.

        Returns:
            The pixel's shares of the subject's three colours [p, 3]; and whose main colour it has instead [p]: another
            subject's number, 0 for the subject's own or the background's, `NOBODY` for no known colour.
        """
        where = where.ravel()
        palette = self.colours.palettes[subject - 1]
        linear = to_linear(palette)
        blends = np.array([(linear[a] + linear[b]) / 2 for a, b in BLENDS]) ** (1 / 2.2)
        own = light_distance(self._pixels[where], np.concatenate([palette, blends]))
        own[:, 3:] += BLEND_COST
        others = self.colours.others(subject)
        other = self._mains[where][:, [n - 1 for n in others]]
        nearest_other = other.min(1, initial=np.inf)
        behind = self._behind[where]
        is_own = (own.min(1) < behind) & (own.min(1) <= nearest_other)
        is_other = (nearest_other < behind) & ~is_own
        parts = np.concatenate([np.eye(3), [(np.eye(3)[a] + np.eye(3)[b]) / 2 for a, b in BLENDS]])
        whose = np.where(is_own | (behind < FAR), 0, NOBODY)
        if others:
            whose = np.where(is_other, np.array(others)[other.argmin(1)], whose)
        return parts[own.argmin(1)] * is_own[:, None], whose

    def amounts(self, subject: int, grid: Grid) -> Float[np.ndarray, "4"]:
        """Shares of the pixels of the subject's cells: of its three colours, and of foreign ones.

        Foreign are other subjects' main colours and unknown ones, not the background's. Zeros without cells.
        """
        where = cells_mask(grid, subject, self.size)
        if not where.any():
            return np.zeros(4)
        own, whose = self.shares(subject, where)
        return np.append(own.mean(0), np.mean(whose != 0))

    def holds(self, subject: int, expected: Float[np.ndarray, "4"], grid: Grid) -> bool:
        """Whether the subject's cells hold its palette, by the rule of the head; `expected` is e."""
        found = self.amounts(subject, grid)
        bar, total = expected[:3], expected[:3].sum()
        present = (found[:3] >= PRESENT * bar) | (bar < LARGE * total)
        enough = np.minimum(found[:3], bar).sum() >= HELD * total > 0
        return bool(enough and present.all() and _purity(found) >= PURE * _purity(expected))

    def contest(self, i: int, j: int, where: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
        """The shares of the pixels of `where` with a colour of subject i rather than of j, and the reverse."""
        if not where.any():
            return 0.0, 0.0
        where = where.ravel()
        third = [n - 1 for n in sorted({*self.colours.others(i)} & {*self.colours.others(j)})]
        limit = np.minimum(self._behind[where], self._mains[where][:, third].min(1, initial=np.inf))
        costs = np.array([0, BLEND_COST, BLEND_COST], np.float32)
        a, b = ((light_distance(self._pixels[where], self.colours.palettes[n - 1]) + costs).min(1) for n in (i, j))
        return float(np.mean(a < np.minimum(b, limit))), float(np.mean(b < np.minimum(a, limit)))

    def swapped(self, subject: int, grid: Grid) -> tuple[int, int]:
        """(cells with more of another's main colour than of the subject's own palette, all its cells)."""
        mask = cells_mask(grid, subject, self.size)
        if not mask.any():
            return 0, 0
        own, whose = self.shares(subject, mask)
        cell = np.arange(GRID_SIZE * GRID_SIZE).reshape(GRID_SIZE, GRID_SIZE)
        cell = cell.repeat(self.size[0] // GRID_SIZE, 0).repeat(self.size[1] // GRID_SIZE, 1)[mask]
        swapped = 0
        for number in np.unique(cell):
            here = cell == number
            most = max(np.mean(whose[here] == n) for n in range(1, len(self.colours.palettes) + 1))
            swapped += bool(most >= SWAPPED and most > own[here].sum(1).mean())
        return swapped, int((grid == subject).sum())

    def palette_distance(self, subject: int, weights: Float[np.ndarray, "3"], grid: Grid) -> float:
        """Distance in Oklab of the subject's colours from the nearest dominant colours of its cells.

        The mean over main, second and accent colour by `weights`; NaN without cells.
        """
        pixels = self._pixels[cells_mask(grid, subject, self.size).ravel()]
        if not len(pixels) or not weights.sum():
            return float("nan")
        centres, shares = clusters(pixels, DOMINANT)
        near = light_distance(centres[shares >= LEAST_DOMINANT], self.colours.palettes[subject - 1]).min(0)
        return float((near * weights).sum() / weights.sum())


def _purity(amounts: Float[np.ndarray, "4"]) -> float:
    return float(amounts[:3].sum() / max(amounts.sum(), 1e-9))


def expected_amounts(target: Image, colours: Colours, grid: Grid) -> Float[np.ndarray, "s 4"]:
    """e of the module docstring: the shares of colours in each subject's cells of the true image."""
    judged = Judged(target, colours)
    return np.stack([judged.amounts(n, grid) for n in range(1, len(colours.palettes) + 1)])
