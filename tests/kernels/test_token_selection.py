"""Token selection against loops that know nothing but the documented attention mask."""

import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.test_attention import biases, inputs, random_meta

from macro.kernels.attention.api import attention_with_lse
from macro.kernels.attention.reference import MASK_VALUE, attention_mask
from macro.kernels.token_selection import api
from macro.kernels.token_selection.api import TopK, gather_tokens, select_top_k
from macro.sentence.attention_mask import CAUSAL, MASK_FIELDS

received = jax.jit(api.attention_received)


@functools.cache
def case(seed, b=2, nq=61, nk=61, heads=4, groups=2, d=8):
    """Packed rows with images in them; queries are the last tokens. Arguments of `attention_received`."""
    q, k, v = inputs(seed, b, nq, nk, heads, groups, d)
    meta = random_meta(np.random.default_rng(seed), b, nk)
    image = jnp.where(meta["mask_mode"] == CAUSAL, -1, meta["block_id"] % 5)
    last = {name: x[:, -nq:] for name, x in meta.items()}
    bias = biases(seed, b, nk)
    lse = jax.jit(attention_with_lse)(q, k, v, last, meta, bias)[1]
    return q, k, lse, last, meta, image[:, -nq:], image, bias


def loop(q, k, lse, q_meta, k_meta, q_image, k_image, bias):
    """(received, counts) token by token, float64."""
    mask = np.asarray(attention_mask(q_meta, k_meta))
    q, k, lse, bias = (np.asarray(x, np.float64) for x in (q, k, lse, bias))
    q_image, k_image = np.asarray(q_image), np.asarray(k_image)
    (b, _, h, d), (nk, kv) = q.shape, k.shape[1:3]
    sums, counts = np.zeros((2, b, 2, nk))
    for row, t, u in np.argwhere(mask):
        text, own = q_image[row, t] == -1, q_image[row, t] == k_image[row, u]
        if k_image[row, u] < 0 or own or q_image[row, t] < -1:
            continue
        counts[row, 0 if text else 1, u] += 1
        for head in range(h):
            score = q[row, t, head] @ k[row, u, head // (h // kv)] / np.sqrt(d) + bias[row, u]
            sums[row, 0 if text else 1, u] += np.exp(score - lse[row, t, head]) / h
    return sums, counts


class TestAttentionReceived:
    @pytest.mark.parametrize(
        "shape", [dict(), dict(b=1, nq=5, nk=43, groups=4, d=48), dict(b=1, nq=70, nk=70, heads=3, groups=1, d=136)],
        ids=["packed", "few queries", "wide heads"],
    )  # fmt: skip
    def test_values(self, shape):
        given = case(0, **shape)
        np.testing.assert_allclose(received(*given), loop(*given)[0], atol=1e-6, rtol=1e-6)

    def test_who_sees_nothing_or_counts_for_nothing_adds_nothing(self):
        q, k, lse, q_meta, k_meta, q_image, k_image, bias = case(0)
        found = received(q, k, lse.at[:, 10:40].set(MASK_VALUE), q_meta, k_meta, q_image, k_image, bias)
        apart = received(q, k, lse, q_meta, k_meta, q_image.at[:, 10:40].set(-2), k_image, bias)
        cut = [jnp.delete(x, slice(10, 40), axis=1) for x in (q, lse, q_image)]
        less = {field: jnp.delete(x, slice(10, 40), axis=1) for field, x in q_meta.items()}
        expected = loop(cut[0], k, cut[1], less, k_meta, cut[2], k_image, bias)[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(apart, expected, atol=1e-6)

    def test_text_receives_nothing(self):
        *given, bias = case(0)
        given[6] = jnp.full_like(given[6], -1)
        assert not np.any(received(*given, bias))

    def test_bfloat16(self):
        q, k, *rest = case(0)
        found = received(q.astype(jnp.bfloat16), k.astype(jnp.bfloat16), *rest)
        assert found.dtype == jnp.float32
        # Scores of rounded queries and keys, and sums whose terms are rounded to 8 bits.
        np.testing.assert_allclose(found, loop(q, k, *rest)[0], atol=0.05, rtol=0.05)

    def test_a_weight_that_is_hidden_may_be_infinite(self):
        q, k, lse, q_meta, *rest = case(0)
        assert np.all(np.isfinite(received(200 * q, k, jnp.maximum(lse, 900.0), q_meta, *rest)))


def test_sets_of_keys_without_a_bias_add_up():
    """What a set of keys receives does not depend on which other keys are handed in with it."""
    *given, bias = case(3, b=1)
    q, k, lse, q_meta, k_meta, q_image, k_image = given
    first, last = (
        api.attention_received(
            q, k[:, part], lse, q_meta, {name: x[:, part] for name, x in k_meta.items()}, q_image, k_image[:, part]
        )
        for part in (slice(0, 30), slice(30, None))
    )
    whole = loop(*given, 0 * bias)[0]
    np.testing.assert_allclose(jnp.concatenate([first, last], axis=2), whole, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("nq", [61, 7])
def test_counts(nq):
    given = case(7, nq=nq)
    np.testing.assert_array_equal(jax.jit(api.query_counts)(*given[3:7]), loop(*given)[1])


def test_no_gradient_flows_through_the_scores():
    q, k, *rest = case(0)
    slopes = jax.jit(jax.grad(lambda q, k: jnp.sum(api.attention_received(q, k, *rest)), (0, 1)))(q, k)
    assert not any(np.any(x) for x in slopes)


def test_no_array_grows_with_the_square_of_the_tokens():
    n = 4096
    shape = jax.ShapeDtypeStruct
    meta = {name: shape((1, n), jnp.int32) for name in MASK_FIELDS}
    tokens = shape((1, n), jnp.int32)
    given = shape((1, n, 2, 8), jnp.float32), shape((1, n, 1, 8), jnp.float32), shape((1, n, 2), jnp.float32)
    compiled = jax.jit(api.attention_received).lower(*given, meta, meta, tokens, tokens).compile()
    # A head's scores alone would take 4 n n.
    assert compiled.memory_analysis().temp_size_in_bytes < n * n
    compiled = jax.jit(api.query_counts).lower(meta, meta, tokens, tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n


# One shape for all examples, so that each compiles once.
ROW, IMAGES, SIZE = 24, 4, 20
SCORES = st.sampled_from([-math.inf, -1.5, -0.0, 0.0, 0.25, 0.5, 3.0, math.inf, math.nan])
top_k = jax.jit(select_top_k, static_argnums=3)


def expected_places(scores, image, quota) -> list:
    kept = []
    for number, wanted in enumerate(quota):
        own = [i for i, p in enumerate(image) if p == number]
        own.sort(key=lambda i: (math.isnan(scores[i]), 0 if math.isnan(scores[i]) else -scores[i], i))
        kept += own[:wanted]
    return sorted(kept)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(SCORES, min_size=ROW, max_size=ROW),
    image=st.lists(st.integers(-1, IMAGES), min_size=ROW, max_size=ROW),
    quota=st.lists(st.integers(0, 7), min_size=IMAGES, max_size=IMAGES),
)
def test_best_of_every_image_in_order(scores, image, quota):
    kept = top_k(jnp.array([scores], jnp.float32), jnp.array([image]), jnp.array([quota]), SIZE)
    expected = expected_places(np.asarray(scores, np.float32), image, quota)[:SIZE]
    valid = np.asarray(kept.valid[0])
    assert kept.indices.shape == (1, SIZE) and kept.indices.dtype == jnp.int32
    assert valid.tolist() == [True] * len(expected) + [False] * (SIZE - len(expected))
    assert kept.indices[0][valid].tolist() == expected
    assert np.all((kept.indices >= 0) & (kept.indices < ROW))


def test_rows_and_more_places_than_tokens():
    scores = jax.random.normal(jax.random.key(0), (3, 17))
    image, quota = jnp.arange(51).reshape(3, 17) % 4 - 1, jnp.array([[9, 0, 2], [1, 1, 1], [0, 0, 0]])
    kept = select_top_k(scores, image, quota, 30)
    for row in range(3):
        expected = expected_places(*(np.asarray(x[row]) for x in (scores, image, quota)))
        assert kept.indices[row][kept.valid[row]].tolist() == expected


def some_kept(seed, b, n, k):
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.integers(0, n, (b, k)), axis=1)
    return TopK(jnp.asarray(indices, jnp.int32), jnp.asarray(rng.random((b, k)) < 0.7))


def test_tokens_are_gathered_by_the_name_of_their_axis():
    cache = jax.random.normal(jax.random.key(6), (3, 2, 20, 2, 8)).astype(jnp.bfloat16)
    ids = jnp.arange(40, dtype=jnp.int32).reshape(2, 20)
    for size in (9, 25):
        kept = some_kept(5, 2, 20, size)
        found = gather_tokens(cache, kept, "layers", "batch", "tokens", "kv_heads", "head_dim")
        found_ids = gather_tokens(ids, kept, "batch", "tokens")
        assert found.dtype == cache.dtype and found.shape == (3, 2, size, 2, 8)
        for row, place in np.ndindex(2, size):
            at, valid = kept.indices[row, place], kept.valid[row, place]
            np.testing.assert_array_equal(found[:, row, place], cache[:, row, at] * valid)
            assert found_ids[row, place] == ids[row, at] * valid


def test_gradient_goes_back_to_where_tokens_came_from():
    x = jax.random.normal(jax.random.key(4), (2, 20, 12))
    kept = TopK(jnp.array([[1, 4, 19, 0], [0, 0, 3, 9]]), jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool))

    def total(x):
        return jnp.sum(jnp.sin(gather_tokens(x, kept, "batch", "tokens", "width")))

    expected, rows = np.zeros(x.shape, np.float32), np.arange(2)[:, None]
    slopes = np.cos(np.asarray(x))[rows, kept.indices] * np.asarray(kept.valid)[..., None]
    np.add.at(expected, (rows, kept.indices), slopes)
    np.testing.assert_allclose(jax.grad(total)(x), expected, atol=1e-6)


def test_what_does_not_fit_is_named_when_traced():
    # Without the tests' import hook, which would refuse most of these first.
    sizes = {name: jnp.zeros((2, 3), jnp.int32) for name in MASK_FIELDS}
    for at, value, named in (
        (1, jnp.zeros((1, 61, 2, 8)), "as many rows"), (1, jnp.zeros((2, 61, 3, 8)), "no multiple"),
        (2, jnp.zeros((2, 61, 3)), "lse"), (5, jnp.zeros((2, 3), jnp.int32), "q_image"),
        (5, jnp.full((2, 61), 47), "47, but must be below 47"), (6, jnp.zeros((2, 3), jnp.int32), "k_image"),
        (7, jnp.zeros((2, 3)), "k_bias"), (3, {}, "q_meta"), (4, sizes, "k_meta"),
    ):  # fmt: skip
        given = list(case(0))
        given[at] = value
        with pytest.raises(ValueError, match=named):
            api._check_scoring(*given)
    for axes, rows, named in (
        (("batch", "tokens"), 2, "2 logical axes"), (("tokens", "batch", "width"), 2, "right behind"),
        (("batch", "tokens", "wide"), 2, "wide"), (("batch", "tokens", "width"), 3, "2 rows"),
        (("batch", "width", "width"), 2, "once"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            gather_tokens(jnp.zeros((2, 20, 4)), some_kept(7, rows, 20, 9), *axes)
    for scores, image, quota, size, named in (
        ((2, 9), (2, 8), (2, 3), 4, "image"), ((2, 9), (2, 9), (1, 3), 4, "budgets"),
        ((9,), (9,), (2, 3), 4, "scores"), ((2, 9), (2, 9), (2, 3), 0, "size=0"),
        ((2, 9), (2, 9), (2, 3), 4, "size=4 is below the 5"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=named):
            api._check_top_k(jnp.zeros(scores), jnp.zeros(image, jnp.int32), jnp.full(quota, 5), size)


PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType
from kernels.test_token_selection import case, loop, some_kept
from macro.kernels.token_selection import api

names = ("data", "fsdp", "fsdp_inner", "sequence", "tensor")
kept, cache = some_kept(1, 2, 64, 22), jax.random.normal(jax.random.key(1), (3, 2, 64, 2, 8))
x = jax.random.normal(jax.random.key(0), (2, 64, 8))
axes = "layers", "batch", "tokens", "kv_heads", "head_dim"

def total(x):
    return jnp.sum(jnp.sin(api.gather_tokens(x, kept, "batch", "tokens", "width")))

tokens, slope = api.gather_tokens(cache, kept, *axes), jax.grad(total)(x)
for shape in ((1, 1, 1, 2, 2), (2, 1, 1, 2, 1), (1, 2, 1, 1, 2)):
    for groups in (2, 1):
        given = case(0, nq=64, nk=64, groups=groups)
        with jax.set_mesh(jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * 5)):
            sums, counts = jax.jit(api.attention_received)(*given), jax.jit(api.query_counts)(*given[3:7])
            rows = jax.jit(lambda x: api.gather_tokens(x, kept, *axes))(cache)
            ours = jax.jit(jax.grad(total))(x)
        expected = loop(*given)
        np.testing.assert_allclose(sums, expected[0], atol=2e-5)
        np.testing.assert_array_equal(counts, expected[1])
        np.testing.assert_array_equal(rows, tokens)
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
