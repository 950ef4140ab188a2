"""The GPU kernel, lowered for CUDA on a machine without a GPU, and the order of backends.

Its numbers, by Pallas' interpreter: `test_attention_pallas.py`.
Nothing here shows that it is right or fast on a GPU; what each check does show stands in its docstring.
"""

import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_attention import inputs

from macro.kernels.attention import api, pallas_gpu, pallas_tpu, specs
from macro.kernels.attention.api import warn_once
from macro.kernels.attention.block_mask import stack_fields, visible_block_pairs
from macro.kernels.attention.pallas_gpu import attention_gpu
from macro.kernels.attention.reference import attention_reference
from macro.sentence.attention_mask import MASK_FIELDS, mask_mod

KERNELS = ["macro_attention_forward", "macro_attention_dq", "macro_attention_dkv"]
SMALL = specs.Shape(1, 300, 700, 6, 2, 48, "float32")
LOWERED = {name: specs.SHAPES[name] for name in ("denoise", "plan", "vision")} | {
    "train": specs.SHAPES["train"].of(8192), "small, float32": SMALL, "wide heads": SMALL._replace(head_dim=256),
}  # fmt: skip


def test_the_block_mask_lists_partial_blocks_first():
    pairs = jnp.array([[[0, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]]], bool)
    full = jnp.zeros((1, 3, 4), bool).at[0, 0, 1].set(True).at[0, 1, 2].set(True).at[0, 2].set(True)
    indices, counts = pallas_gpu._block_mask(pairs, full)
    assert counts[0].tolist() == [[2, 3], [0, 0], [0, 2]]
    assert [row[:end].tolist() for row, (_, end) in zip(indices[0], counts[0], strict=True)] == [[2, 3, 1], [], [0, 3]]
    assert int(jnp.max(indices)) < 4 and int(jnp.min(indices)) >= 0


@pytest.mark.parametrize("name", ["train", "prefill", "vision"])
def test_named_rows_are_packed_rows_in_which_little_is_visited(name):
    shape, meta = specs.SHAPES[name], specs.row(name)
    assert all(meta[field].shape == (1, shape.nq) for field in MASK_FIELDS)
    fields = stack_fields({field: jnp.asarray(x) for field, x in meta.items()}, 128)
    pairs, full = visible_block_pairs(fields, fields, 128, 128)
    some = {field: x[0, ::61, None] for field, x in meta.items()}
    seen = np.mean(mask_mod(some, meta))
    # Blocks hold up to a fifth more pairs than are seen, short sentences (of ViT's one image each) a half more.
    assert seen <= float(jnp.mean(pairs)) < seen * (1.5 if name == "vision" else 1.2)
    assert float(jnp.mean(full & pairs)) > 0.6 * float(jnp.mean(pairs))


def given(shape):
    """Shapes of q, k, v, the metadata of both sides and the keys' bias."""
    arrays = [jax.ShapeDtypeStruct(*x) for x in specs.arrays(shape)]
    metas = [{f: jax.ShapeDtypeStruct((shape.b, n), jnp.int32) for f in MASK_FIELDS} for n in (shape.nq, shape.nk)]
    return *arrays, *metas, jax.ShapeDtypeStruct((shape.b, shape.nk), jnp.float32)


def gradients(q, k, v, *rest):
    return jax.grad(lambda *x: jnp.sum(attention_gpu(*x, *rest)[0].astype(jnp.float32)), (0, 1, 2))(q, k, v)


@pytest.mark.parametrize("name", ["train", "denoise"])
def test_no_array_grows_with_the_product_of_the_tokens(name):
    shape = specs.SHAPES[name]
    shapes = re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", str(jax.make_jaxpr(gradients)(*given(shape))))
    largest = max(math.prod(x.shape) for x in given(shape)[:2])
    padded = largest + shape.b * 64 * shape.heads * shape.head_dim  # up to whole blocks of queries
    assert largest <= max(math.prod(map(int, found.split(","))) for found in shapes) <= padded
    assert padded < shape.b * shape.nq * shape.nk * shape.heads / 100


def kernels_of(lowered) -> dict:
    """Kernel -> (grid, warps, stages, its Triton IR) of a program lowered for CUDA.

    Reading the bytecode verifies it: MLIR checks types, shapes and regions of every operation.
    """
    from jax._src.pallas.triton.lowering import _new_ir_context
    from jaxlib.mlir import ir

    found = {}

    def visit(operation):
        if operation.name == "stablehlo.custom_call" and "triton" in str(operation.attributes["call_target_name"]):
            config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
            grid = tuple(ir.IntegerAttr(config[f"grid_{axis}"]).value for axis in "xyz")
            warps, stages = (ir.IntegerAttr(config[f"num_{what}"]).value for what in ("warps", "stages"))
            with _new_ir_context():
                text = str(ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes))
            found[ir.StringAttr(config["name"]).value] = grid, warps, stages, text
        return ir.WalkResult.ADVANCE

    lowered.compiler_ir().operation.walk(visit)
    return found


def lowered_for_cuda(shape):
    return kernels_of(jax.jit(gradients).trace(*given(shape)).lower(lowering_platforms=("cuda",)))


@pytest.mark.parametrize("name", LOWERED)
def test_lowers_to_triton(name):
    """Forward and backward pass become valid Triton IR with the grid that they should have.

    Without a GPU JAX lowers for compute capability 9.0, and `lower` goes as far as Triton's own IR, one bytecode module
    a kernel. That refuses operations and dtypes that Pallas has no Triton form of, arrays whose size is no power of two
    and mismatched types. It does not run Triton's passes: layouts, shared memory, registers and machine code are
    `test_compiles_for_an_h100`'s.
    """
    shape = LOWERED[name]
    kernels = lowered_for_cuda(shape)
    assert sorted(kernels) == sorted(KERNELS)
    b, nq, nk, h, kv, d, dtype = shape
    config = pallas_gpu._kernel_config(pallas_gpu.BACKWARD, (b, nq, h, nk, kv, d), jnp.dtype(dtype), False)
    assert kernels["macro_attention_dq"][0] == (-(-nq // config.queries), h, b)
    assert kernels["macro_attention_dkv"][0] == (-(-nk // config.keys), kv, b)
    for _, _, _, text in kernels.values():
        # One loop that masks pair by pair, by six comparisons, and one that does not.
        assert [loop.count("arith.cmpi") for loop in text.split("scf.for")[1:]] == [6, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", LOWERED)
def test_compiles_for_an_h100(name, tmp_path):
    """Triton's compiler and ptxas, from the PyPI wheel `triton`, turn the IR into code that fits an H100.

    That is Triton 3.9 for jaxlib 0.10.2, whose XLA has a Triton of its own: close, not the same. No GPU is needed; the
    wheel (290 MB) is in no extra of ours and the test is skipped without it.
    """
    triton = pytest.importorskip("triton", reason="compiling Triton's IR needs the triton wheel")
    from triton.backends.compiler import GPUTarget

    for kernel, (_, warps, stages, text) in lowered_for_cuda(LOWERED[name]).items():
        source = tmp_path / f"{kernel}.ttir"
        source.write_text(text)
        options = {"num_warps": warps, "num_stages": stages}
        compiled = triton.compile(str(source), target=GPUTarget("cuda", 90, 32), options=options)
        assert compiled.metadata.shared <= 227 * 1024
        # wgmma multiplies on the tensor cores of Hopper; blocks of 32 queries are too small for it, float32 too exact.
        tensor_cores = re.search(r"wgmma\.mma_async|mma\.sync", compiled.asm["ptx"])
        assert bool(tensor_cores) == (LOWERED[name].dtype == "bfloat16")
        assert "cp.async" in compiled.asm["ptx"]


class TestOrderOfBackends:
    def large(self, d):
        q, k, v = (jax.ShapeDtypeStruct((1, 300, 2, d), jnp.float32) for _ in range(3))
        meta = {f: jax.ShapeDtypeStruct((1, 300), jnp.int32) for f in MASK_FIELDS}
        return q, k, v, meta, meta

    def traced(self, *given):
        return str(jax.make_jaxpr(lambda *given: api.attention(*given))(*given))  # anew, not from a cache

    def test_what_triton_cannot_run_goes_to_the_next_and_is_said_once(self, monkeypatch):
        monkeypatch.setattr(api, "platform", lambda: "gpu")
        warn_once.cache_clear()
        with pytest.warns(UserWarning, match="attention_gpu cannot run this.*264 values"):
            traced = self.traced(*self.large(264))
        assert "while" in traced and "pallas_call" not in traced
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.traced(*self.large(264))
            assert "macro_attention_forward" in self.traced(*self.large(64))

    @pytest.mark.parametrize(("capability", "runs"), [("7.5", False), ("8.9", True), ("10.0", True), ("gfx90a", True)])
    def test_old_devices_are_named(self, monkeypatch, capability, runs):
        device = type("Device", (), {"compute_capability": capability})()
        monkeypatch.setattr(jax, "local_devices", lambda: [device])
        reason = pallas_gpu.unsupported_reason(*inputs(0, 1, 4, 4, 1, 1, 8)[:2])
        assert (reason is None) == runs
        assert runs or capability in reason

    @pytest.mark.parametrize(("b", "runs"), [(1, True), (64, False)])
    def test_lists_too_long_for_a_tpu_are_named(self, b, runs):
        reasons, (q, k, *_) = [], given(specs.SHAPES["train"]._replace(b=b))
        jax.eval_shape(lambda *x: reasons.append(pallas_tpu.unsupported_reason(*x)), q, k)
        assert (reasons == [None]) if runs else "131,072 pairs" in reasons[0]

    def test_the_definition_is_not_what_anything_falls_back_to(self):
        for backends in api.BACKENDS.values():
            last_reason = backends[-1][1]
            assert last_reason(*inputs(0, 1, 4, 4, 1, 1, 8)[:2]) is None
            assert attention_reference not in [run for run, _ in backends]
