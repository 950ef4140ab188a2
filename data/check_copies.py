"""Images that a data set holds twice, and samples or images that two splits share.

A target's print is a perceptual hash (64 bits of the discrete cosine transform of its lightness, as `imagehash` makes
them) and a thumbnail. Two images are near-duplicates if both are close: the hash finds candidates among many, the
thumbnail tells two scenes on one ground apart. References are compared by content, exactly. Read next: `check.py`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image as PILImage

from macro.sentence.prompt import prompt_of
from macro.sentence.spans import Sentence

BITS_APART = 12  # of 64: candidates for near-duplicates
MEAN_APART, MOST_APART = 7.0, 24.0  # of 255, over a thumbnail's values: on average, and anywhere
_SIDE, _THUMB, _KEPT = 32, 16, 8
_BLANK = 6.0  # an image whose values deviate less says nothing: a bare sky may well occur twice
_ANGLES = np.pi / _SIDE * (np.arange(_SIDE) + 0.5) * np.arange(_KEPT)[:, None]
_COSINES = np.cos(_ANGLES)


@dataclass(frozen=True)
class Prints:
    """What is remembered of a sample: hashes of all of it and of each image, and its target's print."""

    sample: bytes
    images: frozenset[bytes]
    target: bytes | None
    bits: int
    thumb: UInt8[np.ndarray, "16 16 3"] | None


def prints_of(sentence: Sentence) -> Prints:
    """The prints of a sample with its images loaded."""
    given = [image.pixels for image in sentence.images if image.pixels is not None]
    target = None if sentence.target is None else sentence.target.pixels
    hashes = [_hash(pixels) for pixels in given]
    own = None if target is None else _hash(target)
    whole = hashlib.sha256(prompt_of(sentence).encode())
    for one in [*hashes, own or b""]:
        whole.update(one)
    told = zip([*given, target], [*hashes, own], strict=True)
    content = frozenset(one for pixels, one in told if pixels is not None and pixels.std((0, 1)).max() > _BLANK)
    if target is None:
        return Prints(whole.digest(), content, None, 0, None)
    return Prints(whole.digest(), content, own, _bits(target), _shrunk(target, _THUMB))


def _hash(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).digest()


def _shrunk(pixels: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "s s 3"]:
    return np.array(PILImage.fromarray(pixels).resize((side, side), PILImage.Resampling.BOX))


def _bits(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    grey = _shrunk(pixels, _SIDE) @ np.array([0.299, 0.587, 0.114])
    low = (_COSINES @ grey @ _COSINES.T).ravel()
    return int.from_bytes(np.packbits(low > np.median(low[1:])).tobytes(), "big")


def copies(prints: Sequence[Prints]) -> Iterator[tuple[int, int]]:
    """Pairs (later, earlier) of samples whose targets are near-duplicates; each later one once."""
    yield from _close(prints, prints, earlier=True)


def shared(ours: Sequence[Prints], theirs: Sequence[Prints]) -> Iterator[tuple[int, int | None, str]]:
    """What two splits share: (index in ours, index in theirs, what), each of ours at most once."""
    samples = {one.sample: n for n, one in enumerate(theirs)}
    images = {image: n for n, one in enumerate(theirs) for image in one.images}
    near = dict(_close(ours, theirs, earlier=False))
    for n, one in enumerate(ours):
        common = next(iter(one.images & images.keys()), None)
        if one.sample in samples:
            yield n, samples[one.sample], "the same sample"
        elif common is not None:
            yield n, images[common], "the same image"
        elif n in near:
            yield n, near[n], "a near-duplicate of its target"


def _close(ours: Sequence[Prints], theirs: Sequence[Prints], earlier: bool) -> Iterator[tuple[int, int]]:
    """(n of ours, first n of theirs) with targets that are near-duplicates; `earlier`: only a smaller n of theirs."""
    bits = np.array([one.bits for one in theirs], np.uint64)
    for n, one in enumerate(ours):
        if one.target is None:
            continue
        among = bits[:n] if earlier else bits
        candidates = np.flatnonzero(np.bitwise_count(among ^ np.uint64(one.bits)) <= BITS_APART)
        for m in candidates.tolist():
            if theirs[m].target is not None and _alike(one, theirs[m]):
                yield n, m
                break


def _alike(a: Prints, b: Prints) -> bool:
    if a.target == b.target:
        return True
    apart = np.abs(a.thumb.astype(np.float32) - b.thumb).mean(2)
    return bool(apart.mean() <= MEAN_APART and apart.max() <= MOST_APART)
