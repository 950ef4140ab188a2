"""The sizes that attention runs at, by name, with the token metadata of their packed sequences.

The ahead-of-time tests and `experiments/bench_attention.py` take their shapes from here. Sizes follow from
`models/variants.py` and the configs: an image of 1024 x 1024 pixels has 4,096 latent tokens, one of 512 x 512 has
1,024 and, read by the ViT, 36 x 36 patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from macro.sentence.attention_mask import CAUSAL, FULL, MASK_FIELDS, NOISE


class Shape(NamedTuple):
    """q is `[b, nq, heads, head_dim]`, k and v are `[b, nk, kv_heads, head_dim]`."""

    b: int
    nq: int
    nk: int
    heads: int
    kv_heads: int
    head_dim: int
    dtype: str

    def of(self, n: int) -> Shape:
        """A copy with n queries and keys."""
        return self._replace(nq=n, nk=n)


_7B = (28, 4, 128, "bfloat16")
SHAPES = {
    "train": Shape(1, 32_768, 32_768, *_7B),  # a packed sequence of configs/bagel_7b.py
    "prefill": Shape(1, 23_852, 23_852, *_7B),  # a sentence with ten references, read once
    "denoise": Shape(3, 4098, 40_960, *_7B),  # one step's latents in three contexts against their caches
    "plan": Shape(12, 64, 40_960, *_7B),  # a few new tokens against a cache
    "vision": Shape(1, 16_384, 16_384, 16, 16, 72, "bfloat16"),  # SigLIP, the images of a packed sequence
    "demo": Shape(4, 1168, 1168, 4, 2, 48, "float32"),  # configs/demo.py
}

_TEXT, _VISION, _LATENT = range(3)  # the streams, in the order in which their buffers are concatenated
_WORDS = (_TEXT, 200, CAUSAL)
_TARGET = (_LATENT, 4096, NOISE)
_REFERENCE = ((_LATENT, 1024, FULL), (_VISION, 36 * 36, FULL))  # 512 x 512, by VAE and ViT
_SOURCE = ((_LATENT, 4096, FULL), (_VISION, 37 * 37, FULL))  # 1024 x 1024 by the VAE, 518 x 518 by the ViT
# Spans (stream, tokens, mode) of the sentences of a packed sequence.
_EDIT = (*_SOURCE, _WORDS, _TARGET)
_DRAW = (_WORDS, _TARGET)
_ROWS = {
    "train": (_EDIT, _DRAW, _EDIT, _DRAW),
    "prefill": ((_WORDS, *_REFERENCE * 10, (_TEXT, 412, CAUSAL)),),
    "vision": (((_VISION, 37 * 37, FULL),),) * 11,
}


def row(name: str) -> dict[str, np.ndarray]:
    """Metadata `[1, n]` of a packed sequence for "train", "prefill" or "vision": buffer by buffer, padding last."""
    tokens = []
    for sample, spans in enumerate(_ROWS[name]):
        order = 0
        for span, (stream, count, mode) in enumerate(spans):
            streams = _framed(stream, count) if mode != CAUSAL else np.full(count, stream)
            same = np.ones_like(streams)
            orders = order + np.arange(len(streams))
            tokens.append(np.stack([streams, sample * same, orders, span * same, mode * same]))
            order += len(streams)
    streams, *fields = np.concatenate(tokens, axis=1)
    lying = np.argsort(streams, kind="stable")
    padding = (0, SHAPES[name].nq - len(lying))
    return {
        field: np.pad(x[lying], padding, constant_values=-1).astype(np.int32)[None]
        for field, x in zip(MASK_FIELDS, fields, strict=True)
    }


def _framed(stream: int, count: int) -> np.ndarray:
    """The streams of an image's tokens: its first and last token are in the text stream."""
    return np.array([_TEXT, *[stream] * count, _TEXT])


def arrays(shape: Shape) -> Sequence[tuple[tuple[int, ...], str]]:
    """(shape, dtype) of q, k and v."""
    b, nq, nk, heads, kv_heads, head_dim, dtype = shape
    return [((b, n, h, head_dim), dtype) for n, h in ((nq, heads), (nk, kv_heads), (nk, kv_heads))]
