"""Token selection: which tokens of the reference pictures are worth keeping, and taking them out.

MACRO's text-aligned selection (arXiv 2603.25319) in three steps: `column_sums` says how much text and other pictures
look at each token of a picture, `choose` takes the best of every picture under `quotas`, `gather` moves their keys,
values or embeddings. Scores and rows have kernels for TPU and GPU; everything else is XLA on any platform.
Read next: `reference.py`, which defines the results.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from macro.kernels.attention.api import on_mesh
from macro.kernels.attention.pallas_gpu import why_not as why_not_gpu
from macro.kernels.attention.pallas_tpu import why_not as why_not_tpu
from macro.kernels.backends import Backend, first_able
from macro.kernels.select import pallas_gpu, pallas_tpu, pallas_tpu_gather
from macro.kernels.select.blocked import column_counts_blocked, column_sums_blocked
from macro.kernels.select.choose import choose
from macro.kernels.select.gathering import taken
from macro.kernels.select.quotas import quota_bound, quotas
from macro.kernels.select.reference import Kept, column_sums_reference, gather_reference
from macro.parallel.sharding import activation_spec, check_axes, current_mesh_shape, platform
from macro.sentence.sight import FIELDS

__all__ = ["Kept", "choose", "column_counts", "column_sums", "gather", "quota_bound", "quotas"]

# What runs where: the first that can. Elsewhere scores take the loop over blocks in XLA, and rows the definition.
_ANYWHERE = Backend(column_sums_blocked)
SCORING: dict[str, tuple[Backend, ...]] = {
    "cpu": (_ANYWHERE,),
    "gpu": (Backend(pallas_gpu.column_sums_gpu, why_not_gpu), _ANYWHERE),
    "tpu": (Backend(pallas_tpu.column_sums_tpu, why_not_tpu), _ANYWHERE),
}
GATHERING: dict[str, tuple[Backend, ...]] = {
    "gpu": (Backend(pallas_gpu.gather_gpu, pallas_gpu.why_not_gather),),
    "tpu": (Backend(pallas_tpu_gather.gather_tpu, pallas_tpu_gather.why_not),),
}
# Below this many scores per head any loop over blocks costs more than the dense tensor: the definition.
_WORTH_A_LOOP = 1 << 16


def column_sums(
    q: Float[Array, "b nq h d"],
    k: Float[Array, "b nk kv d"],
    log_sum: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_picture: Int[Array, "b nq"],
    k_picture: Int[Array, "b nk"],
    k_bias: Float[Array, "b nk"] | None = None,
) -> Float[Array, "b 2 nk"]:
    """How much attention each key of a picture gets from text, and from other pictures.

    With A[t, u] the weight that query t gives to key u, mean over heads, 0 where it does not see it.

    Args:
        q, k: queries and keys as attention takes them; h a multiple of kv.
        log_sum: float32, of `attention_parts` over all keys that a query sees, which may be more than these. A query
            that saw nothing adds nothing.
        q_meta, k_meta: `sample`, `order`, `span`, `mode`, int32 `[b, nq]` and `[b, nk]`.
        q_picture: number of the picture that a query stands in, -1 in text; a query with less counts for nothing.
        k_picture: the same for keys, negative in text.
        k_bias: added to every score of a key, as in attention.

    Returns:
        float32: row 0 the sum of A over text queries, row 1 over queries in other pictures than the key's; both zero
        for keys in text. No gradient flows through it.

    Raises:
        ValueError: arrays whose shapes do not fit together, at trace time.
    """
    _check_scoring(q, k, log_sum, q_meta, k_meta, q_picture, k_picture, k_bias)
    q_meta, k_meta = ({name: meta[name] for name in FIELDS} for meta in (q_meta, k_meta))
    given = jax.lax.stop_gradient((q, k, log_sum, q_meta, k_meta, q_picture, k_picture, k_bias))
    sizes = current_mesh_shape()
    if not sizes:
        return _sums_on_one_device(*given)
    queries, keys = on_mesh(sizes, q, k)
    q_tokens, k_tokens = (PartitionSpec(*lies[:2]) for lies in (queries, keys))
    metas = [dict.fromkeys(FIELDS, lies) for lies in (q_tokens, k_tokens)]
    bias = None if k_bias is None else k_tokens

    def everywhere(*given):
        return _total(_mean(_sums_on_one_device(*given), queries[2]), queries[1])

    score = jax.shard_map(
        everywhere,
        in_specs=(queries, keys, PartitionSpec(*queries[:3]), *metas, q_tokens, k_tokens, bias),
        out_specs=PartitionSpec(queries[0]),
        check_vma=False,
    )
    return score(*given)


def column_counts(
    q_meta: Mapping, k_meta: Mapping, q_picture: Int[Array, "b nq"], k_picture: Int[Array, "b nk"]
) -> Float[Array, "b 2 nk"]:
    """How many queries each row of `column_sums` is a sum over: text and other pictures' queries that see the key.

    Arguments and errors as `column_sums` has them. Queries are counted by what they see in these keys.
    """
    _check_tokens("column_counts", q_meta, k_meta, q_picture, k_picture)
    given = [{name: meta[name] for name in FIELDS} for meta in (q_meta, k_meta)] + [q_picture, k_picture]
    sizes = current_mesh_shape()
    if not sizes:
        return column_counts_blocked(*given)
    queries = activation_spec(sizes, q_picture.shape, "batch", "tokens")
    keys = PartitionSpec(queries[0], None)
    count = jax.shard_map(
        lambda *given: _total(column_counts_blocked(*given), queries[1]),
        in_specs=(dict.fromkeys(FIELDS, queries), dict.fromkeys(FIELDS, keys), queries, keys),
        out_specs=PartitionSpec(queries[0]),
        check_vma=False,
    )
    return count(*given)


def gather(x: Array, kept: Kept, *axes: str | None) -> Array:
    """The kept tokens' rows of `x`, bit by bit as they are; zeros at places that are not valid.

        gather(embeddings, kept, "batch", "tokens", "width")                            [b, n, d] -> [b, k, d]
        gather(keys, kept, "layers", "batch", "tokens", "kv_heads", "head_dim")         a cache's keys or values

    Args:
        x: any array with a dimension of tokens right behind that of rows.
        kept: `[b, k]` of `choose`.
        axes: the logical axis of each dimension of `x` (`macro/parallel/sharding.py`), "tokens" the one to take from.

    Returns:
        `x` with k instead of n tokens. The gradient puts each slope back where its row came from.

    Raises:
        ValueError: axes that do not describe `x`, or another number of rows than `kept` has, at trace time.
    """
    axis = _check_gather(x, kept, axes)
    shape = (*x.shape[:axis], kept.indices.shape[1], *x.shape[axis + 1 :])
    sizes = current_mesh_shape()
    if not sizes:
        return _gather_on_one_device(axis, x, *kept)
    given, taken = activation_spec(sizes, x.shape, *axes), activation_spec(sizes, shape, *axes)
    # Every device takes its own share of the places, from all tokens of its rows.
    given = PartitionSpec(*given[:axis], None, *given[axis + 1 :])
    places = PartitionSpec(*taken[axis - 1 : axis + 1])
    move = jax.shard_map(
        lambda *x: _gather_on_one_device(axis, *x), in_specs=(given, places, places), out_specs=taken, check_vma=False
    )
    return move(x, *kept)


def _sums_on_one_device(q, k, *rest):
    large = q.shape[1] * k.shape[1] >= _WORTH_A_LOOP
    backends = SCORING.get(platform(), (_ANYWHERE,)) if large else ()
    return first_able("column_sums", backends, column_sums_reference, q, k)(q, k, *rest)


def _total(x: Array, axes) -> Array:
    return x if axes is None else jax.lax.psum(x, axes)


def _mean(x: Array, axes) -> Array:
    return x if axes is None else jax.lax.pmean(x, axes)


def _gather_on_one_device(axis: int, x: Array, indices: Array, valid: Array) -> Array:
    lead, rest = x.shape[: axis - 1], x.shape[axis + 1 :]
    x = x.reshape(-1, *x.shape[axis - 1 :])
    # Single numbers (ids, metadata) are no rows that a kernel would be for.
    backends = GATHERING.get(platform(), ()) if rest and x.size else ()
    rows = taken(first_able("gather", backends, gather_reference, x, indices), x, indices, valid)
    return rows.reshape(*lead, *indices.shape, *rest)


def _check_scoring(q, k, log_sum, q_meta, k_meta, q_picture, k_picture, k_bias) -> None:
    """What would otherwise broadcast in silence or fail deep inside a kernel."""
    (b, nq, h, d), (kb, nk, kv, kd) = q.shape, k.shape
    if (b, d) != (kb, kd):
        raise ValueError(f"column_sums: q {q.shape} and k {k.shape} must have as many rows and as wide heads")
    if h % kv:
        raise ValueError(f"column_sums: {h} heads of q are no multiple of the {kv} of k")
    shapes = (("log_sum", log_sum, (b, nq, h)), ("q_picture", q_picture, (b, nq)), ("k_picture", k_picture, (b, nk)),
              ("k_bias", k_bias, (b, nk)))  # fmt: skip
    for name, x, shape in shapes:
        if x is not None and x.shape != shape:
            raise ValueError(f"column_sums: {name} has shape {x.shape}, but must have {shape}")
    _check_tokens("column_sums", q_meta, k_meta, q_picture, k_picture)


def _check_tokens(op: str, q_meta, k_meta, q_picture, k_picture) -> None:
    if q_picture.ndim != 2 or q_picture.shape[0] != k_picture.shape[0]:
        raise ValueError(f"{op}: q_picture {q_picture.shape} and k_picture {k_picture.shape} must have as many rows")
    for side, meta, shape in (("q_meta", q_meta, q_picture.shape), ("k_meta", k_meta, k_picture.shape)):
        for name in FIELDS:
            if name not in meta or meta[name].shape != shape:
                found = meta[name].shape if name in meta else "missing"
                raise ValueError(f"{op}: {side}[{name!r}] is {found}, but its tokens are {shape}")


def _check_gather(x, kept: Kept, axes) -> int:
    """Which dimension the tokens are."""
    if len(axes) != x.ndim:
        raise ValueError(f"gather: {len(axes)} logical axes {axes} for an array of shape {x.shape}")
    check_axes(axes)
    if axes.count("tokens") != 1 or axes[: axes.index("tokens")][-1:] != ("batch",):
        raise ValueError(f'gather: "tokens" must stand once in {axes}, right behind "batch"')
    axis = axes.index("tokens")
    rows = x.shape[axis - 1]
    if kept.indices.ndim != 2 or kept.indices.shape[0] != rows or kept.valid.shape != kept.indices.shape:
        raise ValueError(f"gather: kept {kept.indices.shape}, {kept.valid.shape} must be [b, k] with x's {rows} rows")
    return axis
