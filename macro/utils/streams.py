"""Random generators by name, so that one random choice never affects another; and seeds by split."""

import functools
import zlib

import numpy as np

from macro.utils.errors import UserError

# Seeds from here on are kept for evaluations: no data set can have them.
FIRST_EVALUATION_SEED = 1_000_000_000
_BLOCK = 256  # numbers whose branches are remembered together


def stream(*key: int | str) -> np.random.Generator:
    """The generator for a key of integers and strings, such as (seed, index, "views"); other keys are independent."""
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])


def branch(seed: int, index: int, purpose: str, share: float) -> tuple[bool, int]:
    """Whether number `index` is among those that a random `share` of all numbers chooses, and its rank on its side.

    The rank is how many smaller numbers are chosen, or are not: with it, the samples of one kind among others count
    their own, 0, 1, 2, ...
    """
    number, at = divmod(index, _BLOCK)
    for earlier in range(number):  # in order, or the recursion of `_block` would be deep
        _block(seed, purpose, share, earlier)
    before, own = _block(seed, purpose, share, number)
    chosen = before + int(own[:at].sum())
    return bool(own[at]), chosen if own[at] else index - chosen


@functools.lru_cache(maxsize=1 << 14)
def _block(seed: int, purpose: str, share: float, number: int) -> tuple[int, np.ndarray]:
    """How many numbers before a block are chosen, and which of its own."""
    before = 0
    if number:
        first, earlier = _block(seed, purpose, share, number - 1)
        before = first + int(earlier.sum())
    inside = range(number * _BLOCK, (number + 1) * _BLOCK)
    return before, np.array([stream(seed, i, purpose).random() < share for i in inside])


def split_seed(seed: int, split: str) -> int:
    """The seed of a split of a data set: no two splits, of whatever seeds, share a sample.

    The split "train" has the seed itself; all others have numbers of 2**32 or more, which nobody can ask for.

    Raises:
        UserError: the seed is negative, or among those of evaluations.
    """
    if not 0 <= seed < FIRST_EVALUATION_SEED:
        raise UserError(
            f"--seed={seed}: must be from 0 to {FIRST_EVALUATION_SEED - 1:,}; seeds beyond are kept for evaluations"
        )
    return seed if split == "train" else seed + (zlib.crc32(split.encode()) + 1 << 32)
