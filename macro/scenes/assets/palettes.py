"""Named colours and the palettes of subjects.

Every colour of a palette is an entry of `COLOURS`. Which of them a picture shows depends on the kind, its texture and
the view: texts take their colours from `Truth.colours`.
The fifteen names were chosen to stay distinct under warm and cool light; `colour_distance` measures how distinct.
"""

import functools

import numpy as np
from jaxtyping import Int, UInt8

from macro.scenes.graph import RGB

COLOURS: dict[str, RGB] = {
    "red": (0.85, 0.13, 0.14),
    "orange": (0.98, 0.52, 0.10),
    "yellow": (0.99, 0.83, 0.16),
    "lime": (0.62, 0.83, 0.20),
    "green": (0.12, 0.55, 0.24),
    "teal": (0.00, 0.58, 0.58),
    "cyan": (0.45, 0.83, 0.95),
    "blue": (0.15, 0.36, 0.85),
    "navy": (0.11, 0.15, 0.42),
    "purple": (0.49, 0.22, 0.72),
    "pink": (0.98, 0.55, 0.72),
    "brown": (0.47, 0.28, 0.16),
    "white": (0.96, 0.96, 0.94),
    "grey": (0.55, 0.56, 0.59),
    "black": (0.13, 0.13, 0.15),
}
CONFUSABLE = 0.25  # colours farther apart than this in Oklab are not confused


def colour_name(rgb: RGB) -> str:
    """The name of the entry of `COLOURS` closest to `rgb` (sRGB in 0..1)."""
    return min(COLOURS, key=lambda name: colour_distance(COLOURS[name], rgb))


def nearest_colours(pixels: UInt8[np.ndarray, "n 3"]) -> tuple[tuple[str, ...], Int[np.ndarray, "n"]]:
    """The names of `COLOURS`, and for each sRGB pixel the index of the closest one."""
    own, named = to_oklab(pixels / 255.0), to_oklab(list(COLOURS.values()))
    return tuple(COLOURS), np.linalg.norm(own[:, None] - named[None], axis=-1).argmin(1)


def to_linear(srgb) -> np.ndarray:
    """sRGB in 0..1 to linear light, by the gamma of 2.2 that `raycast.py` undoes."""
    return np.asarray(srgb, np.float32) ** 2.2


def to_oklab(rgb) -> np.ndarray:
    """sRGB colours `[..., 3]` in 0..1 to Oklab (Ottosson 2020), where Euclidean distance follows the eye."""
    to_cones = np.array([
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ])  # fmt: skip
    to_lab = np.array([
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ])  # fmt: skip
    linear = np.clip(np.asarray(rgb, np.float64), 0, 1) ** 2.2
    return np.cbrt(linear @ to_cones.T) @ to_lab.T


@functools.lru_cache(maxsize=4096)
def colour_distance(a: RGB, b: RGB) -> float:
    """Perceptual (Oklab) distance of two sRGB colours: about 0.02 is just noticeable, 0.1 is another colour."""
    return float(np.linalg.norm(to_oklab(a) - to_oklab(b)))
