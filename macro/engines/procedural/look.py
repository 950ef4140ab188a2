"""Looking at pictures whose scene is known: detection, verification, masks, similarity of a text and a region.

Exact unless `noise.py` says otherwise.
"""

from collections.abc import Callable, Sequence

import numpy as np

from macro.engines.known import box_of, labels, overlap, subject_at, truths
from macro.engines.procedural.noise import Noise, chance
from macro.engines.sources import Picture
from macro.engines.stages import Box, Fault, Mask, Region
from macro.sentence.spans import Truth

UNKNOWN = Fault("the picture's scene is not known: only rendered pictures can be looked at exactly")
SAME = 0.5  # boxes that overlap this much are of the same thing


def regions_of(truth: Truth, names: Sequence[str]) -> list[Region]:
    """One exact region for each visible subject, called by `names`."""
    return [
        Region(name, box_of(truth, i), float(truth.visibility[i]))
        for i, name in enumerate(names)
        if truth.masks[i].any()
    ]


def known_answers(pictures: Sequence[Picture], answer: Callable[[int, Truth], object]) -> list:
    """`answer(place, truth)` for every picture with a scene, and a fault for the others."""
    known = [i for i, picture in enumerate(pictures) if picture.scene is not None]
    out: list = [UNKNOWN] * len(pictures)
    for i, truth in zip(known, truths([pictures[i] for i in known]), strict=True):
        out[i] = answer(i, truth)
    return out


class Looking:
    """The stages `detect`, `tag`, `verify`, `segment`, `compare`."""

    def __init__(self, noise: Noise):
        self._noise = noise

    def detect(
        self, pictures: Sequence[Picture], labels: Sequence[Sequence[str]]
    ) -> list[list[Region] | Fault]:
        """Regions in the order of the labels; a label is a subject's name (`known.labels`) or its kind."""
        return known_answers(pictures, lambda i, truth: self._detected(pictures[i], truth, labels[i]))

    def _detected(self, picture: Picture, truth: Truth, asked: Sequence[str]) -> list[Region]:
        found: list[Region] = []
        free = {region.label: region for region in regions_of(truth, labels(picture.scene))}
        kinds = dict(zip(labels(picture.scene), truth.kinds, strict=True))
        for label in asked:
            name = label if label in free else next((name for name in free if kinds[name] == label), None)
            rng = chance(picture.scene, "detect", label)
            if name is None or rng.random() < self._noise.missed:
                continue
            region = free.pop(name)
            found.append(Region(label, jittered(region.box, self._noise.boxes, rng), region.score))
        return self._swapped(picture, found)

    def _swapped(self, picture: Picture, found: list[Region]) -> list[Region]:
        rng = chance(picture.scene, "swap")
        if len(found) < 2 or rng.random() >= self._noise.swapped:
            return found
        i, j = rng.choice(len(found), 2, replace=False)
        boxes = [region.box for region in found]
        boxes[i], boxes[j] = boxes[j], boxes[i]
        return [Region(region.label, box, region.score) for region, box in zip(found, boxes, strict=True)]

    def tag(self, pictures: Sequence[Picture]) -> list[list[str] | Fault]:
        """The names of the visible subjects."""
        return known_answers(
            pictures, lambda i, truth: [region.label for region in regions_of(truth, labels(pictures[i].scene))]
        )

    def verify(
        self, pictures: Sequence[Picture], regions: Sequence[Sequence[Region]]
    ) -> list[list[bool] | Fault]:
        """Whether the subject of that name, or one of that kind, is where the box is."""

        def answers(i: int, truth: Truth) -> list[bool]:
            scene = pictures[i].scene
            return [
                self._is_there(scene, truth, region)
                ^ bool(chance(scene, "verify", region.label).random() < self._noise.verified)
                for region in regions[i]
            ]

        return known_answers(pictures, answers)

    @staticmethod
    def _is_there(scene, truth: Truth, region: Region) -> bool:
        called = zip(labels(scene), truth.kinds, strict=True)
        places = [i for i, names in enumerate(called) if region.label in names]
        return any(overlap(box_of(truth, i), region.box) >= SAME for i in places)

    def segment(
        self, pictures: Sequence[Picture], regions: Sequence[Sequence[Region]]
    ) -> list[list[Mask] | Fault]:
        """The visible part of the subject that each box is around; nothing where there is none."""

        def answers(i: int, truth: Truth) -> list[Mask]:
            return [self._mask(pictures[i], truth, region) for region in regions[i]]

        return known_answers(pictures, answers)

    def _mask(self, picture: Picture, truth: Truth, region: Region) -> Mask:
        subject = subject_at(truth, region)
        if subject is None:
            return np.zeros(picture.pixels.shape[:2], bool)
        rng = chance(picture.scene, "segment", region.label)
        return bled(truth.masks[subject], self._noise.masks * rng.uniform(-1, 1))

    def compare(
        self,
        pictures: Sequence[Picture],
        regions: Sequence[Region],
        texts: Sequence[str],
        masked: Sequence[bool],
    ) -> list[float | Fault]:
        """How much what is shown (the mask, or the whole box) is the subject of that name: twice their common area
        over the sum of their areas, 0..1.
        """

        def answer(i: int, truth: Truth) -> float:
            shown = regions[i].mask if masked[i] else box_pixels(regions[i].box, truth.masks.shape[1:])
            called = zip(labels(pictures[i].scene), truth.kinds, strict=True)
            meant = [mask for names, mask in zip(called, truth.masks, strict=True) if texts[i] in names]
            both = [2 * (mask & shown).sum() / max(mask.sum() + shown.sum(), 1) for mask in meant]
            return float(max(both, default=0.0))

        return known_answers(pictures, answer)


def box_pixels(box: Box, shape: tuple[int, ...]) -> Mask:
    """The pixels of a picture of this height and width whose middles lie in a box."""
    height, width = shape
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None]


def jittered(box: Box, deviation: float, rng: np.random.Generator) -> Box:
    """A box whose edges are off by this share of its sides (a deviation), still within the picture."""
    if deviation == 0:
        return box
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    x0, y0, x1, y1 = np.clip(np.array(box) + deviation * sides * rng.normal(size=4), 0, 1)
    return float(min(x0, x1)), float(min(y0, y1)), float(max(x0, x1)), float(max(y0, y1))


def bled(mask: Mask, share: float) -> Mask:
    """A mask grown (share above 0) or shrunk (below) by a share of its width, the root of its area."""
    steps = round(abs(share) * float(np.sqrt(mask.sum())))
    grown = mask if share > 0 else ~mask
    for _ in range(steps):
        padded = np.pad(grown, 1, mode="edge")
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown if share > 0 else ~grown
