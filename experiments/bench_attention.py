"""Attention over packed rows on this machine: our backends and jax.nn.dot_product_attention, side by side.

python experiments/bench_attention.py [--rounds=9]

One batch of configs/demo.py's rows (4 rows of 1,168 tokens, three sentences each, 4 heads of 48, 2 key heads),
float32, forward and backward. The contestants take turns; medians, and the ratio to the dense definition.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.reference import attention_reference, sight_mask
from macro.models.variants import LLMConfig
from macro.objectives.parts import model_config
from macro.training import data
from macro.training.loop import mesh_of
from macro.utils import config as config_lib


def batch_meta() -> tuple[dict, LLMConfig]:
    """Metadata `[4, n]` of all tokens of one batch, and the sizes of its model."""
    config = config_lib.load("configs/demo.py:smoke")
    with config.unlocked():
        config.batch_size, config.data.workers = 4, 0
    model = model_config(config)
    tokenizer, packing = data.tokenizer_of(config, model), data.packing_config(config, model)
    batch = next(data.batches(config, data.stored(config), tokenizer, packing, mesh_of(config)))
    streams = [batch[name] for name in ("text", "vision", "latent")]
    fields = ("sample", "order", "span", "mode")
    return {f: jnp.asarray(np.concatenate([s[f] for s in streams], axis=1)) for f in fields}, model.llm


def attention_jax(q, k, v, q_meta, k_meta):
    """The library's attention, given the mask that the rule of sight makes."""
    mask = sight_mask(q_meta, k_meta)[:, None]
    attended = jax.nn.dot_product_attention(q, k, v, mask=mask)
    return jnp.where(jnp.any(mask, axis=-1)[:, 0, :, None, None], attended, 0.0)


def main(rounds: int = 9) -> None:
    meta, llm = batch_meta()
    b, n = meta["sample"].shape
    heads = {"q": llm.heads, "k": llm.kv_heads, "v": llm.kv_heads}
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (b, n, h, llm.head_dim)) for key, h in zip(keys, heads.values(), strict=True)]
    mask = sight_mask(meta, meta)
    print(f"{b} rows of {n} tokens, {float(jnp.mean(mask)):.3f} of the pairs visible, {jax.devices()[0].device_kind}")

    backends = {"dense definition": attention_reference, "jax.nn": attention_jax, "blocked": attention_blocked}
    runs, seconds = {}, {name: ([], []) for name in backends}
    for name, backend in backends.items():
        forward = jax.jit(lambda q, k, v, backend=backend: jnp.sum(jnp.sin(backend(q, k, v, meta, meta))))
        runs[name] = forward, jax.jit(jax.grad(forward, (0, 1, 2)))
        jax.block_until_ready([run(*arrays) for run in runs[name]])
    for _ in range(rounds):
        for name in backends:
            for run, taken in zip(runs[name], seconds[name], strict=True):
                start = time.perf_counter()
                jax.block_until_ready(run(*arrays))
                taken.append(time.perf_counter() - start)
    medians = {name: [statistics.median(taken) for taken in pair] for name, pair in seconds.items()}
    slowest = medians["dense definition"]
    print(f"{'':20}{'forward':>20}{'forward, backward':>20}")
    for name, pair in medians.items():
        cells = (f"{1e3 * m:.0f} ms ({s / m:.1f}x)" for m, s in zip(pair, slowest, strict=True))
        print(f"{name:20}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    config_lib.run(main, rounds="how often each is run")
