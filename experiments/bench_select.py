"""Token selection: ours against materialised scores, jax.lax.top_k and a gather, which do the same work.

python -m experiments.bench_select --repeats=5 [--json=F]      on this machine: 10,000 tokens on a CPU, 40,960 elsewhere
python -m experiments.bench_select --aot [--json=F]            bytes and FLOPs of both programs, compiled for a TPU v5e

One row, ten pictures in a sentence, a tenth of the tokens text, 30% of each picture kept; queries, keys and log-sum-exp
are given, the cache's keys and values are what is gathered. Contestants take turns; medians, and ratios within one run.

Written before measuring. Floor: 2 h n n d = 38 GFLOP where all pairs are scored (4 heads of 48, n = 10,000); pairs
that are seen and count are 41% of them, so 16 GFLOP and 160 M exponentials; bytes: a few passes over 10 MB.
Materialised: all 38 GFLOP, and 1.6 GB of weights written and read some four times. Predicted on two cores: ours .5 s,
materialised 2 s, so 4x; memory below 50 MB against 2 GB or more. The threshold takes 46 counts over 10 x n flags, 4.6 M
at 10,000 tokens, the sort some 140,000 comparisons of two keys: a tie within 1.5x either way. On v5e (28 heads of 128,
10,240 tokens): .75 TFLOP for both, but .8 GB of HBM traffic against 12 GB written once and read at least once: 20x
fewer bytes or more.
Measured: `LOG.md`.
"""

import functools
import json as json_lib
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from macro.kernels.attention.api import attention_parts
from macro.kernels.attention.reference import HIDDEN, sight_mask
from macro.kernels.select.api import Kept, choose, column_counts, column_sums, gather, quota_bound, quotas
from macro.kernels.select.reference import choose_reference, classes
from macro.kernels.select.specs import SPECS, Selection
from macro.parallel import topology
from macro.parallel.cost_model import cost_analysis
from macro.parallel.cost_model.hlo import compile_and_read
from macro.sentence.sight import CAUSAL, FULL
from macro.utils import config as config_lib

KEEP = 0.3
AXES = "layers", "batch", "tokens", "kv_heads", "head_dim"


def sentence(sizes: Selection) -> tuple[dict, np.ndarray]:
    """Metadata and pictures `[1, n]` of text and pictures in turn."""
    each = sizes.tokens // sizes.pictures
    text = each // 10
    lengths = [text, each - text] * sizes.pictures
    lengths[-2] += sizes.tokens - sum(lengths)
    spans = np.arange(len(lengths))
    fields = {
        "sample": np.zeros(sizes.tokens),
        "order": np.arange(sizes.tokens),
        "span": np.repeat(spans, lengths),
        "mode": np.repeat(np.where(spans % 2, FULL, CAUSAL), lengths),
    }
    picture = np.repeat(np.where(spans % 2, spans // 2, -1), lengths)
    return {name: x.astype(np.int32)[None] for name, x in fields.items()}, picture.astype(np.int32)[None]


def limits(sizes: Selection) -> tuple[np.ndarray, int]:
    """Quotas `[1, pictures]`, and a K that suffices."""
    picture = sentence(sizes)[1]
    counts = np.sum(picture[:, :, None] == np.arange(sizes.pictures), axis=1)
    return quotas(counts, KEEP), quota_bound(int(counts.sum()), sizes.pictures, KEEP)


def score_ours(q, k, log_sum, meta, picture):
    sums = column_sums(q, k, log_sum, meta, meta, picture, picture)
    return jnp.sum(sums / jnp.maximum(column_counts(meta, meta, picture, picture), 1), axis=1)


def score_materialised(q, k, log_sum, meta, picture):
    """One tensor of all weights, as one writes it down."""
    # Heads before tokens, keys once for each query head: a plain batched product, which XLA's CPU backend does best.
    q, k = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, jnp.repeat(k, q.shape[2] // k.shape[2], axis=2)))
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    sight = sight_mask(meta, meta)
    scores = jnp.where(sight[:, None], scores, HIDDEN)
    weights = jnp.mean(jnp.exp(scores - log_sum.swapaxes(1, 2)[..., None]), axis=1)
    counted = [sight & x for x in classes(picture[:, :, None], picture[:, None, :])]
    means = [jnp.sum(jnp.where(x, weights, 0), axis=1) / jnp.maximum(jnp.sum(x, axis=1), 1) for x in counted]
    return sum(means)


def choose_top_k(scores, picture, each: tuple[int, ...], size: int):
    """`jax.lax.top_k` of every picture, which needs its quota at trace time."""
    best = [jax.lax.top_k(jnp.where(picture == p, scores, -jnp.inf), n)[1] for p, n in enumerate(each)]
    places = jnp.sort(jnp.concatenate(best, axis=1), axis=1)
    padding = (0, 0), (0, size - places.shape[1])
    return Kept(jnp.pad(places, padding), jnp.pad(jnp.ones(places.shape, bool), padding))


def take(x, kept):
    """A cache's rows by `jnp.take_along_axis`, zeros where nothing is kept."""
    shape = (1, *kept.indices.shape, 1, 1)
    return jnp.where(kept.valid.reshape(shape), jnp.take_along_axis(x, kept.indices.reshape(shape), axis=2), 0)


def contestants(sizes: Selection) -> dict:
    """Both ways: functions of (q, k, log_sum, meta, picture, keys, values) that give kept, keys and values."""
    each, size = limits(sizes)

    def ours(q, k, log_sum, meta, picture, *cache):
        kept = choose(score_ours(q, k, log_sum, meta, picture), picture, jnp.asarray(each), size)
        return kept, *(gather(x, kept, *AXES) for x in cache)

    def materialised(q, k, log_sum, meta, picture, *cache):
        scores = score_materialised(q, k, log_sum, meta, picture)
        kept = choose_top_k(scores, picture, tuple(map(int, each[0])), size)
        return kept, *(take(x, kept) for x in cache)

    return {"ours": ours, "materialised": materialised}


def parts(sizes: Selection, given) -> dict:
    """The steps apart: name -> contestant -> (function, arguments)."""
    each, size = limits(sizes)
    *scoring, keys, _ = given
    scores, picture = jax.jit(score_ours)(*scoring), given[4]
    by_top_k = functools.partial(choose_top_k, each=tuple(map(int, each[0])), size=size)
    kept = jax.jit(by_top_k)(scores, picture)
    chosen = scores, picture, jnp.asarray(each)
    pick, sort = (functools.partial(f, size=size) for f in (choose, choose_reference))
    return {
        "score": {"ours": (score_ours, scoring), "materialised": (score_materialised, scoring)},
        "choose": {"ours": (pick, chosen), "sort": (sort, chosen), "top_k": (by_top_k, (scores, picture))},
        "gather": {"ours": (lambda x, kept: gather(x, kept, *AXES), (keys, kept)), "take": (take, (keys, kept))},
    }


def arguments(sizes: Selection):
    """Queries, keys, log-sum-exp, metadata, pictures, and a cache's keys and values."""
    meta, picture = jax.tree.map(jnp.asarray, sentence(sizes))
    dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    n, d = sizes.tokens, sizes.head_dim
    keys = jax.random.split(jax.random.key(0), 4)
    q = 3 * jax.random.normal(keys[0], (1, n, sizes.heads, d), dtype)
    k = jax.random.normal(keys[1], (1, n, sizes.kv_heads, d), dtype)
    log_sum = jax.jit(lambda q, k, meta: attention_parts(q, k, k, meta, meta)[1])(q, k, meta)
    cache = [jax.random.normal(key, (sizes.layers, 1, n, sizes.kv_heads, d), dtype) for key in keys[2:]]
    return q, k, log_sum, meta, picture, *cache


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


def choosing(tokens: int, repeats: int) -> list[dict]:
    """Threshold against sort alone, at other lengths."""
    sizes = SPECS["demo"]._replace(tokens=tokens)
    each, size = limits(sizes)
    scores = jax.random.normal(jax.random.key(1), (1, tokens))
    given = scores, jnp.asarray(sentence(sizes)[1]), jnp.asarray(each)
    pick, sort = (functools.partial(f, size=size) for f in (choose, choose_reference))
    return race("choose", sizes, {"ours": (pick, given), "sort": (sort, given)}, repeats)


def compiled_ahead(name: str) -> list[dict]:
    """Both programs for one chip of v5e, by what `macro/parallel/cost_model/cost_analysis.py` reads in them."""
    sizes, rows = SPECS[name], []
    axes = "data", "fsdp", "fsdp_inner", "sequence", "tensor"
    device = np.array(topology.devices("v5e:2x2")[:1]).reshape((1,) * len(axes))
    mesh = Mesh(device, axes, axis_types=(AxisType.Auto,) * len(axes))

    def spec(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    n, h, kv, d = sizes.tokens, sizes.heads, sizes.kv_heads, sizes.head_dim
    meta, picture = jax.tree.map(lambda x: spec(x.shape, jnp.int32), sentence(sizes))
    cache = spec((sizes.layers, 1, n, kv, d), jnp.bfloat16)
    given = spec((1, n, h, d), jnp.bfloat16), spec((1, n, kv, d), jnp.bfloat16), spec((1, n, h), jnp.float32)
    for who, f in contestants(sizes).items():
        row = {"step": "selection", "who": who, "tokens": n, "chip": "v5e"}
        try:
            with jax.set_mesh(mesh):
                compiled, text = compile_and_read(jax.jit(f).lower(*given, meta, picture, cache, cache))
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
        rows += [row for tokens in (1_000, 40_960) for row in choosing(tokens, repeats)]
        print(jax.devices()[0].device_kind)
    print("\n".join(map(shown, rows)))
    if json:
        Path(json).write_text(json_lib.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    config_lib.run(
        main, repeats="how often each is run", json="file to write rows to", aot="compile for a TPU v5e, run nothing"
    )
