"""Vision stages on images whose scene is known: detection, verification, masks, region-text similarity.

Exact unless `noise.py` says otherwise.
"""

from collections.abc import Callable, Sequence

import numpy as np

from macro.engines.ground_truth import box_of, ground_truths, labels, overlap, subject_at
from macro.engines.material.types import EngineImage
from macro.engines.procedural.noise import Noise, chance
from macro.engines.provider import Answers, Box, Images, Mask, Region, Regions
from macro.sentence.spans import Truth
from macro.utils.errors import ItemError

UNKNOWN = ItemError("the image's scene is not known: only rendered images can be looked at, or judged, exactly")
SAME = 0.5  # intersection over union above which boxes are of the same object


def regions_of(truth: Truth, names: Sequence[str]) -> list[Region]:
    """One exact region for each visible subject, called by `names`."""
    return [
        Region(name, box_of(truth, i), float(truth.visibility[i]))
        for i, name in enumerate(names)
        if truth.masks[i].any()
    ]


def answer_known(images: Images, answer: Callable[[int, Truth], object]) -> list:
    """`answer(index, truth)` for every image with a scene, and an `ItemError` for the others."""
    known = [i for i, image in enumerate(images) if image.scene is not None]
    out: list = [UNKNOWN] * len(images)
    for i, truth in zip(known, ground_truths([images[i] for i in known]), strict=True):
        out[i] = answer(i, truth)
    return out


class Looking:
    """The stages `detect`, `tag`, `verify`, `segment`, `text_similarity`."""

    def __init__(self, noise: Noise):
        self._noise = noise

    def detect(self, images: Images, labels: Sequence[Sequence[str]]) -> Answers[list[Region]]:
        """Regions in the order of the labels; a label is a subject's name (`ground_truth.labels`) or its kind."""
        return answer_known(images, lambda i, truth: self._detected(images[i], truth, labels[i]))

    def _detected(self, image: EngineImage, truth: Truth, asked: Sequence[str]) -> list[Region]:
        found: list[Region] = []
        free = {region.label: region for region in regions_of(truth, labels(truth))}
        kinds = dict(zip(labels(truth), truth.kinds, strict=True))
        for label in asked:
            # At another size a twin may be "red" where it was "red and blue": its kind decides then.
            name = label if label in free else next((name for name in free if kinds[name] in label.split()), None)
            rng = chance(image.scene, "detect", label)
            if name is None or rng.random() < self._noise.missed:
                continue
            region = free.pop(name)
            found.append(Region(label, jittered(region.box, self._noise.boxes, rng), region.score))
        return self._swapped(image, found)

    def _swapped(self, image: EngineImage, found: list[Region]) -> list[Region]:
        rng = chance(image.scene, "swap")
        if len(found) < 2 or rng.random() >= self._noise.swapped:
            return found
        i, j = rng.choice(len(found), 2, replace=False)
        boxes = [region.box for region in found]
        boxes[i], boxes[j] = boxes[j], boxes[i]
        return [Region(region.label, box, region.score) for region, box in zip(found, boxes, strict=True)]

    def tag(self, images: Images) -> Answers[list[str]]:
        """Names of the visible subjects."""
        return answer_known(images, lambda i, truth: [region.label for region in regions_of(truth, labels(truth))])

    def verify(self, images: Images, regions: Sequence[Regions]) -> Answers[list[bool]]:
        """Whether the subject of that name, or one of that kind, is in the box."""

        def answers(i: int, truth: Truth) -> list[bool]:
            scene = images[i].scene
            return [
                self._is_there(truth, region)
                ^ bool(chance(scene, "verify", region.label).random() < self._noise.verified)
                for region in regions[i]
            ]

        return answer_known(images, answers)

    @staticmethod
    def _is_there(truth: Truth, region: Region) -> bool:
        called = zip(labels(truth), truth.kinds, strict=True)
        places = [i for i, names in enumerate(called) if region.label in names]
        return any(overlap(box_of(truth, i), region.box) >= SAME for i in places)

    def segment(self, images: Images, regions: Sequence[Regions]) -> Answers[list[Mask]]:
        """The visible mask of the subject in each box; empty if there is none."""

        def answers(i: int, truth: Truth) -> list[Mask]:
            return [self._mask(images[i], truth, region) for region in regions[i]]

        return answer_known(images, answers)

    def _mask(self, image: EngineImage, truth: Truth, region: Region) -> Mask:
        subject = subject_at(truth, region)
        if subject is None:
            return np.zeros(image.pixels.shape[:2], bool)
        rng = chance(image.scene, "segment", region.label)
        return bled(truth.masks[subject], self._noise.masks * rng.uniform(-1, 1))

    def text_similarity(
        self, images: Images, regions: Regions, texts: Sequence[str], masked: Sequence[bool]
    ) -> Answers[float]:
        """Dice coefficient of the region (the mask, or the whole box) and the named subject: twice their common area
        over the sum of their areas, 0..1.
        """

        def answer(i: int, truth: Truth) -> float:
            shown = regions[i].mask if masked[i] else box_pixels(regions[i].box, truth.masks.shape[1:])
            called = zip(labels(truth), truth.kinds, strict=True)
            meant = [mask for names, mask in zip(called, truth.masks, strict=True) if texts[i] in names]
            both = [2 * (mask & shown).sum() / max(mask.sum() + shown.sum(), 1) for mask in meant]
            return float(max(both, default=0.0))

        return answer_known(images, answer)


def box_pixels(box: Box, shape: tuple[int, ...]) -> Mask:
    """The pixels of an image of this height and width whose middles lie in a box."""
    height, width = shape
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    return ((y >= box[1]) & (y < box[3]))[:, None] & ((x >= box[0]) & (x < box[2]))[None]


def jittered(box: Box, deviation: float, rng: np.random.Generator) -> Box:
    """A box with edges off by normal noise of this share of its sides, still within the image."""
    if deviation == 0:
        return box
    sides = np.array([box[2] - box[0], box[3] - box[1]] * 2)
    x0, y0, x1, y1 = np.clip(np.array(box) + deviation * sides * rng.normal(size=4), 0, 1)
    return float(min(x0, x1)), float(min(y0, y1)), float(max(x0, x1)), float(max(y0, y1))


def bled(mask: Mask, share: float) -> Mask:
    """A mask grown (share above 0) or shrunk (below) by a share of its width, the square root of its area."""
    steps = round(abs(share) * float(np.sqrt(mask.sum())))
    grown = mask if share > 0 else ~mask
    for _ in range(steps):
        padded = np.pad(grown, 1, mode="edge")
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown if share > 0 else ~grown
