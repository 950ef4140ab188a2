"""Random generators by name, so that one random choice never affects another."""

import zlib

import numpy as np


def stream(*key: int | str) -> np.random.Generator:
    """The generator for a key of integers and strings, such as (seed, index, "views"); other keys are independent."""
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])
