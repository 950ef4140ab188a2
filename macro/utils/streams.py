"""Random numbers by name, so that one choice never moves another."""

import zlib

import numpy as np


def stream(*key: int | str) -> np.random.Generator:
    """The generator of a key of whole numbers and texts, such as (seed, index, "views"); another key, other numbers."""
    return np.random.default_rng([zlib.crc32(part.encode()) if isinstance(part, str) else part for part in key])
