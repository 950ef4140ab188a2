"""What a device does, read from text: real programs, on CPU and as libtpu prints them, against analytic figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding, PartitionSpec
from parallel.aot import mesh_of, spec_of
from parallel.cost_model.snippets import ROWS, module

from macro.parallel.cost_model import cost_analysis as costs
from macro.parallel.cost_model.hlo import compile_and_read


def compiled(function, *shapes, dtype=jnp.float32, **options) -> costs.Costs:
    specs = [jax.ShapeDtypeStruct(shape, dtype) if isinstance(shape, tuple) else shape for shape in shapes]
    return costs.of(compile_and_read(jax.jit(function, **options).lower(*specs))[1])


# Arithmetic


def product(a, b):
    return jnp.einsum("bmk,bkn->bmn", a, b)


def squares(a, b):
    return (product(a, b).astype(jnp.float32) ** 2).sum()


def test_products_and_their_gradients():
    assert compiled(lambda a, b: a @ b, (64, 32), (32, 48)).flops == 2 * 64 * 32 * 48
    once = 2 * 3 * 64 * 32 * 48
    assert compiled(product, (3, 64, 32), (3, 32, 48)).flops == once
    assert compiled(jax.grad(squares, argnums=(0, 1)), (3, 64, 32), (3, 32, 48)).flops == 3 * once


def stack(weights, x, layer=lambda x, w: (jnp.tanh(x @ w), None)):
    return lax.scan(layer, x, weights)[0]


def test_a_scan_counts_every_layer():
    found = compiled(stack, (7, 64, 64), (32, 64))
    assert found.flops == 7 * 2 * 32 * 64 * 64 and list(found.loops.values()) == [7] and found.unknown == ()


def test_gradients_and_remat():
    once = 7 * 2 * 32 * 64 * 64
    grad = jax.grad(lambda w, x: stack(w, x).sum(), argnums=(0, 1))
    assert compiled(grad, (7, 64, 64), (32, 64)).flops == 3 * once
    layer = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
    again = jax.grad(lambda w, x: (stack(w, x, layer) ** 2).sum(), argnums=(0, 1))
    assert compiled(again, (7, 64, 64), (32, 64)).flops == 4 * once


def test_nested_scans_multiply():
    def outer(weights, x):
        return lax.scan(lambda x, w: (stack(w, x), None), x, weights)[0]

    found = compiled(outer, (5, 7, 64, 64), (32, 64))
    assert found.flops == 35 * 2 * 32 * 64 * 64 and sorted(found.loops.values()) == [5, 7]


def test_a_loop_without_known_end_is_named():
    found = compiled(lambda x: lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ x, x), (64, 64))
    assert found.flops == 2 * 64**3 and list(found.loops.values()) == [None]
    assert len(found.unknown) == 1 and "rounds not known, counted once" in found.unknown[0]


def test_the_dearest_branch_is_taken():
    found = compiled(lambda i, x: lax.switch(i, [lambda x: x, lambda x: x @ x @ x, lambda x: x @ x], x),
                     jax.ShapeDtypeStruct((), jnp.int32), (64, 64))
    assert found.flops == 2 * 2 * 64**3


CONVOLUTIONS = [
    ((2, 9, 8, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), padding="SAME")),
    ((2, 9, 8, 4), (3, 2, 4, 6), dict(window_strides=(2, 3), padding=((1, 2), (0, -1)))),
    ((2, 9, 8, 4), (3, 2, 4, 6), dict(window_strides=(3, 2), padding=((4, 1), (2, 0)), lhs_dilation=(2, 3),
                                      rhs_dilation=(2, 1))),
    ((2, 9, 8, 4), (3, 3, 2, 6), dict(window_strides=(1, 1), padding="VALID", feature_group_count=2)),
    ((4, 9, 8, 4), (3, 3, 4, 6), dict(window_strides=(1, 1), padding="VALID", batch_group_count=2)),
]


def convolution(options: dict):
    return lambda x, w: lax.conv_general_dilated(x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options)


def products(left, right, options) -> int:
    """Multiplications of a convolution: of ones, each output is the number of its products."""
    return int(np.asarray(convolution(options)(jnp.ones(left), jnp.ones(right)), np.float64).sum())


@pytest.mark.parametrize("left, right, options", CONVOLUTIONS)
def test_convolutions_count_what_meets_no_padding(left, right, options):
    assert compiled(convolution(options), left, right).flops == 2 * products(left, right, options)


def test_a_product_written_as_a_dilated_convolution():
    found = module(
        "%a = bf16[8,512,256]{2,1,0} parameter(0)",
        "%b = bf16[8,256,384]{2,1,0} parameter(1)",
        "ROOT %c = bf16[8,512,384]{2,1,0} convolution(%a, %b), window={size=8 stride=7 lhs_dilate=8}, "
        "dim_labels=0bf_0io->0bf",
    )
    assert found.flops == 2 * 8 * 512 * 256 * 384


def test_a_scan_reads_each_layer_once():
    found = compiled(stack, (50, 64, 64), (32, 64))
    weights, state = 50 * 64 * 64 * 4, 50 * 32 * 64 * 4
    assert weights < found.hbm_bytes < 4 * weights + 12 * state


# Kernels and foreign calls


def kernel(config: str) -> costs.Costs:
    return module(f"%a = {ROWS} parameter(0)", f"ROOT %adder.7 = {ROWS} custom-call(%a), "
                  f'custom_call_target="tpu_custom_call", metadata={{op_name="jit(f)/adder"}}, backend_config={config}')


def test_a_kernel_costs_what_it_declares():
    found = kernel('{"custom_call_config":{"body":"x","cost_estimate":{"flops":"123","bytes_accessed":"45"}}}')
    assert (found.flops, found.kernel_flops, found.hbm_bytes) == (123, 123, 45)
    assert found.kernels == {"adder": 1} and found.unknown == ()


def test_a_kernel_that_declares_nothing_is_named():
    found = kernel('{"custom_call_config":{"body":"x"}}')
    assert (found.flops, found.hbm_bytes) == (0, 1024)
    assert found.unknown == ("kernel adder.7 (jit(f)/adder): no declared cost",)


def test_foreign_calls_are_named():
    found = module(f"%a = {ROWS} parameter(0)", f'ROOT %c = {ROWS} custom-call(%a), custom_call_target="matmul"')
    assert found.unknown == ("custom call matmul: arithmetic not known",)


# What libtpu prints


@pytest.mark.aot_tpu
def test_tpu_scan_of_divided_layers():
    mesh = mesh_of("v5e:2x2", {"data": 4})
    weights = spec_of(mesh, (7, 1024, 1024), jnp.bfloat16, None, "data")
    x = spec_of(mesh, (4096, 1024), jnp.bfloat16, "data")
    found = compiled(stack, weights, x)
    assert found.flops == 7 * 2 * 1024**3
    assert found.collective_bytes == {"all-gather": 7 * 3 * 1024 * 1024 * 2 // 4}
    assert list(found.loops.values()) == [7] and found.unknown == ()
    # Of HBM: a quarter of each layer, the input, the output; scalars aside, all else stays on the chip.
    moved = 7 * 1024 * 256 * 2 + 2 * 1024 * 1024 * 2
    assert moved <= found.hbm_bytes < 1.02 * moved


@pytest.mark.aot_tpu
def test_tpu_gradient_divides_the_sum():
    mesh = mesh_of("v5e:2x2", {"data": 4})
    weights, x = spec_of(mesh, (1024, 1024), jnp.bfloat16, "data"), spec_of(mesh, (4096, 1024), jnp.bfloat16, "data")

    def loss(w, x):
        return ((x @ w).astype(jnp.float32) ** 2).sum()

    found = compiled(jax.grad(loss), weights, x, out_shardings=NamedSharding(mesh, PartitionSpec("data")))
    assert found.flops == 2 * 2 * 1024**3
    share = 3 * 1024 * 1024 * 2 // 4
    assert found.collective_bytes == {"all-gather": share, "reduce-scatter": share}


@pytest.mark.aot_tpu
def test_tpu_products_as_convolutions():
    mesh = mesh_of("v5e:2x2", {"one": 1})
    a, b = spec_of(mesh, (8, 512, 256), jnp.bfloat16), spec_of(mesh, (8, 256, 384), jnp.bfloat16)
    once = 2 * 8 * 512 * 256 * 384
    assert compiled(product, a, b).flops == once
    assert compiled(jax.grad(squares, argnums=(0, 1)), a, b).flops == 3 * once


@pytest.mark.aot_tpu
@pytest.mark.parametrize("left, right, options", CONVOLUTIONS)
def test_tpu_convolutions(left, right, options):
    mesh = mesh_of("v5e:2x2", {"one": 1})
    found = compiled(convolution(options), spec_of(mesh, left, jnp.float32), spec_of(mesh, right, jnp.float32))
    assert found.flops == 2 * products(left, right, options)


@pytest.mark.aot_tpu
def test_tpu_kernels():
    mesh = mesh_of("v5e:2x2", {"one": 1})
    x = spec_of(mesh, (512, 256), jnp.float32)

    def body(a, o):
        o[...] = a[...] * 2

    def double(x, cost=None):
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(body, out_shape=out, cost_estimate=cost, name="double")(x)

    cost = pl.CostEstimate(flops=1234, bytes_accessed=5678, transcendentals=9)
    found = compiled(lambda x: lax.scan(lambda x, _: (double(x, cost), None), x, length=5)[0], x)
    assert (found.flops, found.kernel_flops, found.kernels) == (5 * 1234, 5 * 1234, {"double": 5})
    assert found.hbm_bytes >= 5 * 5678 and found.unknown == ()
    assert [what.split()[0] for what in compiled(double, x).unknown] == ["kernel"]
