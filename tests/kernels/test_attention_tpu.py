"""The TPU kernel, compiled ahead of time for real chips. Its numbers: `test_attention_pallas.py`."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from parallel.aot import mesh_of, spec_of

from macro.kernels.attention import specs
from macro.kernels.attention.pallas_tpu import attention_tpu
from macro.parallel.cost_model.hlo import compile_and_read
from macro.sentence.attention_mask import MASK_FIELDS

KERNELS = {"macro_attention_forward": 4, "macro_attention_dq": 6, "macro_attention_dkv": 8}  # operations a pair


def test_no_array_grows_with_the_square_of_the_tokens():
    n, h, d = 32768, 2, 128
    q, k, v = (jax.ShapeDtypeStruct((1, n, h, d), jnp.bfloat16) for _ in range(3))
    meta = {name: jax.ShapeDtypeStruct((1, n), jnp.int32) for name in MASK_FIELDS}

    def gradients(q, k, v, meta):
        return jax.grad(lambda *x: jnp.sum(attention_tpu(*x, meta, meta)[0].astype(jnp.float32)), (0, 1, 2))(q, k, v)

    traced = str(jax.make_jaxpr(gradients)(q, k, v, meta))
    assert all(name in traced for name in KERNELS)
    shapes = re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", traced)
    assert max(math.prod(map(int, shape.split(","))) for shape in shapes) == n * h * d


def compiled_for(topology, shape, backward):
    """(compiled program, its text) of the kernel on one chip."""
    mesh = mesh_of(topology, {"x": 1})
    q, k, v = (spec_of(mesh, *x) for x in specs.arrays(shape))
    metas = ({name: spec_of(mesh, (shape.b, n), jnp.int32) for name in MASK_FIELDS} for n in (shape.nq, shape.nk))

    def gradients(q, k, v, *metas):
        return jax.grad(lambda *x: jnp.sum(attention_tpu(*x, *metas)[0].astype(jnp.float32)), (0, 1, 2))(q, k, v)

    return compile_and_read(jax.jit(gradients if backward else attention_tpu).lower(q, k, v, *metas))


def told_costs(text) -> dict:
    """Kernel -> operations that its custom call is said to take."""
    calls = [line for line in text.splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    names = [re.search(r"macro_attention_[a-z]+", line)[0] for line in calls]
    return {name: int(re.search(r'"flops":"(\d+)"', line)[1]) for name, line in zip(names, calls, strict=True)}


@pytest.mark.slow
@pytest.mark.aot_tpu
@pytest.mark.parametrize(("topology", "n"), [("v5e:2x2", 4096), ("v5p:2x2x1", 8192), ("v6e:2x2", 6000)])
def test_compiles_for_training(topology, n):
    compiled, text = compiled_for(topology, specs.SHAPES["train"].of(n), backward=True)
    assert told_costs(text) == {name: operations * 28 * n * n * 128 for name, operations in KERNELS.items()}
    # Some copies of the queries (in order, their gradients), and no scores, of which one head's alone would be 4 n n.
    assert compiled.memory_analysis().temp_size_in_bytes < 10 * n * 28 * 128 * 2


@pytest.mark.slow
@pytest.mark.aot_tpu
@pytest.mark.parametrize(
    ("shape", "backward"),
    [
        (specs.SHAPES["denoise"], False),
        (specs.SHAPES["plan"], False),
        (specs.SHAPES["vision"], True),
        (specs.Shape(1, 300, 700, 6, 2, 48, "float32"), True),
    ],
    ids=["denoising", "few queries", "vision", "small, float32"],
)
def test_compiles_for_other_shapes(shape, backward):
    b, nq, nk, h, _, d, _ = shape
    _, text = compiled_for("v5e:2x2", shape, backward)
    expected = {name: operations * math.prod((b, h, nq, nk, d)) for name, operations in KERNELS.items()}
    assert told_costs(text) == {name: expected[name] for name in (KERNELS if backward else ["macro_attention_forward"])}
