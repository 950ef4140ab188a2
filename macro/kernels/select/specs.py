"""Sizes at which token selection is run for real: what tests compile and benchmarks measure."""

from typing import NamedTuple


class Selection(NamedTuple):
    """Selection over one prompt.

    Attributes:
        tokens: of a row: pictures, and a tenth of them text.
        pictures: that the row holds.
        heads, kv_heads, head_dim: of attention.
        width: of an embedding.
        layers: whose cache the kept tokens are taken from.
    """

    tokens: int
    pictures: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    layers: int


SPECS = {
    # configs/demo.py's model, of which a CPU is asked
    "demo": Selection(10_000, 10, 4, 2, 48, 192, 6),
    # BAGEL's 7B language model with ten references of 512 x 512 pixels, and of 1024 x 1024 (VAE tokens too)
    "bagel": Selection(10_240, 10, 28, 4, 128, 3584, 28),
    "bagel_large": Selection(40_960, 10, 28, 4, 128, 3584, 28),
}
