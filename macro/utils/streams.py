"""Random generators by name, so that one random choice never affects another; and seeds by split."""

import functools
import zlib
from collections.abc import Callable

import numpy as np

from macro.utils.errors import UserError

# Seeds from here on are kept for evaluations: no data set can have them.
FIRST_EVALUATION_SEED = 1_000_000_000
_BLOCK = 256


def stream(*key: int | str) -> np.random.Generator:
    """The generator for a key of integers and strings, such as (seed, index, "views"); other keys are independent."""
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])


@functools.lru_cache(maxsize=1 << 14)
def _chosen(which: Callable[..., bool], key: tuple, block: int) -> tuple[int, np.ndarray]:
    """How many numbers before a block are chosen, and which of its own."""
    before = 0 if block == 0 else _total(*_chosen(which, key, block - 1))
    return before, np.array([which(*key, i) for i in range(block * _BLOCK, (block + 1) * _BLOCK)], bool)


def _total(before: int, own: np.ndarray) -> int:
    return before + int(own.sum())


def rank(which: Callable[..., bool], key: tuple, index: int) -> int:
    """How many numbers below `index` `which(*key, number)` chooses; both are hashable, and blocks are remembered.

    With it, samples of one kind among others count their own: 0, 1, 2, ...
    """
    for block in range(index // _BLOCK):  # in order, or the recursion would be deep
        _chosen(which, key, block)
    before, own = _chosen(which, key, index // _BLOCK)
    return before + int(own[: index % _BLOCK].sum())


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
