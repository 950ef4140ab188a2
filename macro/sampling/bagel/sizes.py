"""Which sizes BAGEL's pictures have: those given, as VAE and ViT see them, and the one that is drawn.

Read next: `macro/sampling/bagel/contexts.py`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from macro.inputs.transforms import fit_size, within
from macro.models.variants import ModelConfig
from macro.sampling.bagel.options import BagelOptions
from macro.utils.errors import UserError
from macro.utils.images import Pixels, resize, to_float

# BAGEL's longest and shortest sides; a smaller model takes what its position tables reach.
_RELEASED = {"vae_transform": (1024, 512), "vit_transform": (980, 224)}

# [h, w, 3] in -1..1, any two sizes: what the VAE sees, and what the ViT sees.
Picture = tuple[Float32[np.ndarray, "_ _ 3"], Float32[np.ndarray, "_ _ 3"]]


def reach(config: ModelConfig) -> tuple[int, int]:
    """The longest sides, in pixels, that the latents' and the patches' position tables have room for."""
    return config.latent_side * config.pixels_per_token, config.vision.side * config.vision.patch


def prepared(pixels: Pixels, options: BagelOptions, config: ModelConfig, most: int | None = None) -> Picture:
    """A given picture in -1..1 as the VAE sees it, and as the ViT does; of about `most` pixels at most, if given."""
    pictures = []
    for longest, shortest, stride in _rules(options, config):
        size = pixels.shape[:2] if most is None else within(*pixels.shape[:2], most)
        size = fit_size(*size, max_side=longest, min_side=shortest if most is None else 0, stride=stride)
        pixels = resize(pixels, size)
        pictures.append(to_float(pixels))
    return tuple(pictures)


def _rules(options: BagelOptions, config: ModelConfig) -> list[tuple[int, int, int]]:
    """(longest side, shortest side, stride) for VAE and ViT."""
    rules, strides = [], (config.pixels_per_token, config.vision.patch)
    for (name, sides), most, stride in zip(_RELEASED.items(), reach(config), strides, strict=True):
        asked = getattr(options, name)
        if asked is not None and (asked[0] > most or asked[0] % stride or asked[2] % stride):
            raise UserError(
                f"sampling.{name}={asked!r}: this model takes sides in steps of {stride} pixels, up to {most}"
            )
        rules.append(asked or (min(sides[0], most), min(sides[1], most // 2), stride))
    return rules


def target_size(
    options: BagelOptions,
    config: ModelConfig,
    given: Sequence[tuple[int, int]],
    asked: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """(height, width) of the picture to draw.

    Args:
        given: sizes of the given pictures, as the VAE sees them.
        asked: a size that stands over the options.

    Raises:
        UserError: no whole number of latent tokens, or more than the model has room for.
    """
    stride, most = config.pixels_per_token, reach(config)[0]
    size = asked or options.image_shapes
    if size is None and options.ratio is not None:
        shape = (1 / options.ratio, 1) if options.ratio >= 1 else (1, options.ratio)
        size = tuple(max(stride, round(most * share / stride) * stride) for share in shape)
    if given and (size is None or options.parity):
        size = given[-1]
    size = tuple(size or (most, most))
    if any(side % stride or not 0 < side <= most for side in size):
        raise UserError(f"size {size[0]}x{size[1]}: both sides must be multiples of {stride}, up to {most}")
    return size
