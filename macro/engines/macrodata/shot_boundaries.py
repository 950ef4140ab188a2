"""Shot boundaries of a video, by its pixels.

Neighbouring frames differ by d = half the distance of their colour histograms (which motion hardly changes) + half the
distance of their thumbnails (which changes when the camera does, even in one place). A cut is where d is large in
absolute terms and relative to its running median: so neither a fast pan nor grain is a cut.
Works on rendered and on real frames alike. Read next: `temporal.py`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from macro.utils.images import resize

Pixels = UInt8[np.ndarray, "h w 3"]

LEAST = 0.03  # least difference at a cut, of 1 ...
TIMES = 2.4  # ... and as a multiple of the running median
AROUND = 4  # frames to each side in the running median
_THUMB, _LEVELS = 24, 6


def differences(frames: Sequence[Pixels]) -> Float[np.ndarray, "n"]:
    """d between each frame and the next, 0..1; one fewer than there are frames."""
    thumbs = [resize(frame, (_THUMB, _THUMB)) for frame in frames]
    colours = [_histogram(thumb) for thumb in thumbs]
    pairs = range(len(thumbs) - 1)
    hues = np.array([np.abs(colours[i] - colours[i + 1]).sum() / 2 for i in pairs])
    places = np.array([np.abs(thumbs[i].astype(np.float64) - thumbs[i + 1]).mean() / 255 for i in pairs])
    return 0.5 * hues + 0.5 * places


def _histogram(thumb: Pixels) -> Float[np.ndarray, "c"]:
    """Shares of `_LEVELS`^3 colours; each channel of a pixel is divided between the two nearest levels."""
    levels = thumb.reshape(-1, 3) / 255 * (_LEVELS - 1)
    low = np.minimum(np.floor(levels).astype(int), _LEVELS - 2)
    part = levels - low
    counts = np.zeros((_LEVELS,) * 3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner) == 1, part, 1 - part).prod(1)
        np.add.at(counts, tuple((low + corner).T), weight)
    return counts.reshape(-1) / len(levels)


def cuts(frames: Sequence[Pixels], least: float = LEAST, times: float = TIMES) -> tuple[int, ...]:
    """Indices of the frames that begin a new shot; the first frame is not counted."""
    if len(frames) < 2:
        return ()
    apart = differences(frames)
    usual = np.array([np.median(apart[max(i - AROUND, 0) : i + AROUND + 1]) for i in range(len(apart))])
    return tuple(int(i) + 1 for i in np.flatnonzero((apart > least) & (apart > times * usual)))


def shots(frames: Sequence[Pixels], least: float = LEAST, times: float = TIMES) -> tuple[tuple[int, int], ...]:
    """(start, stop) of every shot of two frames or more; single frames between two cuts, flashes, are left out."""
    edges = (0, *cuts(frames, least, times), len(frames))
    return tuple((start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True) if stop - start >= 2)


def centres(found: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The middle frame of each shot, its key frame."""
    return tuple((start + stop - 1) // 2 for start, stop in found)
