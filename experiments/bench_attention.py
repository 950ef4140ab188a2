"""Attention under the attention mask: time, memory, FLOPs and bytes of ours against those of others.

    python -m experiments.bench_attention [--repeats=3] [--json=F] [--aot]

    demo     on this CPU: one batch of configs/demo.py (4 rows of 1,168 tokens, 4 heads of 48, 2 key heads, float32)
    memory   of one layer at 32,768 packed tokens in bfloat16, forward and backward: compiled for this CPU, not run
    aot      compiled for a TPU v5e that is not here (libtpu): arithmetic and HBM traffic
    gpu      where there is one: packed rows of 8k, 16k and 32k tokens against cuDNN and PyTorch's flex_attention

Contestants take turns in one process; medians, and ratios within the run. Shapes: `macro/kernels/attention/specs.py`.

Predicted before measuring. demo: 17.6% of the pairs are visible, so the floor is 5.7 times less arithmetic than dense;
blocks of 64 keep most of it: 4 to 5 times forward, more with the backward pass, which writes several dense tensors.
memory: one float32 tensor of scores is 28 x 32,768^2 x 4 bytes = 120 GB, and the gradient needs two or more at a time,
so 240 to 480 GB; ours a dozen copies of the queries in float32 (.47 GB each), 4 to 7 GB: 50 times less or better.
aot: 4 d operations a pair forward; backward ours 14 d (scores and slopes are computed twice), dense 8 d, so ours has
1.5 times the arithmetic where all pairs count; the dense one moves some ten tensors of scores, 40 bytes a pair and
head, against 1,536 operations: 6 times more seconds in memory than in arithmetic. gpu: floor 14 d a visible pair; cuDNN
computes every pair of a mask, 6 times those that are seen in the row `train`.
"""

from __future__ import annotations

import json as json_lib
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from macro.kernels.attention import specs
from macro.kernels.attention.block_mask import stack_fields, visible_block_pairs
from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.pallas_gpu import attention_gpu
from macro.kernels.attention.pallas_tpu import attention_tpu, blocks
from macro.kernels.attention.reference import attention_mask, attention_reference
from macro.models.variants import LLMConfig
from macro.objectives.parts import model_config
from macro.parallel import chips, topology
from macro.parallel.cost_model import cost_analysis, hlo
from macro.parallel.cost_model.estimate import roofline
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod
from macro.training import data
from macro.training.loop import mesh_of
from macro.utils import config as config_lib

DENSE = "dense definition"
DENSE_TOKENS = 4096  # as many as a v5e holds the dense definition's scores of
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # bfloat16, dense, a second: NVIDIA's data sheets
PASSES = ("forward", "forward, backward")
FLOPS_A_PAIR = dict(zip(PASSES, (4, 14), strict=True))  # times d; backward: five products


def main(repeats: int = 3, json: str = "", aot: bool = False) -> None:
    rows = on_demo_rows(repeats) + memory_of_a_layer()
    if aot:
        rows += ahead_of_time()
    if jax.default_backend() == "gpu":
        rows += on_a_gpu(repeats)
    else:
        print(f"\ngpu: skipped, JAX sees no GPU here, only {jax.devices()[0].device_kind}")
    if json:
        Path(json).write_text(json_lib.dumps({"rows": rows}, indent=2) + "\n")


def show(title: str, rows: list[dict]) -> list[dict]:
    """Prints rows as a table, and returns them with the table's name in front."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [[_cell(row.get(name, "")) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return [{"part": title.split(":")[0], **row} for row in rows]


def _cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def passes(backend: Callable, *rest) -> tuple[Callable, Callable]:
    """Jitted programs of (q, k, v): a sum over what is attended, and its three gradients."""

    def forward(q, k, v):
        return jnp.sum(jnp.sin(backend(q, k, v, *rest)[0].astype(jnp.float32)))

    return jax.jit(forward), jax.jit(jax.grad(forward, (0, 1, 2)))


def medians(runs: Mapping[str, tuple[Callable, Callable]], repeats: int) -> dict[str, list[float]]:
    """Seconds of both programs of each contestant, who take turns. Each runs once before, to compile."""
    taken = {name: ([], []) for name in runs}
    for turn in range(repeats + 1):
        for name, programs in runs.items():
            for run, seconds in zip(programs, taken[name], strict=True):
                start = time.perf_counter()
                run()
                if turn:
                    seconds.append(time.perf_counter() - start)
    return {name: [statistics.median(seconds) for seconds in pair] for name, pair in taken.items()}


def waited(program: Callable, *arrays) -> Callable:
    return lambda: jax.block_until_ready(program(*arrays))


# ---------------------------------------------------------------- this CPU


def batch_meta() -> tuple[dict, LLMConfig]:
    """Metadata `[4, n]` of all tokens of one batch of configs/demo.py, and the sizes of its model."""
    config = config_lib.load("configs/demo.py:smoke")
    with config.unlocked():
        config.batch_size, config.data.workers = 4, 0
    model = model_config(config)
    tokenizer, packing = data.tokenizer_of(config, model), data.packing_config(config, model)
    batch = next(data.batches(config, data.stored(config), tokenizer, packing, mesh_of(config)))
    streams = [batch[name] for name in ("text", "vision", "latent")]
    return {f: jnp.asarray(np.concatenate([s[f] for s in streams], axis=1)) for f in MASK_FIELDS}, model.llm


def attention_jax(q, k, v, q_meta, k_meta, implementation: str | None = None):
    """The library's attention, given the mask that the attention mask makes."""
    mask = attention_mask(q_meta, k_meta)[:, None]
    attended = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)
    return (jnp.where(jnp.any(mask, axis=-1)[:, 0, :, None, None], attended, 0.0),)


def on_demo_rows(repeats: int) -> list[dict]:
    meta, llm = batch_meta()
    b, n = meta["segment_ids"].shape
    shape = specs.Shape(b, n, n, llm.heads, llm.kv_heads, llm.head_dim, "float32")
    arrays = random_arrays(shape)
    backends = {DENSE: attention_reference, "jax.nn": attention_jax, "ours (blocked)": attention_blocked}
    runs = {name: [waited(p, *arrays) for p in passes(f, meta, meta)] for name, f in backends.items()}
    seconds = medians(runs, repeats)
    seen = float(jnp.mean(attention_mask(meta, meta)))
    rows = [
        {"contestant": name, "pass": what, "ms": 1e3 * pair[i], "times dense": seconds[DENSE][i] / pair[i]}
        for i, what in enumerate(PASSES)
        for name, pair in seconds.items()
    ]
    return show(f"demo: {b} rows of {n} tokens, {seen:.3f} of the pairs visible, floor {1 / seen:.1f} times", rows)


def random_arrays(shape: specs.Shape) -> list[jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, *x) for key, x in zip(keys, specs.arrays(shape), strict=True)]


# ---------------------------------------------------------------- compiled, not run


def lowered(backend: Callable, shape: specs.Shape, sharding=None):
    """The gradient of one layer's attention for a shape, as a program to be compiled."""
    meta = {f: jax.ShapeDtypeStruct((shape.b, shape.nq), jnp.int32, sharding=sharding) for f in MASK_FIELDS}
    arrays = [jax.ShapeDtypeStruct(*x, sharding=sharding) for x in specs.arrays(shape)]

    def slopes(q, k, v, meta):
        return passes(backend, meta, meta)[1](q, k, v)

    return jax.jit(slopes).lower(*arrays, meta)


def memory_of_a_layer() -> list[dict]:
    shape = specs.SHAPES["train"]
    used = {}
    for name, backend in {DENSE: attention_reference, "ours (blocked)": attention_blocked}.items():
        used[name] = lowered(backend, shape).compile().memory_analysis().temp_size_in_bytes
    rows = [{"contestant": x, "GB beside operands": y / 1e9, "times less": used[DENSE] / y} for x, y in used.items()]
    return show(f"memory: {shape.nq} tokens, {shape.heads} heads of {shape.head_dim}, forward and backward", rows)


def ahead_of_time() -> list[dict]:
    """Of each shape the kernels' declared cost and what the rows that `specs` packs leave of it."""
    chip = chips.chip("v5e")
    one = jax.sharding.SingleDeviceSharding(topology.devices("v5e:1x1")[0])
    programs = {}
    for name, backend in {DENSE: attention_reference, "ours": attention_tpu}.items():
        program = lowered(backend, specs.SHAPES["train"].of(DENSE_TOKENS), one)
        compiled, text = hlo.compile_and_read(program)
        programs[name] = cost_analysis.of(text), compiled.memory_analysis().temp_size_in_bytes
    rows = []
    for name, (found, memory) in programs.items():
        seconds, bound = roofline(found, chip)
        rows.append({
            "contestant": name, "tokens": DENSE_TOKENS, "TFLOP": found.flops / 1e12, "HBM GB": found.hbm_bytes / 1e9,
            "least ms": 1e3 * seconds, "bound by": bound, "GB beside operands": memory / 1e9,
        })  # fmt: skip
    table = show("aot: v5e, all pairs, forward and backward", rows)
    return table + show("aot rows: what the block mask leaves of ours, v5e", [left(x, chip) for x in ROWS])


ROWS = ("train", "prefill", "vision")


def left(name: str, chip: chips.Chip) -> dict:
    """A packed row: pairs that see each other, pairs in the blocks that are visited, and their arithmetic."""
    shape, meta = specs.SHAPES[name], {f: jnp.asarray(x) for f, x in specs.row(name).items()}
    queries, keys = blocks(shape.nq, shape.nk, shape.heads // shape.kv_heads)
    pairs, _ = visible_block_pairs(stack_fields(meta, queries), stack_fields(meta, keys), queries, keys)
    visited = int(jnp.sum(pairs)) * queries * keys / shape.nq**2
    flops = 18 * shape.heads * shape.head_dim * shape.nq**2
    return {
        "row": name, "tokens": shape.nq, "pairs seen": share_seen(specs.row(name)), "pairs visited": visited,
        "declared TFLOP": flops / 1e12, "visited TFLOP": visited * flops / 1e12,
        "least ms": 1e3 * visited * flops / chip.flops_bf16,
    }  # fmt: skip


def share_seen(meta: Mapping) -> float:
    """Share of the pairs that are visible, by every seventh query."""
    return float(np.mean(mask_mod({f: x[0, ::7, None] for f, x in meta.items()}, meta)))


# ---------------------------------------------------------------- a GPU


def on_a_gpu(repeats: int) -> list[dict]:
    rows = []
    for n in (8192, 16_384, 32_768):
        shape, meta = specs.SHAPES["train"].of(n), shortened(specs.row("train"), n)
        arrays, on_device = random_arrays(shape), {f: jnp.asarray(x) for f, x in meta.items()}

        def cudnn(*given):
            return attention_jax(*given, implementation="cudnn")

        runs = {}
        for name, backend in {"ours": attention_gpu, "cuDNN, mask": cudnn}.items():
            programs = [waited(p, *arrays) for p in passes(backend, on_device, on_device)]
            if reason := refusal(programs):
                print(f"gpu: {name} at {n} tokens left out: {reason}")
            else:
                runs[name] = programs
        runs |= flex(shape, meta)
        rows += [{"tokens": n, **row} for row in shares(medians(runs, repeats), shape, share_seen(meta))]
    return show(f"gpu: the row `train` and its like, {jax.devices()[0].device_kind}", rows)


def shortened(meta: Mapping, n: int) -> dict[str, np.ndarray]:
    """A row of n tokens with the same proportions: every so-manieth token of a longer one."""
    return {f: np.ascontiguousarray(x[:, :: x.shape[1] // n]) for f, x in meta.items()}


def refusal(programs: list[Callable]) -> str:
    """Why a contestant cannot run here, in a line; empty if it can."""
    try:
        for run in programs:
            run()
    except Exception as error:  # whatever XLA, cuDNN or Triton raise: the others still run
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def shares(seconds: Mapping, shape: specs.Shape, seen: float) -> list[dict]:
    kind = jax.devices()[0].device_kind
    peak = next((flops for name, flops in PEAK.items() if name in kind), float("nan"))
    rows = []
    for i, what in enumerate(PASSES):
        useful = FLOPS_A_PAIR[what] * shape.heads * shape.head_dim * seen * shape.nq**2
        for name, pair in seconds.items():
            row = {"contestant": name, "pass": what, "ms": 1e3 * pair[i], "share of peak": useful / pair[i] / peak}
            rows.append(row | ({"times ours": pair[i] / seconds["ours"][i]} if "ours" in seconds else {}))
    return rows


def flex(shape: specs.Shape, meta: Mapping) -> dict[str, list[Callable]]:
    """PyTorch's flex_attention with the attention mask as its mask, where torch with CUDA is there."""
    try:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    except ImportError:
        print("gpu: flex_attention left out, there is no torch")
        return {}
    if not torch.cuda.is_available():
        print("gpu: flex_attention left out, torch has no CUDA")
        return {}
    tokens = {f: torch.tensor(x[0], device="cuda") for f, x in meta.items()}

    def sees(b, h, q, k):
        return mask_mod({f: x[q] for f, x in tokens.items()}, {f: x[k] for f, x in tokens.items()})

    q, k, v = (
        torch.randn(x[0], x[2], x[1], x[3], device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for x, _ in specs.arrays(shape)
    )
    mask = create_block_mask(sees, None, None, shape.nq, shape.nk, device="cuda")
    attend = torch.compile(flex_attention)

    def forward():
        total = attend(q, k, v, block_mask=mask, enable_gqa=True).float().sin().sum()
        torch.cuda.synchronize()
        return total

    def backward():
        torch.autograd.grad(forward(), (q, k, v))
        torch.cuda.synchronize()

    return {"torch flex_attention": [forward, backward]}


if __name__ == "__main__":
    config_lib.run(
        main,
        repeats="how often each contestant runs",
        json="file to write the figures to",
        aot="also compile for a TPU that is not here",
    )
