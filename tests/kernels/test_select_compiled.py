"""Kernels of token selection, compiled ahead of time for real TPUs, lowered for GPUs, and divided over a mesh."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from parallel.aot import mesh_of, spec_of

from macro.kernels.select import api
from macro.kernels.select.pallas_gpu import column_sums_gpu, gather_gpu
from macro.kernels.select.pallas_tpu import column_sums_tpu
from macro.kernels.select.pallas_tpu_gather import gather_tpu
from macro.kernels.select.specs import SPECS
from macro.parallel.cost_model.hlo import compile_and_read
from macro.sentence.sight import FIELDS

TOPOLOGIES = ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"]
LARGE = SPECS["bagel_large"]


def scoring_specs(spec, n, heads, kv_heads, d, dtype):
    """Arguments of `column_sums` without bias; `spec(shape, dtype)` makes one array."""
    meta, tokens = {name: spec((1, n), jnp.int32) for name in FIELDS}, spec((1, n), jnp.int32)
    q, k = spec((1, n, heads, d), dtype), spec((1, n, kv_heads, d), dtype)
    return q, k, spec((1, n, heads), jnp.float32), meta, meta, tokens, tokens


def told(text, name, what) -> int:
    [line] = [x for x in text.splitlines() if 'custom_call_target="tpu_custom_call"' in x and name in x]
    return int(re.search(rf'"{what}":"(\d+)"', line)[1])


@pytest.mark.slow
@pytest.mark.aot_tpu
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("name", ["bagel", "bagel_large", "small"])
def test_scores_compile(topology, name):
    mesh = mesh_of(topology, {"x": 1})
    n, h, kv, d, dtype = 300, 6, 2, 48, jnp.float32
    if name in SPECS:
        n, _, h, kv, d, *_ = SPECS[name]
        dtype = jnp.bfloat16
    given = scoring_specs(lambda *x: spec_of(mesh, *x), n, h, kv, d, dtype)
    compiled, text = compile_and_read(jax.jit(column_sums_tpu).lower(*given))
    assert told(text, "macro_select_scores", "flops") == 2 * h * n * n * d
    if name in SPECS:
        # A copy of the queries, keys, what belongs to them, and no scores, of which one head's alone would be 4 n n.
        assert compiled.memory_analysis().temp_size_in_bytes < 1.5 * n * h * d * 2


@pytest.mark.slow
@pytest.mark.aot_tpu
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("lead", "rest", "dtype", "reads"),
    [
        (LARGE.layers, (LARGE.kv_heads, LARGE.head_dim), jnp.bfloat16, 1),
        (1, (LARGE.width,), jnp.bfloat16, 2),
        (1, (LARGE.width,), jnp.float32, 1),
    ],
    ids=["cache", "embeddings", "embeddings, float32"],
)
def test_gather_compiles_without_a_copy(topology, lead, rest, dtype, reads):
    n, k = LARGE.tokens, LARGE.tokens // 2
    mesh = mesh_of(topology, {"x": 1})
    given = ((lead, 1, n, *rest), dtype), ((1, k), jnp.int32), ((1, k), jnp.bool_)
    compiled, text = compile_and_read(jax.jit(gather_tpu).lower(*(spec_of(mesh, *x) for x in given)))
    out = compiled.memory_analysis().output_size_in_bytes
    assert told(text, "macro_select_gather", "bytes_accessed") == (1 + reads) * out
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * out


@pytest.mark.slow
@pytest.mark.aot_tpu
def test_compiles_on_a_mesh():
    axes = {"data": 1, "fsdp": 1, "fsdp_inner": 1, "sequence": 2, "tensor": 2}
    mesh = mesh_of("v5e:2x2", axes)
    given = scoring_specs(lambda *x: spec_of(mesh, *x), 1024, 28, 4, 128, jnp.bfloat16)
    with jax.set_mesh(mesh):
        text = jax.jit(api.column_sums).lower(*given).compile().as_text()
    # A device has half of the queries and half of the heads.
    assert told(text, "macro_select_scores", "flops") == 2 * 14 * 512 * 1024 * 128
    assert "all-reduce" in text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_lowers_for_cuda(dtype):
    def lowered(f, *given):
        return jax.jit(f).trace(*given).lower(lowering_platforms=("cuda",)).as_text()

    text = lowered(column_sums_gpu, *scoring_specs(jax.ShapeDtypeStruct, 1000, 28, 4, 128, dtype))
    assert "macro_select_scores" in text and "triton" in text
    shapes = ((28, 1, 1000, 4, 128), dtype), ((1, 300), jnp.int32), ((1, 300), jnp.bool_)
    text = lowered(gather_gpu, *(jax.ShapeDtypeStruct(*x) for x in shapes))
    assert "macro_select_gather" in text and "triton" in text


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType
from kernels.test_select import any_bits, case, some_kept
from macro.kernels.select import api
from macro.kernels.select.reference import as_bits, column_counts_reference, column_sums_reference, gather_reference

names = ("data", "fsdp", "fsdp_inner", "sequence", "tensor")
kept, cache = some_kept(1, 2, 64, 22), any_bits(2, (3, 2, 64, 2, 8), "bfloat16")
x = jax.random.normal(jax.random.key(0), (2, 64, 8))
axes = "layers", "batch", "tokens", "kv_heads", "head_dim"

def total(x):
    return jnp.sum(jnp.sin(api.gather(x, kept, "batch", "tokens", "width")))

slope = jax.grad(total)(x)
for shape in ((1, 1, 1, 2, 2), (2, 1, 1, 2, 1), (1, 2, 1, 1, 2)):
    for groups in (2, 1):
        given = case(0, nq=64, nk=64, groups=groups)
        with jax.set_mesh(jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * 5)):
            sums, counts = jax.jit(api.column_sums)(*given), jax.jit(api.column_counts)(*given[3:7])
            rows = jax.jit(lambda x: api.gather(x, kept, *axes))(cache)
            ours = jax.jit(jax.grad(total))(x)
        np.testing.assert_allclose(sums, column_sums_reference(*given), atol=2e-5)
        np.testing.assert_array_equal(counts, column_counts_reference(*given[3:7]))
        np.testing.assert_array_equal(as_bits(jnp.asarray(np.asarray(rows))), as_bits(gather_reference(cache, *kept)))
        np.testing.assert_allclose(ours, slope, atol=1e-6)
print("agree")
"""


@pytest.mark.slow
def test_on_meshes_of_four():
    root = Path(__file__).resolve().parents[2]
    there = {
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=os.environ | there, capture_output=True, text=True)
    assert done.stdout.split() == ["agree"], done.stderr
