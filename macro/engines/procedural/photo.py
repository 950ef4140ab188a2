"""Rendered images to start from, as somebody's photographs would be."""

import numpy as np

from macro.engines.material.types import EngineImage
from macro.engines.procedural.generators import drawing
from macro.scenes.language import captions
from macro.scenes.layout import layout_sampler

COUNTS = (3, 4, 5, 6, 7, 8)  # subjects: INSET's samples have three to eight images


def photo(seed: int, index: int, size: int, rays: int) -> EngineImage:
    """Image `index` of `seed`: three to eight subjects, `size` pixels a side."""
    rng = np.random.default_rng([seed, index, 6])
    scene = captions.in_order_of_mention(layout_sampler.sample_scene(rng, int(rng.choice(COUNTS))), rng)
    return drawing([scene], [size], rays)[0]
