"""Selection in training: the layers after the last asked one run on fewer of the pictures' tokens.

Scores are those of drawing (`selection.py`), asked in a pass over packed rows: all text that a sentence has counts,
its plan too; noised targets and their framing tokens do not, for they are not there yet when a drawing chooses. The ViT
copies are taken out of their buffer, which gets shorter; clean VAE copies stay in theirs and are seen no more. So that
buffers have a fixed size each copy keeps its own share of its tokens, where in drawing both share one quota. No
gradient flows through the choice.
Read next: `macro/models/composer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from macro.kernels.select.api import Kept, choose, column_counts, quota_bound, quotas
from macro.models.selection import ASKED, Selection, answered, counted, scores
from macro.nn.asking import Asking
from macro.parallel.rules import split_tokens
from macro.sentence.sight import NOISE

_NOBODY = -2  # the picture of queries that count neither as text nor as a picture


@flax.struct.dataclass
class Thinning:
    """Which tokens of the pictures in packed rows are kept.

    Attributes:
        keys: random keys `[b]`, for the method "random".
        selection: how many and which.
        pictures: the most that a row may have.
    """

    keys: Any
    selection: Selection = flax.struct.field(pytree_node=False)
    pictures: int = flax.struct.field(pytree_node=False)

    def asking(self, picture: Int[Array, "b n"], meta: Mapping, layers: int) -> tuple[Asking | None, int]:
        """What to ask in a pass over all tokens, and the number of the first layer that sees the kept ones only."""
        numbers = self.selection.asked_layers(layers)
        end = max(numbers) + 1
        if self.selection.method not in ASKED:
            return None, end
        rows = tuple(range(picture.shape[0]))
        return Asking(_queries(picture, meta), picture, numbers, rows, 0, self.selection.method == "text"), end

    def kept(
        self, streams: Mapping, meta: Mapping, picture: Int[Array, "b n"], values, asked: Array | None, layers: int
    ) -> tuple[Kept, Bool[Array, "b n_latent"]]:
        """The vision tokens that stay, and which latent tokens are still seen.

        Args:
            streams: as packed. meta, picture: of all tokens together.
            values: `[layers, b, n, kv, hd]` of the layers that were run. asked: what they answered.
            layers: of the model.
        """
        sizes = [streams[name]["sample"].shape[1] for name in ("text", "vision", "latent")]
        counts = column_counts(meta, meta, _queries(picture, meta), picture)
        heard = counts if asked is None else answered(self.selection, [asked], layers)
        _, *heard = split_tokens(jnp.moveaxis(heard, 1, 2), sizes)
        _, *counts = split_tokens(jnp.moveaxis(counts, 1, 2), sizes)
        _, *values = split_tokens(jnp.moveaxis(values, 0, 2), sizes)
        found = []
        for number, name in enumerate(("vision", "latent")):
            own, back = streams[name]["picture"], [jnp.moveaxis(x[number], 2, 1) for x in (heard, counts)]
            every = counted(own, self.pictures)
            share = quotas(every, self.selection.keep, self.selection.budget, self.selection.floor)
            rest = jnp.moveaxis(values[number], 2, 0), own, share, self.keys
            score, share = scores(self.selection, *back, *rest)
            most = own.shape[1] if name == "latent" else self._places(own.shape[1])
            found.append(choose(score, own, share, most))
        vision, latent = jax.lax.stop_gradient(found)
        rows = jnp.arange(latent.indices.shape[0])[:, None]
        chosen = jnp.zeros(streams["latent"]["sample"].shape, bool).at[rows, latent.indices].max(latent.valid)
        return vision, chosen | (streams["latent"]["picture"] < 0)

    def _places(self, tokens: int) -> int:
        """Vision tokens of the shorter buffer: enough for whatever a row holds."""
        return quota_bound(tokens, self.pictures, self.selection.keep, self.selection.budget, self.selection.floor)


def _queries(picture: Array, meta: Mapping) -> Array:
    """Pictures of tokens as queries."""
    return jnp.where(meta["mode"] == NOISE, _NOBODY, picture)
