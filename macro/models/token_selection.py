"""Selects the tokens of reference images to keep: MACRO's text-aligned token selection and its baselines.

    score[u] = mean over the probed layers of (mean over text tokens t that attend to u of A[t, u]
                                               + cross_image_weight * mean over tokens v of other images of A[v, u])

with A as in `macro/nn/attention_probe.py`; the tokens of each image with the highest scores are kept (arXiv 2603.25319,
which released no code). Text tokens are all tokens of the text stream: the instruction, the plan, and the start and end
tokens of images, so that some query attends to the last image's tokens too. An image's ViT and VAE copies share its
quota. The other methods score

    blocks    runs of 16 tokens of an image by their mean score q . k for the sentence's text
    images    whole images by the same mean; the best are kept whole, the others keep `min_tokens`
    norm      tokens by the norm of their values (norms of keys hardly differ where keys are normalised)
    uniform   nothing: evenly spaced tokens of each image are kept
    random    nothing: random tokens of each image are kept

The paper's baselines select again for each generated token; here every method selects once. [ours]

In sampling (`macro/sampling/drop_tokens.py`) the keys and values of dropped tokens are removed from the cache. In
training (`TrainingSelection`) the layers after the last probed one run on fewer tokens: dropped ViT tokens are removed
from their buffer, which becomes shorter; dropped clean VAE tokens are masked. Buffers have a fixed size, so in training
each copy keeps its own share of its tokens. No gradient flows through the selection.
Read next: `macro/kernels/token_selection/api.py`, `macro/sampling/drop_tokens.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict

from macro.kernels.token_selection.api import (
    MOST_IMAGES,
    TopK,
    query_counts,
    select_top_k,
    token_budget_bound,
    token_budgets,
)
from macro.nn.attention_probe import AttentionProbe
from macro.parallel.sharding import current_mesh_shape, join_streams, split_tokens
from macro.sentence.attention_mask import NOISE
from macro.utils.config import from_config
from macro.utils.errors import UserError

METHODS = ("text", "blocks", "images", "norm", "uniform", "random")
PROBING = ("text", "blocks", "images")  # methods that probe layers
BLOCK = 16  # tokens that "blocks" keeps or drops together
MAX_TRAINING_IMAGES = 32  # per sample, for token selection in training
_IGNORED = -2  # the image of queries that count neither as text nor as an image


@dataclasses.dataclass(frozen=True)
class TokenSelection:
    """How many and which image tokens are kept.

    Attributes:
        keep: the share of each image's tokens that is kept, in (0, 1]; or
        budget: the number of tokens kept over all images of a sentence.
        method: one of METHODS.
        min_tokens: the fewest tokens kept of an image.
        layers: indices of the probed layers; none: the one at a third of the depth.
        cross_image_weight: weight of attention from other images relative to that from text (lambda).
    """

    keep: float | None = None
    budget: int | None = None
    method: str = "text"
    min_tokens: int = 1
    layers: tuple[int, ...] = ()
    cross_image_weight: float = 1.0

    def __post_init__(self):
        where = "token_selection"
        if self.method not in METHODS:
            raise UserError(f"{where}.method={self.method!r}: choose one of {', '.join(METHODS)}")
        if (self.keep is None) == (self.budget is None):
            raise UserError(f"{where}: give either keep or budget (keep={self.keep}, budget={self.budget})")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UserError(f"{where}.keep={self.keep}: must be a share in (0, 1], such as 0.3")
        if not all(isinstance(number, int) for number in self.layers):
            raise UserError(f"{where}.layers={self.layers}: must be numbers of layers, such as (2, 5)")
        if not math.isfinite(self.cross_image_weight):
            raise UserError(f"{where}.cross_image_weight={self.cross_image_weight}: must be a number, such as 1")
        if self.min_tokens < 1:
            raise UserError(f"{where}.min_tokens={self.min_tokens}: must be at least 1, so that no image vanishes")

    def probed_layers(self, layers: int) -> tuple[int, ...]:
        """The indices of the probed layers in a model with `layers` layers."""
        if any(not 0 <= number < layers for number in self.layers):
            raise UserError(f"token_selection.layers={self.layers}: the model's layers are 0 to {layers - 1}")
        return self.layers or (layers // 3,)

    def probe(
        self, layers: int, query_images: Array, key_images: Sequence[Array], keys: Sequence[int], rows: int, step=1
    ) -> AttentionProbe | None:
        """The `AttentionProbe` of one pass through this many layers; None for methods that do not probe."""
        if self.method not in PROBING:
            return None
        probed, softmax = self.probed_layers(layers), self.method == "text"
        return AttentionProbe(query_images, tuple(key_images), probed, rows, step, tuple(keys), softmax)

    def check_budget(self, images: int) -> None:
        """Raises UserError for a budget below `min_tokens` for each of this many images."""
        least = images * self.min_tokens
        if self.budget is not None and self.budget < least:
            raise UserError(
                f"token_selection.budget={self.budget}: {images} images with at least {self.min_tokens} tokens each "
                f"(token_selection.min_tokens) need {least}"
            )

    def quotas(self, counts):
        """The number of tokens to keep of each image, from their counts `[b, images]`."""
        return token_budgets(counts, self.keep, self.budget, self.min_tokens)


def read_selection(values: Mapping | ConfigDict | None, where: str) -> TokenSelection | None:
    """Reads a token selection from a section of a config, named `where` in errors; None if nothing is dropped.

    Keys that are None count as omitted. Raises UserError for an unknown key or an invalid value.
    """
    given = {key: value for key, value in (values or {}).items() if value is not None}
    asks = {"keep", "budget"} & set(given)
    selection = from_config(TokenSelection, given if asks else given | {"keep": 1.0}, where)
    return None if selection.keep == 1 else selection


def scores(
    selection: TokenSelection,
    found: Float[Array, "b 2 n"] | None,
    counts: Float[Array, "b 2 n"],
    values: Float[Array, "layers b n kv hd"],
    image: Int[Array, "b n"],
    quotas: Int[Array, "b p"],
    keys: Array,
) -> tuple[Float[Array, "b n"], Int[Array, "b p"]]:
    """The score of each token, and how many tokens of each image are kept.

    Args:
        found: result of the probe, mean over layers, summed over all passes; None for methods outside PROBING.
        counts: number of queries of each class that attend to a token (`token_selection.api.query_counts`), likewise.
        values: of all layers.
        image: index of each token's image, -1 for others.
        quotas: number of tokens of each image to keep.
        keys: one per row, for "random".
    """
    if selection.method == "text":
        seen = jnp.where(counts > 0, found / jnp.maximum(counts, 1), 0.0)
        return seen[:, 0] + selection.cross_image_weight * seen[:, 1], quotas
    own = image[:, :, None] == jnp.arange(quotas.shape[1])
    if selection.method == "blocks":
        return _mean_of_blocks(found[:, 0], image, own), quotas
    if selection.method == "images":
        return found[:, 0], _best_images(found[:, 0], own, quotas, selection.min_tokens)
    if selection.method == "norm":
        lengths = jnp.linalg.norm(values.astype(jnp.float32), axis=-1)
        return jnp.mean(lengths, axis=(0, 3)), quotas
    if selection.method == "uniform":
        return _evenly(image, own, quotas), quotas
    return _random_scores(keys, image, _place(image, own)), quotas


def _random_scores(keys: Array, image: Array, place: Array) -> Float[Array, "b n"]:
    """Random scores that depend on a token's image and index in it, not on its position in the row."""

    def draw(key, image, place):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, image), place))

    return jax.vmap(jax.vmap(draw, (None, 0, 0)))(keys, jnp.maximum(image, 0), place)


def _place(image: Array, own: Array) -> Int[Array, "b n"]:
    """The index of each token in its image."""
    before = jnp.cumsum(own, axis=1, dtype=jnp.int32) - 1
    return jnp.take_along_axis(before, jnp.maximum(image, 0)[..., None], axis=2)[..., 0]


def _mean_of_blocks(score: Array, image: Array, own: Array) -> Float[Array, "b n"]:
    n = score.shape[1]
    most = n // BLOCK + 1
    block = jnp.where(image < 0, own.shape[2] * most, image * most + _place(image, own) // BLOCK)

    def means(score, block):
        kinds = own.shape[2] * most + 1
        total = jax.ops.segment_sum(score, block, kinds)
        return (total / jnp.maximum(jax.ops.segment_sum(jnp.ones(n), block, kinds), 1))[block]

    return jax.vmap(means)(score, block)


def _best_images(score: Array, own: Array, quotas: Array, min_tokens: int) -> Int[Array, "b p"]:
    """Distributes the sum of the quotas over the images, those of the highest mean score first."""
    counts = jnp.sum(own, axis=1)
    mean = jnp.sum(jnp.where(own, score[..., None], 0), axis=1) / jnp.maximum(counts, 1)
    least = jnp.minimum(min_tokens, counts)
    order = jnp.argsort(jnp.where(counts > 0, -mean, jnp.inf), axis=1)
    room = jnp.take_along_axis(counts - least, order, axis=1)
    spare = jnp.sum(quotas - least, axis=1, keepdims=True)
    given = jnp.clip(spare - (jnp.cumsum(room, axis=1) - room), 0, room)
    return least + jnp.take_along_axis(given, jnp.argsort(order, axis=1), axis=1)


def _evenly(image: Array, own: Array, quotas: Array) -> Float[Array, "b n"]:
    """1 for evenly spaced tokens, as many as the quota of their image; else 0."""
    counts = jnp.sum(own, axis=1)
    place, mine = _place(image, own), jnp.maximum(image, 0)
    count, quota = (jnp.take_along_axis(x, mine, axis=1) for x in (counts, quotas))
    count = jnp.maximum(count, 1)
    return ((place + 1) * quota // count > place * quota // count).astype(jnp.float32)


def layer_mean(selection: TokenSelection, passes: Sequence[Array], layers: int) -> Float[Array, "b 2 n"]:
    """The mean over the probed layers of the results of several passes, `[layers, b, 2, n]` each."""
    return sum(jnp.sum(found, axis=0) for found in passes) / len(selection.probed_layers(layers))


def image_counts(image: Int[Array, "b n"], images: int) -> Int[Array, "b p"]:
    """The number of tokens of each image. Raises UserError for more images than the kernels count."""
    if images > MOST_IMAGES:
        raise UserError(f"token_selection: {images} images, but tokens are selected among at most {MOST_IMAGES}")
    return (image[:, :, None] == jnp.arange(images)).sum(axis=1)


def training_selection(config) -> TokenSelection | None:
    """The selection in `config.token_selection`; None if it is missing or keeps everything.

    Raises:
        UserError: see `read_selection`; also for options that apply to single sentences only.
    """
    selection = read_selection(config.get("token_selection"), "token_selection")
    if selection is not None and selection.budget is not None:
        raise UserError(
            "config.token_selection.budget: is for one sentence, but a packed sequence holds several; give keep instead"
        )
    if selection is not None and selection.method == "images":
        raise UserError("config.token_selection.method='images': compares the images of one sentence; not for training")
    return selection


@flax.struct.dataclass
class TrainingSelection:
    """Token selection in packed sequences.

    Attributes:
        keys: random keys `[b]`, for the method "random".
        selection: how many and which tokens.
        images: the most images of a packed sequence.
    """

    keys: Any
    selection: TokenSelection = flax.struct.field(pytree_node=False)
    images: int = flax.struct.field(pytree_node=False)

    def probe(
        self, streams: Mapping, image: Int[Array, "b n"], meta: Mapping, layers: int
    ) -> tuple[AttentionProbe | None, int]:
        """The probe of a pass over all tokens, and the index of the first layer that runs on the kept ones only.

        Noised targets and their framing tokens are no queries, since they do not exist yet at selection time in
        sampling; nor is supervised text, whose attention would leak to later layers what they are to predict.
        """
        queries = self.queries(streams, image, meta)
        probe = self.selection.probe(layers, queries, [image], [0], rows=image.shape[0])
        return probe, max(self.selection.probed_layers(layers)) + 1

    def queries(self, streams: Mapping, image: Int[Array, "b n"], meta: Mapping) -> Int[Array, "b n"]:
        """The image of each token as a query; supervised text and noised targets are ignored."""
        labels, span = streams["text"]["labels"], streams["text"]["block_id"]
        supervised = labels >= 0
        # The last token of a supervised text predicts nothing, but attends to all of it.
        ends = jnp.roll(supervised, 1, axis=1) & (span == jnp.roll(span, 1, axis=1))
        others = [jnp.zeros(streams[name]["block_id"].shape, bool) for name in ("vision", "latent")]
        supervised = join_streams(supervised | ends, *others)
        return jnp.where((meta["mask_mode"] == NOISE) | supervised, _IGNORED, image)

    def select(
        self, streams: Mapping, meta: Mapping, image: Int[Array, "b n"], values, found, layers: int
    ) -> tuple[TopK, Bool[Array, "b n_latent"]]:
        """The vision tokens to keep, and the mask of latent tokens that stay visible.

        Args:
            streams: as packed. meta, image: of all tokens together.
            values: `[layers, b, n, kv, hd]` of the layers that were run. found: result of the probe.
            layers: number of layers of the model.
        """
        sizes = [streams[name]["segment_ids"].shape[1] for name in ("text", "vision", "latent")]
        counts = query_counts(meta, meta, self.queries(streams, image, meta), image)
        scored = counts if found is None else layer_mean(self.selection, found, layers)
        _, *scored = split_tokens(jnp.moveaxis(scored, 1, 2), sizes)
        _, *counts = split_tokens(jnp.moveaxis(counts, 1, 2), sizes)
        _, *values = split_tokens(jnp.moveaxis(values, 0, 2), sizes)
        found = []
        for number, name in enumerate(("vision", "latent")):
            own, back = streams[name]["image"], [jnp.moveaxis(x[number], 2, 1) for x in (scored, counts)]
            every = image_counts(own, self.images)
            share = self.selection.quotas(every)
            rest = jnp.moveaxis(values[number], 2, 0), own, share, self.keys
            score, share = scores(self.selection, *back, *rest)
            most = own.shape[1] if name == "latent" else self.capacity(own.shape[1], sizes[0])
            found.append(select_top_k(score, own, share, most))
        vision, latent = jax.lax.stop_gradient(found)
        rows = jnp.arange(latent.indices.shape[0])[:, None]
        chosen = jnp.zeros(streams["latent"]["segment_ids"].shape, bool).at[rows, latent.indices].max(latent.valid)
        return vision, chosen | (streams["latent"]["image"] < 0)

    def capacity(self, tokens: int, texts: int) -> int:
        """Size of the shortened vision buffer, for capacities of `tokens` vision and `texts` text tokens."""
        images = min(self.images, texts // 2)  # each has a start and an end token in the text stream
        most = token_budget_bound(tokens, images, self.selection.keep, floor=self.selection.min_tokens)
        ways = current_mesh_shape().get("sequence", 1)
        return min(tokens, -(-most // ways) * ways)
