"""Which pairs of blocks of tokens a scoring kernel has to visit.

Text has no column and some queries count for nothing: they are made padding, and then attention's own rule
(`attention/ordering.py`) tells which blocks meet. A block of one picture does not meet blocks of the same picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from macro.kernels.attention.ordering import may_see
from macro.kernels.attention.reference import HIDDEN
from macro.kernels.select.reference import TEXT
from macro.sentence.sight import FIELDS

PICTURE = "picture"  # beside the fields of the rule of sight
NAMES = (*FIELDS, PICTURE)


def only_counted(
    log_sum: Float[Array, "b nq h"],
    q_meta: Mapping,
    k_meta: Mapping,
    q_picture: Int[Array, "b nq"],
    k_picture: Int[Array, "b nk"],
) -> tuple[dict, dict]:
    """Metadata with the pictures, in which queries that count for nothing and keys without a column are padding."""
    queries, keys = ({name: meta[name] for name in FIELDS} for meta in (q_meta, k_meta))
    counted = jnp.any(log_sum > HIDDEN, axis=2) & (q_picture >= TEXT)
    queries["sample"] = jnp.where(counted, queries["sample"], -1)
    keys["sample"] = jnp.where(k_picture > TEXT, keys["sample"], -1)
    return queries | {PICTURE: q_picture}, keys | {PICTURE: k_picture}


def may_count(q_meta: Mapping, k_meta: Mapping) -> Bool[Array, "b m n"]:
    """Which blocks of queries `[b, m, tokens]` may count for blocks of keys `[b, n, tokens]`, of `only_counted`."""
    (q_low, q_high), (k_low, k_high) = (
        (jnp.min(x, axis=-1), jnp.max(x, axis=-1)) for x in (q_meta[PICTURE], k_meta[PICTURE])
    )
    own = (q_low == q_high)[:, :, None] & (k_low == k_high)[:, None] & (q_low[:, :, None] == k_low[:, None])
    return may_see(q_meta, k_meta) & ~own
