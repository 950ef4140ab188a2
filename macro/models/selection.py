"""Which tokens of the pictures a drawing keeps: MACRO's text-aligned selection and its rivals.

    score[u] = mean over the asked layers of (mean over text tokens t that see u of A[t, u]
                                              + weight * mean over other pictures' tokens v that see u of A[v, u])

with A as in `macro/nn/asking.py`; inside every picture the tokens with the highest score stay (arXiv 2603.25319; no
code of it was released). Text tokens are all that stand in the text stream: the instruction, the plan, and the start
and end tokens of pictures, so that also the last picture's tokens are seen by somebody. A picture's ViT and VAE copy
share its quota. The rivals score

    blocks    runs of 16 tokens of a picture by their mean score q . k for the sentence's text
    images    whole pictures by the same mean; the best ones are kept whole, the others down to `floor`
    norm      by the length of the values (lengths of keys hardly differ where keys are normed)
    uniform   nothing: evenly spaced tokens of each picture
    random    nothing: any tokens of each picture

Both of the paper's rivals choose anew for each generated token; here they choose once, as all others do. [ours]
Read next: `macro/kernels/token_selection/api.py`, `macro/sampling/select.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from macro.kernels.token_selection.api import MOST_IMAGES
from macro.nn.asking import Asking
from macro.utils.config import from_config
from macro.utils.errors import UserError

METHODS = ("text", "blocks", "images", "norm", "uniform", "random")
ASKED = ("text", "blocks", "images")  # of these the layers are asked
BLOCK = 16  # tokens that "blocks" keeps or drops together


@dataclasses.dataclass(frozen=True)
class Selection:
    """How many tokens of the pictures are kept, and which.

    Attributes:
        keep: the share of each picture's tokens, in (0, 1]; or
        budget: the tokens of all pictures of a sentence together.
        method: one of METHODS.
        floor: the fewest tokens of a picture.
        layers: those that are asked; none named: the one a third of the way up.
        weight: of what other pictures look at against what text looks at (lambda).
    """

    keep: float | None = None
    budget: int | None = None
    method: str = "text"
    floor: int = 1
    layers: tuple[int, ...] = ()
    weight: float = 1.0

    def __post_init__(self):
        if self.method not in METHODS:
            raise UserError(f"select.method={self.method!r}: choose one of {', '.join(METHODS)}")
        if (self.keep is None) == (self.budget is None):
            raise UserError(f"select: give keep or budget, one of them (keep={self.keep}, budget={self.budget})")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise UserError(f"select.keep={self.keep}: a share in (0, 1], such as .3")
        if not all(isinstance(number, int) for number in self.layers):
            raise UserError(f"select.layers={self.layers}: numbers of layers, such as (2, 5)")
        if not math.isfinite(self.weight):
            raise UserError(f"select.weight={self.weight}: a number, such as 1")
        if self.floor < 1:
            raise UserError(f"select.floor={self.floor}: at least 1, so that no picture vanishes")

    def asked_layers(self, layers: int) -> tuple[int, ...]:
        """The numbers of the asked ones of so many layers."""
        if any(not 0 <= number < layers for number in self.layers):
            raise UserError(f"select.layers={self.layers}: the model's layers are 0 to {layers - 1}")
        return self.layers or (layers // 3,)

    def asking(
        self, layers: int, q_picture: Array, k_pictures: Sequence[Array], keys: Sequence[int], rows: int, step: int = 1
    ) -> Asking | None:
        """What to ask so many layers in one pass, see `Asking`; None where the method asks nothing."""
        if self.method not in ASKED:
            return None
        chosen, softmax = self.asked_layers(layers), self.method == "text"
        return Asking(q_picture, tuple(k_pictures), chosen, rows, step, tuple(keys), softmax)


def read_selection(values: Mapping | ConfigDict | None, where: str) -> Selection | None:
    """The selection that a section of a config, named `where` in errors, asks for; None where nothing is left out.

    Keys that are None count as left out. Raises UserError for a key or a value that makes no sense.
    """
    given = {key: value for key, value in (values or {}).items() if value is not None}
    asks = {"keep", "budget"} & set(given)
    selection = from_config(Selection, given if asks else given | {"keep": 1.0}, where)
    return None if selection.keep == 1 else selection


def scores(
    selection: Selection,
    asked: Float[Array, "b 2 n"] | None,
    counts: Float[Array, "b 2 n"],
    values: Float[Array, "layers b n kv hd"],
    picture: Int[Array, "b n"],
    quotas: Int[Array, "b p"],
    keys: Array,
) -> tuple[Float[Array, "b n"], Int[Array, "b p"]]:
    """Each token's score, and how many of each picture stay.

    Args:
        asked: what the layers answered, summed over them and over all passes; None for methods outside ASKED.
        counts: how many queries of each class see a token (`token_selection.api.query_counts`), over all passes.
        values: of all layers.
        picture: number of each token's picture, -1 for others.
        quotas: tokens of each picture that may stay.
        keys: one for each row, for "random".
    """
    if selection.method == "text":
        seen = jnp.where(counts > 0, asked / jnp.maximum(counts, 1), 0.0)
        return seen[:, 0] + selection.weight * seen[:, 1], quotas
    own = picture[:, :, None] == jnp.arange(quotas.shape[1])
    if selection.method == "blocks":
        return _mean_of_blocks(asked[:, 0], picture, own), quotas
    if selection.method == "images":
        return asked[:, 0], _best_pictures(asked[:, 0], own, quotas, selection.floor)
    if selection.method == "norm":
        lengths = jnp.linalg.norm(values.astype(jnp.float32), axis=-1)
        return jnp.mean(lengths, axis=(0, 3)), quotas
    if selection.method == "uniform":
        return _evenly(picture, own, quotas), quotas
    return _by_lot(keys, picture, _place(picture, own)), quotas


def _by_lot(keys: Array, picture: Array, place: Array) -> Float[Array, "b n"]:
    """Random scores that follow from a token's picture and place in it, wherever in a row it lies."""

    def draw(key, picture, place):
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, picture), place))

    return jax.vmap(jax.vmap(draw, (None, 0, 0)))(keys, jnp.maximum(picture, 0), place)


def _place(picture: Array, own: Array) -> Int[Array, "b n"]:
    """The number of each token inside its picture."""
    before = jnp.cumsum(own, axis=1, dtype=jnp.int32) - 1
    return jnp.take_along_axis(before, jnp.maximum(picture, 0)[..., None], axis=2)[..., 0]


def _mean_of_blocks(score: Array, picture: Array, own: Array) -> Float[Array, "b n"]:
    n = score.shape[1]
    most = n // BLOCK + 1
    block = jnp.where(picture < 0, own.shape[2] * most, picture * most + _place(picture, own) // BLOCK)

    def means(score, block):
        kinds = own.shape[2] * most + 1
        total = jax.ops.segment_sum(score, block, kinds)
        return (total / jnp.maximum(jax.ops.segment_sum(jnp.ones(n), block, kinds), 1))[block]

    return jax.vmap(means)(score, block)


def _best_pictures(score: Array, own: Array, quotas: Array, floor: int) -> Int[Array, "b p"]:
    """What the quotas come to in all, given to the pictures of the highest mean first."""
    counts = jnp.sum(own, axis=1)
    mean = jnp.sum(jnp.where(own, score[..., None], 0), axis=1) / jnp.maximum(counts, 1)
    least = jnp.minimum(floor, counts)
    order = jnp.argsort(jnp.where(counts > 0, -mean, jnp.inf), axis=1)
    room = jnp.take_along_axis(counts - least, order, axis=1)
    spare = jnp.sum(quotas - least, axis=1, keepdims=True)
    given = jnp.clip(spare - (jnp.cumsum(room, axis=1) - room), 0, room)
    return least + jnp.take_along_axis(given, jnp.argsort(order, axis=1), axis=1)


def _evenly(picture: Array, own: Array, quotas: Array) -> Float[Array, "b n"]:
    """1 for the tokens at equal distances of each other, as many as its picture may keep."""
    counts = jnp.sum(own, axis=1)
    place, mine = _place(picture, own), jnp.maximum(picture, 0)
    count, quota = (jnp.take_along_axis(x, mine, axis=1) for x in (counts, quotas))
    count = jnp.maximum(count, 1)
    return ((place + 1) * quota // count > place * quota // count).astype(jnp.float32)


def answered(selection: Selection, passes: Sequence[Array], layers: int) -> Float[Array, "b 2 n"]:
    """The mean over asked layers of what several passes found, `[layers, b, 2, n]` each."""
    return sum(jnp.sum(found, axis=0) for found in passes) / len(selection.asked_layers(layers))


def texts_too(picture: Int[Array, "b n"], sample: Int[Array, "b n"], pictures: int) -> Int[Array, "b n"]:
    """Numbers for `select_top_k`: text counts as one more picture, which keeps all it has; padding as none."""
    return jnp.where(sample < 0, -1, jnp.where(picture < 0, pictures, picture))


def counted(picture: Int[Array, "b n"], pictures: int) -> Int[Array, "b p"]:
    """Tokens of each picture `[b, pictures]`.

    Raises:
        UserError: more pictures than `attention_received` tells apart.
    """
    if pictures > MOST_IMAGES:
        raise UserError(f"select: {pictures} images, but tokens are selected among at most {MOST_IMAGES}")
    return (picture[:, :, None] == jnp.arange(pictures)).sum(axis=1)
