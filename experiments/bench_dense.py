"""The gradient of a gated MLP on this machine: `macro.nn.layers.Dense` and JAX's own derivative, side by side.

python experiments/bench_dense.py [--rounds=9]

The MLPs of configs/demo.py's six layers over one batch of its text and vision tokens, float32. The contestants take
turns; medians, and the ratio to JAX's.
"""

import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

from macro.nn.layers import Dense
from macro.utils import config as config_lib

LAYERS, TOKENS, WIDTH, HIDDEN = 6, (4, 784), 192, 512


class Block(nn.Module):
    """x + down(silu(gate y) * up y), y = norm(x)."""

    ours: bool

    @nn.compact
    def __call__(self, x):
        dense = Dense if self.ours else nn.Dense
        y = nn.RMSNorm()(x)
        gate, up = (dense(HIDDEN, False, name=name)(y) for name in ("gate", "up"))
        return x + dense(WIDTH, False, name="down")(nn.silu(gate) * up), None


def main(rounds: int = 9) -> None:
    x = jax.random.normal(jax.random.key(0), (*TOKENS, WIDTH))
    runs, seconds = {}, {"jax": [], "ours": []}
    for name in seconds:
        net = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)(name == "ours")
        params = net.init(jax.random.key(1), x)
        gradient = jax.jit(jax.grad(lambda params, x, net=net: jnp.sum(jnp.square(net.apply(params, x)[0]))))
        runs[name] = lambda gradient=gradient, params=params: jax.block_until_ready(gradient(params, x))
        runs[name]()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(f"{name:5s} {1e3 * median:7.1f} ms  {statistics.median(seconds['jax']) / median:.2f}x")


if __name__ == "__main__":
    config_lib.run(main, rounds="how often each is run")
