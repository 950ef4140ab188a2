"""The share of a frame that stayed in place, by ORB features: INSET's filter of static pairs (arXiv 2605.12305)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from macro.engines.material.types import EngineImage
from macro.judges.model_loading import EXTRA
from macro.utils.errors import ItemError, UserError
from macro.utils.images import Pixels, resize

# With fewer matches the share says nothing.
_FEWEST = 8


@dataclass(frozen=True)
class OrbStillness:
    """`Provider.static_share` by OpenCV's ORB.

    Attributes:
        features: largest number of features per frame.
        side: both frames are first resized to squares of this side, pixels: ORB's patches are 31 pixels wide.
        alike: two descriptors match if each is the other's nearest and at most this many of their 256 bits differ.
        still: a matched feature stayed in place if it moved by less than this share of the image's side.
    """

    features: int = 1000
    side: int = 480
    alike: int = 64
    still: float = 0.01

    def __post_init__(self):
        if min(self.features, self.side) < 1 or self.alike < 0 or not 0 < self.still <= 1:
            raise UserError("ORB: features and side must be at least 1, alike at least 0, still within 0..1")

    def __call__(self, before: Sequence[EngineImage], after: Sequence[EngineImage]) -> list[float | ItemError]:
        """Share of the matched features of before[i] and after[i] that stayed in place, 0..1.

        An `ItemError` if a frame has too few features to tell (a black one, say). Frames with hardly any
        matches have nothing in common: 0.

        Raises:
            UserError: OpenCV is not installed.
        """
        return [self._share(a.pixels, b.pixels) for a, b in zip(before, after, strict=True)]

    def _share(self, before: Pixels, after: Pixels) -> float | ItemError:
        places, descriptors = zip(*(self._features(pixels) for pixels in (before, after)), strict=True)
        if min(map(len, places)) < _FEWEST:
            return ItemError("a frame has too few features to compare")
        matches = _cv2().BFMatcher(_cv2().NORM_HAMMING, crossCheck=True).match(*descriptors)
        pairs = [(m.queryIdx, m.trainIdx) for m in matches if m.distance <= self.alike]
        if len(pairs) < _FEWEST:
            return 0.0
        ours, theirs = np.array(pairs).T
        moved = np.linalg.norm(places[0][ours] - places[1][theirs], axis=1)
        return float((moved < self.still * self.side).mean())

    def _features(self, pixels: Pixels) -> tuple[Float64[np.ndarray, "n 2"], UInt8[np.ndarray, "n 32"]]:
        """Positions (x, y) in pixels of the resized frame, and descriptors."""
        cv2 = _cv2()
        grey = cv2.cvtColor(resize(pixels, (self.side, self.side)), cv2.COLOR_RGB2GRAY)
        found, descriptors = cv2.ORB_create(nfeatures=self.features).detectAndCompute(grey, None)
        if not found:
            return np.zeros((0, 2)), np.zeros((0, 32), np.uint8)
        return np.array([feature.pt for feature in found], np.float64), descriptors


def _cv2():
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"ORB: the package opencv-python-headless is missing; {EXTRA}") from error
    return cv2
