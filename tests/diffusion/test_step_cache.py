"""Step caching on functions of time with known values, and on an ODE with a known solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.diffusion.flow import euler, sampling_times
from macro.diffusion.step_cache import TaylorSeer, TeaCache, cached_step, init_cache
from macro.utils.errors import UserError

SHAPE = (3, 4, 2)
BASE = jax.random.normal(jax.random.key(0), SHAPE)


def run(cache, grid, residual, rows=lambda step: 3, embedding=lambda t: BASE * (1 + t)):
    """All steps by hand: hidden states less their embeddings, and in which steps the layers were run."""
    state, found, full = init_cache(cache, len(grid) - 1, SHAPE), [], []
    for step, t in enumerate(grid[:-1]):
        embedded, before = embedding(t)[: rows(step)], int(state.full_steps)
        add = residual(t)[: rows(step)]
        hidden, state = cached_step(cache, state, lambda e, add=add: e + add, embedded, jnp.float32(t))
        found.append(np.asarray(hidden - embedded))
        full.append(int(state.full_steps) > before)
    return found, full


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_a_polynomial_of_its_order_is_predicted_exactly_at_uneven_times(order):
    def residual(t):
        return sum((degree + 1) * BASE * t**degree for degree in range(order + 1))

    grid = sampling_times(15, 3.0)
    found, full = run(TaylorSeer(4, order), grid, residual)
    assert 0 < sum(full) < len(full)
    for t, value in zip(grid[:-1], found, strict=True):
        np.testing.assert_allclose(value, residual(t), rtol=1e-3, atol=1e-3)


def test_one_order_more_is_not():
    grid = sampling_times(15, 3.0)
    found, _ = run(TaylorSeer(4, 1), grid, lambda t: BASE * t**2)
    assert max(np.abs(value - BASE * t**2).max() for t, value in zip(grid[:-1], found, strict=True)) > 0.02


@pytest.mark.parametrize(
    "cache, full",
    [
        (TaylorSeer(1, 0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (TaylorSeer(3, 0), [0, 3, 6, 9]),
        (TaylorSeer(3, 1), [0, 1, 4, 7]),
        (TaylorSeer(4, 2), [0, 1, 2, 6]),
        (TeaCache(1e-9), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (TeaCache(100.0), [0, 9]),
    ],
)
def test_which_steps_are_full(cache, full):
    _, done = run(cache, sampling_times(11, 3.0), lambda t: BASE)
    assert np.flatnonzero(done).tolist() == full


def test_threshold_adds_up_changes_since_the_last_full_step():
    """The embedding grows by a tenth of itself in every step, so that a limit of .25 is reached in the third."""
    grid = np.linspace(1, 0, 11, dtype=np.float32)
    _, full = run(TeaCache(0.25), grid, lambda t: BASE, embedding=lambda t: BASE * 1.1 ** (10 * (1 - t)))
    assert np.flatnonzero(full).tolist() == [0, 3, 6, 9]


def test_the_row_that_changes_most_decides():
    still = jnp.array([1.0, 0.0, 0.0])[:, None, None]
    _, full = run(TeaCache(0.05), sampling_times(11, 1.0), lambda t: BASE, embedding=lambda t: BASE * (1 + t * still))
    assert all(full[1:5])


@pytest.mark.parametrize("cache", [TaylorSeer(3, 1), TeaCache(100.0)])
def test_rows_that_come_in_later_start_with_full_steps(cache):
    """One row outside the interval of guidance, three inside: nothing is predicted from what was never run."""
    grid = sampling_times(11, 1.0)
    found, full = run(cache, grid, lambda t: BASE * t, rows=lambda step: 3 if 3 <= step < 6 else 1)
    assert [len(value) for value in found] == [1] * 3 + [3] * 3 + [1] * 4
    assert all(full[3 : 4 + cache.order]) and not any(full[4 + cache.order : 7])
    if cache.order:
        for t, value in zip(grid[:-1], found, strict=True):
            np.testing.assert_allclose(value, (BASE * t)[: len(value)], atol=1e-4)


def test_errors_on_an_ode_fall_with_the_order():
    """dx/dt = r x, where the velocity is what the layers add: against every step's Euler factor (1 - r h)."""
    rates, steps = jnp.array([[[0.5], [-1.0], [2.0]]]), 100
    start, grid = jnp.ones((1, 3, 1)), sampling_times(steps + 1, 1.0)

    def drawn(cache):
        def velocity(x, t, state):
            hidden, state = cached_step(cache, state, lambda e: e + rates * x, jnp.zeros_like(x), t)
            return hidden, state

        return euler(velocity, start, grid, init_cache(cache, steps, start.shape))

    errors = []
    for order in range(3):
        x, state = jax.jit(drawn, static_argnums=0)(TaylorSeer(5, order))
        errors.append(np.abs(x - (1 - rates / steps) ** steps).max())
        assert int(state.full_steps) == len({*range(order + 1), *range(order, steps, 5)})
    assert errors[0] > 8 * errors[1] > 64 * errors[2]
    exact, state = jax.jit(drawn, static_argnums=0)(TaylorSeer(1, 0))
    np.testing.assert_allclose(exact, (1 - rates / steps) ** steps, rtol=1e-5)
    assert int(state.full_steps) == steps


def test_skipped_layers_are_not_executed():
    ran = []

    def layers(e):
        jax.debug.callback(lambda: ran.append(1))
        return e + 1

    def velocity(x, t, state):
        return cached_step(TaylorSeer(4, 0), state, layers, x, t)

    start = init_cache(TaylorSeer(4, 0), 8, SHAPE)
    jax.block_until_ready(jax.jit(lambda x: euler(velocity, x, sampling_times(9, 1.0), start))(BASE))
    jax.effects_barrier()
    assert len(ran) == 2


def test_narrow_embeddings_stay_narrow():
    cache, embedded = TaylorSeer(2, 0), BASE.astype(jnp.bfloat16)
    for _ in range(2):
        hidden, state = cached_step(cache, init_cache(cache, 4, SHAPE), lambda e: e + 1, embedded, jnp.float32(1))
        assert hidden.dtype == jnp.bfloat16 and state.differences.dtype == jnp.float32


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: TaylorSeer(0, 1), "sampling.step_cache.interval: 0"),
        (lambda: TaylorSeer(3, -1), "sampling.step_cache.order: -1"),
        (lambda: TeaCache(0.0), "sampling.step_cache.limit: 0"),
        (lambda: TeaCache(float("nan")), "sampling.step_cache.limit: nan"),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(UserError, match=said):
        make()
