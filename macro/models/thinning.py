"""Selection in training: the layers after the last asked one run on fewer of the pictures' tokens.

Scores are those of drawing (`selection.py`), asked in a pass over packed rows, but for what must not be asked: noised
targets and their framing tokens, which are not there yet when a drawing chooses, and words that are learnt, a plan
among them, for what they look at would tell the layers above what they are to predict. The ViT copies are taken out
of their buffer, which gets shorter; clean VAE copies stay in theirs and are seen no more. So that buffers have a fixed
size each copy keeps its own share of its tokens, where in drawing both share one quota. No gradient flows through the
choice.
Read next: `macro/models/composer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from macro.kernels.token_selection.api import TopK, query_counts, select_top_k, token_budget_bound, token_budgets
from macro.models.selection import Selection, answered, counted, read_selection, scores
from macro.nn.asking import Asking
from macro.parallel.sharding import current_mesh_shape, join_tokens, split_tokens
from macro.sentence.sight import NOISE
from macro.utils.errors import UserError

MOST_PICTURES = 32  # of one sample, where tokens are left out
_NOBODY = -2  # the picture of queries that count neither as text nor as a picture


def training_selection(config) -> Selection | None:
    """What `config.select` asks for (missing: nothing).

    Raises:
        UserError: besides those of `read_selection`, what only makes sense for one drawing.
    """
    selection = read_selection(config.get("select"), "select")
    if selection is not None and selection.budget is not None:
        raise UserError("config.select.budget: is one sentence's, but rows of a batch hold several; give keep instead")
    if selection is not None and selection.method == "images":
        raise UserError("config.select.method='images': chooses among one drawing's pictures; not for training")
    return selection


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

    def asking(
        self, streams: Mapping, picture: Int[Array, "b n"], meta: Mapping, layers: int
    ) -> tuple[Asking | None, int]:
        """What to ask in a pass over all tokens, and the number of the first layer that sees the kept ones only."""
        queries = self.queries(streams, picture, meta)
        asking = self.selection.asking(layers, queries, [picture], [0], rows=picture.shape[0])
        return asking, max(self.selection.asked_layers(layers)) + 1

    def queries(self, streams: Mapping, picture: Int[Array, "b n"], meta: Mapping) -> Int[Array, "b n"]:
        """Pictures of tokens as queries: words that are learnt, and noised targets, do not count."""
        labels, span = streams["text"]["labels"], streams["text"]["span"]
        learnt = labels >= 0
        # The end of a learnt text predicts nothing, but has read all of it.
        ends = jnp.roll(learnt, 1, axis=1) & (span == jnp.roll(span, 1, axis=1))
        others = [jnp.zeros(streams[name]["span"].shape, bool) for name in ("vision", "latent")]
        learnt = join_tokens([join_tokens([learnt | ends, others[0]]), others[1]])
        return jnp.where((meta["mode"] == NOISE) | learnt, _NOBODY, picture)

    def kept(
        self, streams: Mapping, meta: Mapping, picture: Int[Array, "b n"], values, asked, layers: int
    ) -> tuple[TopK, Bool[Array, "b n_latent"]]:
        """The vision tokens that stay, and which latent tokens are still seen.

        Args:
            streams: as packed. meta, picture: of all tokens together.
            values: `[layers, b, n, kv, hd]` of the layers that were run. asked: what they answered.
            layers: of the model.
        """
        sizes = [streams[name]["sample"].shape[1] for name in ("text", "vision", "latent")]
        counts = query_counts(meta, meta, self.queries(streams, picture, meta), picture)
        heard = counts if asked is None else answered(self.selection, asked, layers)
        _, *heard = split_tokens(jnp.moveaxis(heard, 1, 2), sizes)
        _, *counts = split_tokens(jnp.moveaxis(counts, 1, 2), sizes)
        _, *values = split_tokens(jnp.moveaxis(values, 0, 2), sizes)
        found = []
        for number, name in enumerate(("vision", "latent")):
            own, back = streams[name]["picture"], [jnp.moveaxis(x[number], 2, 1) for x in (heard, counts)]
            every = counted(own, self.pictures)
            share = token_budgets(every, self.selection.keep, floor=self.selection.floor)
            rest = jnp.moveaxis(values[number], 2, 0), own, share, self.keys
            score, share = scores(self.selection, *back, *rest)
            most = own.shape[1] if name == "latent" else self.places(own.shape[1], sizes[0])
            found.append(select_top_k(score, own, share, most))
        vision, latent = jax.lax.stop_gradient(found)
        rows = jnp.arange(latent.indices.shape[0])[:, None]
        chosen = jnp.zeros(streams["latent"]["sample"].shape, bool).at[rows, latent.indices].max(latent.valid)
        return vision, chosen | (streams["latent"]["picture"] < 0)

    def places(self, tokens: int, texts: int) -> int:
        """Vision tokens of the shorter buffer: enough for whatever a row of so many vision and text tokens holds."""
        pictures = min(self.pictures, texts // 2)  # each has its start and its end among the text tokens
        most = token_budget_bound(tokens, pictures, self.selection.keep, floor=self.selection.floor)
        ways = current_mesh_shape().get("sequence", 1)
        return min(tokens, -(-most // ways) * ways)
