"""What both Pallas kernels of attention have to do, by Pallas' interpreter against the definition.

Nothing here shows that one compiles: `test_attention_tpu.py`, `test_attention_gpu.py`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_attention import biases, inputs, random_meta

from macro.kernels.attention import pallas_gpu, pallas_tpu
from macro.kernels.attention.reference import attention_reference

# The kernel, and sizes of its blocks (queries 16 or 32, keys 8 or 16) with which short rows have many.
_GPU = {"FORWARD": (32, 16), "BACKWARD": (16, 16)}
KERNELS = {
    "tpu": (lambda *x: pallas_tpu.attention_tpu(*x, interpret=True)[0], pallas_tpu, {"QUERIES": 16, "KEYS": 8}),
    "gpu": (lambda *x: pallas_gpu.attention_gpu(*x, interpret=True)[0], pallas_gpu, _GPU),
}


def definition(*given):
    return attention_reference(*given)[0]


@pytest.fixture(params=KERNELS)
def interpreted(request, monkeypatch):
    kernel, module, sizes = KERNELS[request.param]
    for name, size in sizes.items():
        monkeypatch.setattr(module, name, size)
    return kernel


@functools.cache
def differentiated(backend):
    """Compiled once for each of the shapes that tests share: compiling is what takes their time."""

    def total(*given):
        out = backend(*given)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))


def values_and_slopes(backend, q, k, v, q_meta, k_meta, bias=None):
    (_, out), slopes = differentiated(backend)(q, k, v, q_meta, k_meta, bias)
    return out, *slopes


def sentences(length, samples, mode=0, b=1):
    """Rows of equally long samples, each one span."""
    n = np.arange(length * samples)
    fields = {
        "segment_ids": n // length,
        "token_index": n % length,
        "block_id": n // length,
        "mask_mode": np.full_like(n, mode),
    }
    return {name: jnp.asarray(np.tile(x, (b, 1)), jnp.int32) for name, x in fields.items()}


@pytest.mark.parametrize(
    ("b", "nq", "nk", "heads", "groups", "d", "biased"),
    [(2, 61, 61, 6, 2, 8, True), (1, 5, 43, 4, 4, 48, False), (1, 70, 37, 3, 1, 136, False)],
    ids=["packed, a bias", "few queries", "wide heads"],
)
def test_values_and_gradients(interpreted, b, nq, nk, heads, groups, d, biased):
    arrays = inputs(0, b, nq, nk, heads, groups, d)
    meta = random_meta(np.random.default_rng(0), b, max(nq, nk))
    metas = {name: x[:, -nq:] for name, x in meta.items()}, {name: x[:, :nk] for name, x in meta.items()}
    bias = biases(0, b, nk) if biased else None
    ours = values_and_slopes(interpreted, *arrays, *metas, bias)
    theirs = values_and_slopes(definition, *arrays, *metas, bias)
    for name, a, b, atol in zip("oqkv", ours, theirs, (2e-6, 2e-5, 2e-5, 2e-5), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, err_msg=name)


def test_bfloat16(interpreted):
    arrays = [x.astype(jnp.bfloat16) for x in inputs(1, 1, 40, 40, 2, 1, 16)]
    meta = random_meta(np.random.default_rng(1), 1, 40)
    ours = values_and_slopes(interpreted, *arrays, meta, meta)
    exact = values_and_slopes(definition, *(x.astype(jnp.float32) for x in arrays), meta, meta)
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        # Weights, queries, slopes and results are each rounded to 8 bits.
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.02 * float(jnp.max(jnp.abs(b))))


def test_pairs_of_blocks_that_are_left_out_are_not_touched(interpreted):
    """Other sentences' keys, values, queries may hold anything, infinities too, and slopes stay finite."""
    q, k, v = inputs(5, 1, 48, 48, 2, 1, 8)
    meta = sentences(16, 3)
    slopes = values_and_slopes(definition, q, k, v, meta, meta)
    spoilt = [x.at[:, 32:].set(jnp.inf) for x in (q, k, v)]
    for a, b in zip(values_and_slopes(interpreted, *spoilt, meta, meta), slopes, strict=True):
        np.testing.assert_allclose(a[:, :32], b[:, :32], atol=2e-5)


def test_queries_that_see_nothing_get_zeros(interpreted):
    q, k, v = inputs(6, 1, 48, 48, 2, 1, 8)
    meta = sentences(16, 3)
    strangers = meta | {"segment_ids": meta["segment_ids"].at[:, 16:].add(7)}
    out, d_q, *_ = values_and_slopes(interpreted, q, jnp.full_like(k, jnp.nan), v, strangers, meta)
    assert not np.any(out[:, 16:]) and not np.any(d_q[:, 16:])


def test_under_scan_and_remat(interpreted):
    q, k, v = inputs(7, 1, 33, 33, 2, 1, 8)
    meta = random_meta(np.random.default_rng(7), 1, 33)

    def total(backend):
        @jax.checkpoint
        def layer(x, scale):
            return x + backend(x * scale, k, v, meta, meta), None

        return lambda q: jnp.sum(jnp.sin(jax.lax.scan(layer, q, jnp.array([0.5, 2.0]))[0]))

    ours, theirs = (jax.jit(jax.grad(total(backend)))(q) for backend in (interpreted, definition))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
