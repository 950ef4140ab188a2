"""Token selection: ours against materialised scores, jax.lax.top_k and a gather, which do the same work.

python -m experiments.bench_select --repeats=5 [--json=F]      on this machine: 10,000 tokens on a CPU, 40,960 elsewhere
python -m experiments.bench_select --aot [--json=F]            bytes and FLOPs of both programs, compiled for a TPU v5e

One row, ten images in a sentence, a tenth of the tokens text, 30% of each image kept; queries, keys and log-sum-exp
are given, the cache's keys and values are what is gathered. Contestants take turns; medians, and ratios within one run.
Measured: `LOG.md`.
"""

import functools
import json as json_lib
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from macro.kernels.attention.api import attention_with_lse
from macro.kernels.attention.reference import MASK_VALUE, attention_mask
from macro.kernels.token_selection.api import (
    TopK,
    attention_received,
    gather_tokens,
    query_counts,
    select_top_k,
    token_budget_bound,
    token_budgets,
)
from macro.parallel import topology
from macro.parallel.cost_model import cost_analysis
from macro.parallel.cost_model.hlo import compile_and_read
from macro.sentence.attention_mask import CAUSAL, FULL
from macro.utils import config as config_lib

KEEP = 0.3


class Selection(NamedTuple):
    """Selection over one prompt.

    Attributes:
        tokens: of a row: images, and a tenth of them text.
        images: that the row holds.
        heads, kv_heads, head_dim: of attention.
        layers: whose cache the kept tokens are taken from.
    """

    tokens: int
    images: int
    heads: int
    kv_heads: int
    head_dim: int
    layers: int


SPECS = {
    # configs/demo.py's model, of which a CPU is asked
    "demo": Selection(10_000, 10, 4, 2, 48, 6),
    # BAGEL's 7B language model with ten references of 512 x 512 pixels, and of 1024 x 1024 (VAE tokens too)
    "bagel": Selection(10_240, 10, 28, 4, 128, 28),
    "bagel_large": Selection(40_960, 10, 28, 4, 128, 28),
}
AXES = "layers", "batch", "tokens", "kv_heads", "head_dim"


def sentence(sizes: Selection) -> tuple[dict, np.ndarray]:
    """Metadata and images `[1, n]` of text and images in turn."""
    each = sizes.tokens // sizes.images
    text = each // 10
    lengths = [text, each - text] * sizes.images
    lengths[-2] += sizes.tokens - sum(lengths)
    spans = np.arange(len(lengths))
    fields = {
        "segment_ids": np.zeros(sizes.tokens),
        "token_index": np.arange(sizes.tokens),
        "block_id": np.repeat(spans, lengths),
        "mask_mode": np.repeat(np.where(spans % 2, FULL, CAUSAL), lengths),
    }
    image = np.repeat(np.where(spans % 2, spans // 2, -1), lengths)
    return {name: x.astype(np.int32)[None] for name, x in fields.items()}, image.astype(np.int32)[None]


def limits(sizes: Selection) -> tuple[np.ndarray, int]:
    """Quotas `[1, images]`, and a K that suffices."""
    image = sentence(sizes)[1]
    counts = np.sum(image[:, :, None] == np.arange(sizes.images), axis=1)
    return token_budgets(counts, KEEP), token_budget_bound(int(counts.sum()), sizes.images, KEEP)


def score_ours(q, k, lse, meta, image):
    sums = attention_received(q, k, lse, meta, meta, image, image)
    return jnp.sum(sums / jnp.maximum(query_counts(meta, meta, image, image), 1), axis=1)


def score_materialised(q, k, lse, meta, image):
    """One tensor of all weights, as one writes it down."""
    # Heads before tokens, keys once for each query head: a plain batched product, which XLA's CPU backend does best.
    q, k = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    sight = attention_mask(meta, meta)
    scores = jnp.where(sight[:, None], scores, MASK_VALUE)
    weights = jnp.mean(jnp.exp(scores - lse.swapaxes(1, 2)[..., None]), axis=1)
    own, key = image[:, :, None], image[:, None, :]
    counted = [sight & (key >= 0) & x for x in (own == -1, (own >= 0) & (own != key))]
    means = [jnp.sum(jnp.where(x, weights, 0), axis=1) / jnp.maximum(jnp.sum(x, axis=1), 1) for x in counted]
    return sum(means)


def choose_top_k(scores, image, each: tuple[int, ...], size: int):
    """`jax.lax.top_k` of every image, which needs its quota at trace time."""
    best = [jax.lax.top_k(jnp.where(image == p, scores, -jnp.inf), n)[1] for p, n in enumerate(each)]
    places = jnp.sort(jnp.concatenate(best, axis=1), axis=1)
    padding = (0, 0), (0, size - places.shape[1])
    return TopK(jnp.pad(places, padding), jnp.pad(jnp.ones(places.shape, bool), padding))


def take(x, kept):
    """A cache's rows by `jnp.take_along_axis`, zeros where nothing is kept."""
    shape = (1, *kept.indices.shape, 1, 1)
    return jnp.where(kept.valid.reshape(shape), jnp.take_along_axis(x, kept.indices.reshape(shape), axis=2), 0)


def contestants(sizes: Selection) -> dict:
    """Both ways: functions of (q, k, lse, meta, image, keys, values) that give kept, keys and values."""
    each, size = limits(sizes)

    def ours(q, k, lse, meta, image, *cache):
        kept = select_top_k(score_ours(q, k, lse, meta, image), image, jnp.asarray(each), size)
        return kept, *(gather_tokens(x, kept, *AXES) for x in cache)

    def materialised(q, k, lse, meta, image, *cache):
        scores = score_materialised(q, k, lse, meta, image)
        kept = choose_top_k(scores, image, tuple(map(int, each[0])), size)
        return kept, *(take(x, kept) for x in cache)

    return {"ours": ours, "materialised": materialised}


def parts(sizes: Selection, given) -> dict:
    """The steps apart: name -> contestant -> (function, arguments)."""
    each, size = limits(sizes)
    *scoring, keys, _ = given
    scores, image = jax.jit(score_ours)(*scoring), given[4]
    by_top_k = functools.partial(choose_top_k, each=tuple(map(int, each[0])), size=size)
    kept = jax.jit(by_top_k)(scores, image)
    chosen = scores, image, jnp.asarray(each)
    pick = functools.partial(select_top_k, size=size)
    return {
        "score": {"ours": (score_ours, scoring), "materialised": (score_materialised, scoring)},
        "top_k": {"ours": (pick, chosen), "lax.top_k": (by_top_k, (scores, image))},
        "gather": {"ours": (lambda x, kept: gather_tokens(x, kept, *AXES), (keys, kept)), "take": (take, (keys, kept))},
    }


def arguments(sizes: Selection):
    """Queries, keys, log-sum-exp, metadata, images, and a cache's keys and values."""
    meta, image = jax.tree.map(jnp.asarray, sentence(sizes))
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    n, d = sizes.tokens, sizes.head_dim
    keys = jax.random.split(jax.random.key(0), 4)
    q = 3 * jax.random.normal(keys[0], (1, n, sizes.heads, d), dtype)
    k = jax.random.normal(keys[1], (1, n, sizes.kv_heads, d), dtype)
    lse = jax.jit(lambda q, k, meta: attention_with_lse(q, k, k, meta, meta)[1])(q, k, meta)
    cache = [jax.random.normal(key, (sizes.layers, 1, n, sizes.kv_heads, d), dtype) for key in keys[2:]]
    return q, k, lse, meta, image, *cache


def race(step: str, sizes: Selection, entries: dict, repeats: int) -> list[dict]:
    """Rows of one step: medians and memory of all who do it, the first of them the yardstick of the others."""
    programs = {name: jax.jit(f).lower(*given).compile() for name, (f, given) in entries.items()}
    seconds = {name: [] for name in entries}
    for turn in range(repeats + 1):
        for name, (_, given) in entries.items():
            start = time.perf_counter()
            jax.block_until_ready(programs[name](*given))
            if turn:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    ours = next(iter(medians.values()))
    return [
        {"step": step, "who": name, "tokens": sizes.tokens, "seconds": median, "times_ours": median / ours,
         "temp_bytes": programs[name].memory_analysis().temp_size_in_bytes, "repeats": repeats}
        for name, median in medians.items()
    ]  # fmt: skip


def measured(sizes: Selection, repeats: int) -> list[dict]:
    given = arguments(sizes)
    whole = {name: (f, given) for name, f in contestants(sizes).items()}
    found = [jax.jit(f)(*given)[0] for f, _ in whole.values()]
    ours, theirs = (np.asarray(kept.indices)[np.asarray(kept.valid)] for kept in found)
    print(f"{np.mean(np.isin(ours, theirs)):.4f} of the tokens that ours keeps are kept by the materialised way")
    rows = race("selection", sizes, whole, repeats)
    for step, entries in parts(sizes, given).items():
        rows += race(step, sizes, entries, repeats)
    return rows


def compiled_ahead(name: str) -> list[dict]:
    """Both programs for one chip of v5e, by what `macro/parallel/cost_model/cost_analysis.py` reads in them."""
    sizes, rows = SPECS[name], []
    axes = "data", "fsdp", "fsdp_inner", "sequence", "tensor"
    device = np.array(topology.devices("v5e:2x2")[:1]).reshape((1,) * len(axes))
    mesh = Mesh(device, axes, axis_types=(AxisType.Auto,) * len(axes))

    def spec(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    n, h, kv, d = sizes.tokens, sizes.heads, sizes.kv_heads, sizes.head_dim
    meta, image = jax.tree.map(lambda x: spec(x.shape, jnp.int32), sentence(sizes))
    cache = spec((sizes.layers, 1, n, kv, d), jnp.bfloat16)
    given = spec((1, n, h, d), jnp.bfloat16), spec((1, n, kv, d), jnp.bfloat16), spec((1, n, h), jnp.float32)
    for who, f in contestants(sizes).items():
        row = {"step": "selection", "who": who, "tokens": n, "chip": "v5e"}
        try:
            with jax.set_mesh(mesh):
                compiled, text = compile_and_read(jax.jit(f).lower(*given, meta, image, cache, cache))
        except jax.errors.JaxRuntimeError as error:  # too large for the chip
            rows.append(row | {"refused": str(error).splitlines()[0]})
            continue
        told = cost_analysis.of(text)
        temp = compiled.memory_analysis().temp_size_in_bytes
        rows.append(row | {"flops": told.flops, "kernel_flops": told.kernel_flops, "hbm_bytes": told.hbm_bytes,
                           "temp_bytes": temp, "unknown": list(told.unknown)})  # fmt: skip
    return rows


def shown(row: dict) -> str:
    head = f"{row['tokens']:7} {row['step']:10} {row['who']:13}"
    if "refused" in row:
        return f"{head} refused: {row['refused'][:110]}"
    memory = f"{row['temp_bytes'] / 2**20:10.1f} MiB"
    if "seconds" in row:
        return f"{head} {1e3 * row['seconds']:10.2f} ms {row['times_ours']:8.2f} of ours {memory}"
    return f"{head} {row['flops'] / 1e9:10.1f} GFLOP {row['hbm_bytes'] / 1e9:8.2f} GB of HBM {memory}"


def main(repeats: int = 5, json: str | None = None, aot: bool = False) -> None:
    if aot:
        rows = [row for name in ("bagel", "bagel_large") for row in compiled_ahead(name)]
    else:
        cpu = jax.default_backend() == "cpu"
        rows = measured(SPECS["demo" if cpu else "bagel_large"], repeats)
        print(jax.devices()[0].device_kind)
    print("\n".join(map(shown, rows)))
    if json:
        Path(json).write_text(json_lib.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    config_lib.run(
        main, repeats="how often each is run", json="file to write rows to", aot="compile for a TPU v5e, run nothing"
    )
