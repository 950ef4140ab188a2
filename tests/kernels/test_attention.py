"""Every attention backend against a loop over tokens that knows nothing but the documented attention mask."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.kernels.attention import api
from macro.kernels.attention.api import attention, attention_with_lse, merge_partial_attention
from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.pallas_gpu import attention_gpu
from macro.kernels.attention.pallas_tpu import attention_tpu
from macro.kernels.attention.reference import MASK_VALUE, attention_mask, attention_reference
from macro.sentence.attention_mask import CAUSAL, FULL, NOISE

BACKENDS = {
    "reference": jax.jit(attention_reference),
    "blocked": jax.jit(attention_blocked),
    "api": jax.jit(attention_with_lse),
    "tpu": jax.jit(functools.partial(attention_tpu, interpret=True)),
    "gpu": jax.jit(functools.partial(attention_gpu, interpret=True)),
}


def sentence_meta():
    """a b [i i i] c d {z z z}, then two tokens of padding: the image in macro/sentence/attention_mask.py."""
    spans = [(2, CAUSAL), (3, FULL), (2, CAUSAL), (3, NOISE)]
    length = np.array([n for n, _ in spans])
    meta = {
        "segment_ids": np.zeros(10), "token_index": np.arange(10),
        "block_id": np.repeat(np.arange(4), length), "mask_mode": np.repeat([mode for _, mode in spans], length),
    }
    return {name: jnp.asarray(np.append(values, [-1, -1]), jnp.int32)[None] for name, values in meta.items()}


def random_meta(rng, b, n):
    """Packed rows: a few samples with text, image and noise spans of random lengths, tokens in random order."""
    rows = []
    for _ in range(b):
        fields = np.zeros((4, n), np.int32)
        at = span = sample = 0
        while at < n:
            length = min(int(rng.integers(1, 6)), n - at)
            sample += int(rng.random() < 0.3)
            fields[:, at : at + length] = [[sample]] * 1 + [[0], [span], [int(rng.integers(3))]]
            fields[1, at : at + length] = np.arange(at, at + length)
            at, span = at + length, span + 1
        fields[0, rng.random(n) < 0.1] = -1
        rows.append(fields[:, rng.permutation(n)])
    return {
        name: jnp.asarray(np.stack(rows)[:, i])
        for i, name in enumerate(("segment_ids", "token_index", "block_id", "mask_mode"))
    }


def loop(q, k, v, mask, bias=None):
    """Softmax attention and log-sum-exp by loops, float64."""
    bias = np.zeros(k.shape[:2]) if bias is None else bias
    q, k, v, mask, bias = (np.asarray(x, np.float64) for x in (q, k, v, mask, bias))
    out, lse = np.zeros(q.shape), np.full(q.shape[:3], MASK_VALUE)
    ratio = q.shape[2] // k.shape[2]
    for b, i, h in np.ndindex(q.shape[:3]):
        seen = np.flatnonzero(mask[b, i])
        if len(seen):
            scores = k[b, seen, h // ratio] @ q[b, i, h] / np.sqrt(q.shape[3]) + bias[b, seen]
            weights = np.exp(scores - scores.max())
            out[b, i, h] = weights @ v[b, seen, h // ratio] / weights.sum()
            lse[b, i, h] = np.log(weights.sum()) + scores.max()
    return out, lse


def biases(seed, b, n):
    """Logarithms of strengths between .1 and 3."""
    return jnp.log(jax.random.uniform(jax.random.key(seed), (b, n), minval=0.1, maxval=3.0))


def inputs(seed, b, nq, nk, heads, groups, d):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((b, nq, heads, d), (b, nk, groups, d), (b, nk, groups, d))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def test_attention_mask_is_the_documented_one():
    image = """
        x . . . . . . . . .
        x x . . . . . . . .
        x x x x x . . . . .
        x x x x x . . . . .
        x x x x x . . . . .
        x x x x x x . . . .
        x x x x x x x . . .
        x x x x x x x x x x
        x x x x x x x x x x
        x x x x x x x x x x"""
    expected = np.array([[mark == "x" for mark in row.split()] for row in image.split("\n")[1:]])
    mask = np.asarray(attention_mask(sentence_meta(), sentence_meta())[0])
    np.testing.assert_array_equal(mask[:10, :10], expected)
    assert not mask[10:].any() and not mask[:, 10:].any()


@pytest.mark.parametrize("name", BACKENDS)
class TestBackend:
    def test_values(self, name):
        rng = np.random.default_rng(0)
        q, k, v = inputs(0, 2, 37, 37, 6, 2, 8)
        meta = random_meta(rng, 2, 37)
        for bias in (None, biases(0, 2, 37)):
            found = BACKENDS[name](q, k, v, meta, meta, bias)
            for ours, exact in zip(found, loop(q, k, v, attention_mask(meta, meta), bias), strict=True):
                np.testing.assert_allclose(ours, exact, atol=2e-6, rtol=1e-6)

    def test_fewer_queries_than_keys(self, name):
        q, k, v = inputs(1, 2, 5, 23, 4, 4, 8)
        meta = random_meta(np.random.default_rng(1), 2, 23)
        last = {field: values[:, -5:] for field, values in meta.items()}
        out = BACKENDS[name](q, k, v, last, meta)[0]
        np.testing.assert_allclose(out, loop(q, k, v, attention_mask(last, meta))[0], atol=2e-6)

    def test_gradients(self, name):
        arrays = inputs(2, 1, 19, 19, 4, 2, 8)
        meta, bias = random_meta(np.random.default_rng(2), 1, 19), biases(2, 1, 19)

        def total(backend):
            def of(q, k, v, bias):
                attended, lse = backend(q, k, v, meta, meta, bias)
                return jnp.sum(jnp.sin(attended)) + jnp.sum(jnp.where(lse > MASK_VALUE, lse, 0))

            return of

        *ours, of_bias = jax.jit(jax.grad(total(BACKENDS[name]), (0, 1, 2, 3)))(*arrays, bias)
        *expected, _ = jax.jit(jax.grad(total(attention_reference), (0, 1, 2, 3)))(*arrays, bias)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
        assert not np.any(of_bias)

    def test_vmap(self, name):
        q, k, v = (x.reshape(3, 1, *x.shape[1:]) for x in inputs(8, 3, 21, 21, 4, 2, 8))
        meta = {field: x[:, None] for field, x in random_meta(np.random.default_rng(8), 3, 21).items()}
        whole = BACKENDS["reference"](*(x[:, 0] for x in (q, k, v)), *[{f: x[:, 0] for f, x in meta.items()}] * 2)[0]
        out = jax.jit(jax.vmap(lambda q, k, v, meta: BACKENDS[name](q, k, v, meta, meta)[0]))(q, k, v, meta)
        np.testing.assert_allclose(out[:, 0], whole, atol=2e-6)


@pytest.mark.parametrize(("nq", "nk"), [(64, 128), (130, 200)])
def test_several_blocks(nq, nk):
    q, k, v = inputs(3, 2, nq, nk, 4, 2, 8)
    meta = random_meta(np.random.default_rng(3), 2, nk)
    last = {field: values[:, -nq:] for field, values in meta.items()}

    def total(backend):
        sums = lambda q, k, v: jnp.sum(jnp.sin(backend(q, k, v, last, meta)[0]))  # noqa: E731
        return jax.jit(jax.value_and_grad(sums, (0, 1, 2)))(q, k, v)

    (ours, our_slopes), (theirs, their_slopes) = total(attention_blocked), total(attention_reference)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(our_slopes, their_slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_blocks_without_a_visible_pair_are_not_computed():
    """Keys of another sentence may hold anything, infinities too."""
    q, k, v = inputs(5, 1, 192, 192, 2, 1, 8)
    n = jnp.arange(192)
    meta = {"segment_ids": n // 64, "token_index": n, "block_id": n, "mask_mode": jnp.zeros(192, jnp.int32)}
    meta = {name: x[None].astype(jnp.int32) for name, x in meta.items()}
    spoilt = BACKENDS["blocked"](q, k.at[:, 128:].set(jnp.inf), v.at[:, 128:].set(jnp.inf), meta, meta)[0]
    np.testing.assert_allclose(spoilt[:, :128], BACKENDS["reference"](q, k, v, meta, meta)[0][:, :128], atol=2e-6)


def test_keeps_the_dtype():
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(6, 1, 70, 70, 2, 1, 8))
    meta = random_meta(np.random.default_rng(6), 1, 70)

    def total(q):
        out = attention_blocked(q, k, v, meta, meta)[0]
        return jnp.sum(out.astype(jnp.float32)), out

    (total, out), slopes = jax.jit(jax.value_and_grad(total, has_aux=True))(q)
    assert out.dtype == slopes.dtype == jnp.bfloat16
    assert jnp.isfinite(total)


def test_large_attention_on_a_cpu_takes_the_loop():
    q, k, v = inputs(4, 1, 300, 300, 2, 1, 8)
    meta = random_meta(np.random.default_rng(4), 1, 300)
    assert "while" in jax.jit(lambda *a: attention(*a, meta, meta)).lower(q, k, v).as_text()
    np.testing.assert_allclose(
        BACKENDS["api"](q, k, v, meta, meta)[0], BACKENDS["reference"](q, k, v, meta, meta)[0], atol=2e-6
    )


def test_parts_of_the_keys_are_merged_into_all_of_them():
    q, k, v = inputs(9, 2, 11, 40, 4, 2, 8)
    meta = random_meta(np.random.default_rng(9), 2, 40)
    last = {field: x[:, -11:] for field, x in meta.items()}

    @jax.jit
    def in_parts(q, k, v):
        return merge_partial_attention([
            attention_with_lse(q, k[:, a:b], v[:, a:b], last, {field: x[:, a:b] for field, x in meta.items()})
            for a, b in ((0, 3), (3, 29), (29, 40))
        ])  # fmt: skip

    for ours, whole in zip(in_parts(q, k, v), BACKENDS["api"](q, k, v, last, meta), strict=True):
        np.testing.assert_allclose(ours, whole, atol=2e-6, rtol=1e-6)


def test_what_does_not_fit_is_named_when_traced():
    q, k, v = inputs(10, 2, 10, 10, 4, 2, 8)
    meta = random_meta(np.random.default_rng(10), 2, 10)
    # Without the tests' import hook, which would refuse most of these first.
    for change, named in (
        (dict(v=jnp.zeros((2, 9, 2, 8))), "v"), (dict(q=jnp.zeros((2, 10, 3, 8))), "3 heads"),
        (dict(q=jnp.zeros((1, 10, 4, 8))), "as many rows"), (dict(k_bias=jnp.zeros((2, 9))), "k_bias"),
        (dict(k_meta={}), r"k_meta\['segment_ids'\]"), (dict(q_meta=sentence_meta()), r"q_meta\['segment_ids'\]"),
    ):  # fmt: skip
        given = dict(q=q, k=k, v=v, q_meta=meta, k_meta=meta, k_bias=None) | change
        with pytest.raises(ValueError, match=named):
            jax.eval_shape(functools.partial(api.check_inputs, "attention"), **given)


def test_a_strength_of_two_is_the_same_tokens_twice():
    """log 2 on a key's scores is the key seen twice."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(1, n, 2, 8)), jnp.float32) for n in (3, 5, 5))
    meta = {name: jnp.zeros((1, 5), jnp.int32) for name in ("segment_ids", "token_index", "block_id", "mask_mode")}
    ask = {name: values[:, :3] for name, values in meta.items()}
    bias = jnp.zeros((1, 5)).at[:, 2].set(jnp.log(2.0))
    twice = {name: jnp.concatenate([values, values[:, 2:3]], axis=1) for name, values in meta.items()}
    longer = (jnp.concatenate([x, x[:, 2:3]], axis=1) for x in (k, v))
    once = jax.jit(attention)(q, k, v, ask, meta, bias)
    np.testing.assert_allclose(once, jax.jit(attention)(q, *longer, ask, twice), atol=1e-6)
