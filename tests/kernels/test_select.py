"""Column sums and rows taken out, every backend: against loops that know nothing but the rule of sight."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernels.test_attention import biases, inputs, random_meta

from macro.kernels.attention import pallas_tpu as attention_tpu
from macro.kernels.attention.api import attention_parts
from macro.kernels.attention.reference import HIDDEN, sight_mask
from macro.kernels.backends import Backend, say_once
from macro.kernels.select import api, pallas_gpu, pallas_tpu_gather
from macro.kernels.select.blocked import column_counts_blocked, column_sums_blocked
from macro.kernels.select.pallas_gpu import column_sums_gpu, gather_gpu
from macro.kernels.select.pallas_tpu import column_sums_tpu
from macro.kernels.select.pallas_tpu_gather import gather_tpu
from macro.kernels.select.reference import (
    Kept,
    as_bits,
    column_counts_reference,
    column_sums_reference,
    gather_reference,
)
from macro.sentence.sight import CAUSAL, FIELDS

SCORING = {
    "reference": column_sums_reference,
    "blocked": column_sums_blocked,
    "api": api.column_sums,
    "tpu": functools.partial(column_sums_tpu, interpret=True),
    "gpu": functools.partial(column_sums_gpu, interpret=True),
}
COUNTING = {"reference": column_counts_reference, "blocked": column_counts_blocked, "api": api.column_counts}


def interpreted(f):
    return functools.update_wrapper(functools.partial(f, interpret=True), f)


GATHERING = {
    "reference": (),
    "tpu": (Backend(interpreted(gather_tpu), pallas_tpu_gather.why_not),),
    "gpu": (Backend(interpreted(gather_gpu), pallas_gpu.why_not_gather),),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that short rows have many."""
    for name, size in (("QUERIES", 16), ("KEYS", 32)):
        monkeypatch.setattr(attention_tpu, name, size)
        monkeypatch.setattr(pallas_gpu, name, size)


@functools.cache
def case(seed, b=2, nq=61, nk=61, heads=4, groups=2, d=8):
    """Packed rows with pictures in them; queries are the last tokens. Arguments of `column_sums` up to the bias."""
    q, k, v = inputs(seed, b, nq, nk, heads, groups, d)
    meta = random_meta(np.random.default_rng(seed), b, nk)
    picture = jnp.where(meta["mode"] == CAUSAL, -1, meta["span"] % 5)
    last = {name: x[:, -nq:] for name, x in meta.items()}
    bias = biases(seed, b, nk)
    log_sum = attention_parts(q, k, v, last, meta, bias)[1]
    return q, k, log_sum, last, meta, picture[:, -nq:], picture, bias


def loop(q, k, log_sum, q_meta, k_meta, q_picture, k_picture, bias):
    """(sums, counts) token by token, float64."""
    sight = np.asarray(sight_mask(q_meta, k_meta))
    q, k, log_sum, bias = (np.asarray(x, np.float64) for x in (q, k, log_sum, bias))
    q_picture, k_picture = np.asarray(q_picture), np.asarray(k_picture)
    (b, _, h, d), (nk, kv) = q.shape, k.shape[1:3]
    sums, counts = np.zeros((2, b, 2, nk))
    for row, t, u in np.argwhere(sight):
        text, own = q_picture[row, t] == -1, q_picture[row, t] == k_picture[row, u]
        if k_picture[row, u] < 0 or own or q_picture[row, t] < -1:
            continue
        counts[row, 0 if text else 1, u] += 1
        for head in range(h):
            score = q[row, t, head] @ k[row, u, head // (h // kv)] / np.sqrt(d) + bias[row, u]
            sums[row, 0 if text else 1, u] += np.exp(score - log_sum[row, t, head]) / h
    return sums, counts


@pytest.mark.parametrize("name", SCORING)
class TestColumnSums:
    @pytest.mark.parametrize(
        "shape", [dict(), dict(b=1, nq=5, nk=43, groups=4, d=48), dict(b=1, nq=70, nk=70, heads=3, groups=1, d=136)],
        ids=["packed", "few queries", "wide heads"],
    )  # fmt: skip
    def test_values(self, name, shape):
        given = case(0, **shape)
        np.testing.assert_allclose(SCORING[name](*given), loop(*given)[0], atol=2e-5, rtol=1e-5)

    def test_without_bias(self, name):
        *given, bias = case(1, b=1)
        np.testing.assert_allclose(SCORING[name](*given), loop(*given, 0 * bias)[0], atol=2e-5, rtol=1e-5)

    def test_who_sees_nothing_or_counts_for_nothing_adds_nothing(self, name):
        q, k, log_sum, q_meta, k_meta, q_picture, k_picture, bias = case(2, b=1)
        log_sum = log_sum.at[:, 10:40].set(HIDDEN)
        found = SCORING[name](q, k, log_sum, q_meta, k_meta, q_picture, k_picture, bias)
        apart = SCORING[name](q, k, case(2, b=1)[2], q_meta, k_meta, q_picture.at[:, 10:40].set(-2), k_picture, bias)
        cut = [jnp.delete(x, slice(10, 40), axis=1) for x in (q, log_sum, q_picture)]
        less = {field: jnp.delete(x, slice(10, 40), axis=1) for field, x in q_meta.items()}
        expected = loop(cut[0], k, cut[1], less, k_meta, cut[2], k_picture, bias)[0]
        np.testing.assert_allclose(found, expected, atol=2e-5)
        np.testing.assert_allclose(apart, expected, atol=2e-5)

    def test_text_has_no_column(self, name):
        *given, bias = case(3, b=1)
        given[6] = jnp.full_like(given[6], -1)
        assert not np.any(SCORING[name](*given, bias))

    def test_bfloat16(self, name):
        q, k, *rest = case(4, b=1)
        found = SCORING[name](q.astype(jnp.bfloat16), k.astype(jnp.bfloat16), *rest)
        assert found.dtype == jnp.float32
        # Scores of rounded queries and keys, some of them rounded once more when scaled.
        np.testing.assert_allclose(found, loop(q, k, *rest)[0], atol=0.05, rtol=0.05)

    def test_vmap(self, name):
        given = [jax.tree.map(lambda x: x[:, None], x) for x in case(5, b=3, nq=21, nk=21)]
        out = jax.vmap(SCORING[name])(*given)
        np.testing.assert_allclose(out[:, 0], loop(*case(5, b=3, nq=21, nk=21))[0], atol=2e-5)

    def test_a_weight_that_is_hidden_may_be_infinite(self, name):
        q, k, log_sum, q_meta, *rest = case(6, b=1)
        assert np.all(np.isfinite(SCORING[name](200 * q, k, jnp.maximum(log_sum, 900.0), q_meta, *rest)))


@pytest.mark.parametrize("name", COUNTING)
@pytest.mark.parametrize("nq", [61, 7])
def test_counts(name, nq):
    given = case(7, nq=nq)
    np.testing.assert_array_equal(COUNTING[name](*given[3:7]), loop(*given)[1])


def test_no_gradient_flows_through_the_scores():
    q, k, *rest = case(8, b=1)
    slopes = jax.grad(lambda q, k: jnp.sum(api.column_sums(q, k, *rest)), (0, 1))(q, k)
    assert not any(np.any(x) for x in slopes)


def test_many_tokens_take_the_loop_and_no_array_grows_with_their_square():
    n = 4096
    shape = jax.ShapeDtypeStruct
    meta = {name: shape((1, n), jnp.int32) for name in FIELDS}
    tokens = shape((1, n), jnp.int32)
    given = shape((1, n, 2, 8), jnp.float32), shape((1, n, 1, 8), jnp.float32), shape((1, n, 2), jnp.float32)
    compiled = jax.jit(api.column_sums).lower(*given, meta, meta, tokens, tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n
    compiled = jax.jit(api.column_counts).lower(meta, meta, tokens, tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < n * n


def any_bits(seed, shape, dtype):
    """Every pattern of bits: infinities, both zeros, NaNs that say something."""
    dtype = jnp.dtype(dtype)
    bits = jax.random.bits(jax.random.key(seed), shape, jnp.dtype(f"uint{8 * dtype.itemsize}"))
    bits = bits.at[..., 0].set(1 << (8 * dtype.itemsize - 1))
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


def some_kept(seed, b, n, k):
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.integers(0, n, (b, k)), axis=1)
    return Kept(jnp.asarray(indices, jnp.int32), jnp.asarray(rng.random((b, k)) < 0.7))


@pytest.fixture(params=GATHERING)
def gathering(request, monkeypatch):
    """The backend, or the definition for what it cannot run."""
    monkeypatch.setattr(api, "GATHERING", {"cpu": GATHERING[request.param]})
    return lambda x, *kept: api._gather_on_one_device(2, x, *kept)


@pytest.mark.filterwarnings("ignore:gather. gather_tpu cannot run this")
class TestGather:
    @pytest.mark.parametrize(
        ("dtype", "rest"),
        [("float32", (128,)), ("bfloat16", (256,)), ("bfloat16", (2, 128)), ("float16", (40,)), ("uint8", (3,)),
         ("int32", ()), ("int32", (2, 3, 128)), ("float8_e4m3fn", (128,)), ("bfloat16", ())],
    )  # fmt: skip
    @pytest.mark.parametrize(("n", "k"), [(35, 19), (8, 140)])
    def test_bits_stay_as_they_are(self, gathering, dtype, rest, n, k):
        x = any_bits(0, (2, 3, n, *rest), dtype)
        kept = some_kept(1, 3, n, k)
        found = np.asarray(as_bits(gathering(x, *kept)))
        bits, indices, valid = np.asarray(as_bits(x)), *(np.asarray(x) for x in kept)
        assert found.shape == (2, 3, k, *rest)
        for layer, row, place in np.ndindex(2, 3, k):
            expected = bits[layer, row, indices[row, place]] if valid[row, place] else 0 * bits[0, 0, 0]
            np.testing.assert_array_equal(found[layer, row, place], expected)

    def test_vmap(self, gathering):
        x, kept = any_bits(2, (4, 1, 2, 20, 128), "int32"), some_kept(3, 8, 20, 9)
        kept = [part.reshape(4, 2, 9) for part in kept]
        found = jax.vmap(gathering)(x, *kept)
        for i in range(4):
            np.testing.assert_array_equal(found[i], gather_reference(x[i], *(part[i] for part in kept)))

    def test_gradient_goes_back_to_where_rows_came_from(self, gathering):
        x = jax.random.normal(jax.random.key(4), (2, 20, 128))
        kept = Kept(jnp.array([[1, 4, 19, 0], [0, 0, 3, 9]]), jnp.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool))

        def total(x):
            return jnp.sum(jnp.sin(api.gather(x, kept, "batch", "tokens", "width")))

        expected = np.zeros(x.shape, np.float32)
        np.add.at(
            expected,
            (np.arange(2)[:, None], kept.indices),
            np.cos(np.asarray(x))[np.arange(2)[:, None], kept.indices] * np.asarray(kept.valid)[..., None],
        )
        np.testing.assert_allclose(jax.grad(total)(x), expected, atol=1e-6)


class TestOrderOfBackends:
    def scores(self, b=1, n=4096, heads=2, d=8, dtype="float32"):
        shape = jax.ShapeDtypeStruct
        meta, tokens = {name: shape((b, n), jnp.int32) for name in FIELDS}, shape((b, n), jnp.int32)
        q, k = shape((b, n, heads, d), dtype), shape((b, n, 1, d), dtype)
        given = q, k, shape((b, n, heads), jnp.float32), meta, meta, tokens, tokens
        return str(jax.make_jaxpr(lambda *given: api.column_sums(*given))(*given))  # anew, not from a cache

    def rows(self, rest, dtype="float32", b=1, k=8):
        kept = Kept(jax.ShapeDtypeStruct((b, k), jnp.int32), jax.ShapeDtypeStruct((b, k), bool))
        axes = "batch", "tokens", *[None] * len(rest)
        return str(jax.make_jaxpr(lambda x, kept: api.gather(x, kept, *axes))(
            jax.ShapeDtypeStruct((b, 16, *rest), dtype), kept))  # fmt: skip

    @pytest.mark.parametrize(
        ("platform", "case", "given", "reason"),
        [
            ("gpu", "scores", dict(d=264), "column_sums_gpu cannot run this.*264 values"),
            ("tpu", "scores", dict(b=3), "column_sums_tpu cannot run this.*98,304 pairs of blocks"),
            ("gpu", "rows", dict(rest=(4,), dtype="complex64"), "gather_gpu cannot run this.*complex64"),
            ("tpu", "rows", dict(rest=(128,), dtype="uint8"), "gather_tpu cannot run this.*uint8"),
            ("tpu", "rows", dict(rest=(2, 40)), r"gather_tpu cannot run this.*\(2, 40\)"),
            ("tpu", "rows", dict(rest=(128,), b=9, k=16_300), "gather_tpu cannot run this.*147,456 indices"),
        ],
    )
    def test_what_a_kernel_cannot_run_goes_to_the_next_and_is_said_once(
        self, monkeypatch, platform, case, given, reason
    ):
        monkeypatch.setattr(api, "platform", lambda: platform)
        say_once.cache_clear()
        with pytest.warns(UserWarning, match=reason):
            traced = getattr(self, case)(**given)
        assert "pallas_call" not in traced and ("scan" in traced or case == "rows")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            getattr(self, case)(**given)

    @pytest.mark.parametrize("platform", ["tpu", "gpu"])
    def test_what_a_kernel_can_run_it_does(self, monkeypatch, platform):
        monkeypatch.setattr(api, "platform", lambda: platform)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "macro_select_scores" in self.scores()
            assert "macro_select_gather" in self.rows((2, 128))
            # Metadata are not what a kernel is for, and this is no surprise.
            assert "macro_select_gather" not in self.rows((), "int32")


def test_gather_finds_the_tokens_by_their_name():
    kept = some_kept(5, 2, 20, 9)
    cache = any_bits(6, (3, 2, 20, 2, 8), "bfloat16")
    found = api.gather(cache, kept, "layers", "batch", "tokens", "kv_heads", "head_dim")
    np.testing.assert_array_equal(as_bits(found), as_bits(gather_reference(cache, *kept)))
    ids = jnp.arange(40, dtype=jnp.int32).reshape(2, 20)
    assert api.gather(ids, kept, "batch", "tokens").tolist() == gather_reference(ids[None], *kept)[0].tolist()


@pytest.mark.parametrize(
    ("axes", "rows", "named"),
    [
        (("batch", "tokens"), 2, "2 logical axes"), (("tokens", "batch", "width"), 2, "right behind"),
        (("batch", "tokens", "wide"), 2, "wide"), (("batch", "tokens", "width"), 3, "2 rows"),
        (("batch", "width", "width"), 2, "once"),
    ],
)  # fmt: skip
def test_axes_that_do_not_describe_the_array_are_refused(axes, rows, named):
    with pytest.raises(ValueError, match=named):
        api.gather(jnp.zeros((2, 20, 4)), some_kept(7, rows, 20, 9), *axes)


@pytest.mark.parametrize(
    ("at", "value", "named"),
    [
        (1, jnp.zeros((1, 61, 2, 8)), "as many rows"), (1, jnp.zeros((2, 61, 3, 8)), "no multiple"),
        (2, jnp.zeros((2, 61, 3)), "log_sum"), (5, jnp.zeros((2, 3), jnp.int32), "q_picture"),
        (6, jnp.zeros((2, 3), jnp.int32), "k_picture"), (7, jnp.zeros((2, 3)), "k_bias"), (3, {}, "q_meta"),
        (4, {name: jnp.zeros((2, 3), jnp.int32) for name in FIELDS}, "k_meta"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_when_traced(at, value, named):
    given = list(case(9))
    given[at] = value
    # Without the tests' import hook, which would refuse most of these first.
    with pytest.raises(ValueError, match=named):
        api._check_scoring(*given)
