"""Every attention backend against a loop over tokens that knows nothing but the rule of sight's picture."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.kernels.attention.api import attention
from macro.kernels.attention.blocked import attention_blocked
from macro.kernels.attention.pallas_tpu import attention_tpu
from macro.kernels.attention.reference import attention_reference, sight_mask
from macro.sentence.sight import CAUSAL, FULL, NOISE

BACKENDS = {
    "reference": attention_reference,
    "blocked": attention_blocked,
    "api": attention,
    "tpu": jax.jit(functools.partial(attention_tpu, interpret=True)),
}


def sentence_meta():
    """a b [i i i] c d {z z z}, then two tokens of padding: the picture in macro/sentence/sight.py."""
    spans = [(2, CAUSAL), (3, FULL), (2, CAUSAL), (3, NOISE)]
    length = np.array([n for n, _ in spans])
    meta = {
        "sample": np.zeros(10), "order": np.arange(10),
        "span": np.repeat(np.arange(4), length), "mode": np.repeat([mode for _, mode in spans], length),
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
    return {name: jnp.asarray(np.stack(rows)[:, i]) for i, name in enumerate(("sample", "order", "span", "mode"))}


def loop(q, k, v, mask):
    """Softmax attention by loops, float64."""
    q, k, v, mask = (np.asarray(x, np.float64) for x in (q, k, v, mask))
    out = np.zeros(q.shape)
    ratio = q.shape[2] // k.shape[2]
    for b, i, h in np.ndindex(q.shape[:3]):
        seen = np.flatnonzero(mask[b, i])
        if len(seen):
            scores = k[b, seen, h // ratio] @ q[b, i, h] / np.sqrt(q.shape[3])
            weights = np.exp(scores - scores.max())
            out[b, i, h] = weights @ v[b, seen, h // ratio] / weights.sum()
    return out


def inputs(seed, b, nq, nk, heads, groups, d):
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((b, nq, heads, d), (b, nk, groups, d), (b, nk, groups, d))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def test_rule_of_sight_is_the_documented_picture():
    picture = """
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
    expected = np.array([[mark == "x" for mark in row.split()] for row in picture.split("\n")[1:]])
    mask = np.asarray(sight_mask(sentence_meta(), sentence_meta())[0])
    np.testing.assert_array_equal(mask[:10, :10], expected)
    assert not mask[10:].any() and not mask[:, 10:].any()


@pytest.mark.parametrize("name", BACKENDS)
class TestBackend:
    def test_values(self, name):
        rng = np.random.default_rng(0)
        q, k, v = inputs(0, 2, 37, 37, 6, 2, 8)
        meta = random_meta(rng, 2, 37)
        out = BACKENDS[name](q, k, v, meta, meta)
        np.testing.assert_allclose(out, loop(q, k, v, sight_mask(meta, meta)), atol=2e-6)

    def test_fewer_queries_than_keys(self, name):
        q, k, v = inputs(1, 2, 5, 23, 4, 4, 8)
        meta = random_meta(np.random.default_rng(1), 2, 23)
        last = {field: values[:, -5:] for field, values in meta.items()}
        out = BACKENDS[name](q, k, v, last, meta)
        np.testing.assert_allclose(out, loop(q, k, v, sight_mask(last, meta)), atol=2e-6)

    def test_gradients(self, name):
        arrays = inputs(2, 1, 19, 19, 4, 2, 8)
        meta = random_meta(np.random.default_rng(2), 1, 19)

        def total(backend):
            return lambda q, k, v: jnp.sum(jnp.sin(backend(q, k, v, meta, meta)))

        ours = jax.grad(total(BACKENDS[name]), (0, 1, 2))(*arrays)
        expected = jax.grad(total(attention_reference), (0, 1, 2))(*arrays)
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(("nq", "nk"), [(150, 150), (64, 128), (130, 200)])
def test_several_blocks(nq, nk):
    q, k, v = inputs(3, 2, nq, nk, 4, 2, 8)
    meta = random_meta(np.random.default_rng(3), 2, nk)
    last = {field: values[:, -nq:] for field, values in meta.items()}

    def total(backend):
        return lambda q, k, v: jnp.sum(jnp.sin(backend(q, k, v, last, meta)))

    ours, our_slopes = jax.value_and_grad(total(attention_blocked), (0, 1, 2))(q, k, v)
    theirs, their_slopes = jax.value_and_grad(total(attention_reference), (0, 1, 2))(q, k, v)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    for a, b in zip(our_slopes, their_slopes, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_blocks_in_which_nobody_sees_anybody_are_not_computed():
    """Keys of another sentence may hold anything, infinities too."""
    q, k, v = inputs(5, 1, 192, 192, 2, 1, 8)
    n = jnp.arange(192)
    meta = {"sample": n // 64, "order": n, "span": n, "mode": jnp.zeros(192, jnp.int32)}
    meta = {name: x[None].astype(jnp.int32) for name, x in meta.items()}
    spoilt = attention_blocked(q, k.at[:, 128:].set(jnp.inf), v.at[:, 128:].set(jnp.inf), meta, meta)
    np.testing.assert_allclose(spoilt[:, :128], attention_reference(q, k, v, meta, meta)[:, :128], atol=2e-6)


def test_keeps_the_dtype():
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs(6, 1, 70, 70, 2, 1, 8))
    meta = random_meta(np.random.default_rng(6), 1, 70)
    out, slopes = jax.value_and_grad(lambda q: jnp.sum(attention_blocked(q, k, v, meta, meta).astype(jnp.float32)))(q)
    assert attention_blocked(q, k, v, meta, meta).dtype == slopes.dtype == jnp.bfloat16
    assert jnp.isfinite(out)


def test_large_attention_on_a_cpu_takes_the_loop():
    q, k, v = inputs(4, 1, 300, 300, 2, 1, 8)
    meta = random_meta(np.random.default_rng(4), 1, 300)
    assert "while" in jax.jit(lambda *a: attention(*a, meta, meta)).lower(q, k, v).as_text()
    np.testing.assert_allclose(
        attention(q, k, v, meta, meta), attention_reference(q, k, v, meta, meta), atol=2e-6
    )
