from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.diffusion import flow

GOLDEN = Path(__file__).parents[3] / "shared" / "parity" / "bagel" / "infer.npz"


def _path():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3)), rng.uniform(size=(2, 5))


def test_ends_of_the_path():
    x_0, eps, t = _path()
    np.testing.assert_array_equal(flow.interpolate(x_0, eps, np.zeros_like(t)), x_0)
    np.testing.assert_array_equal(flow.interpolate(x_0, eps, np.ones_like(t)), eps)


def test_velocity_is_the_derivative():
    x_0, eps, t = _path()
    h = 1e-6
    slope = (flow.interpolate(x_0, eps, t + h) - flow.interpolate(x_0, eps, t - h)) / (2 * h)
    np.testing.assert_allclose(flow.velocity(x_0, eps), slope, atol=1e-8)


def test_shift_keeps_the_ends_and_is_undone_by_its_inverse():
    t = np.linspace(0, 1, 11)
    for shift in (0.25, 1.0, 3.0):
        bent = flow.shift_times(t, shift)
        assert bent[0] == 0 and bent[-1] == 1 and np.all(np.diff(bent) > 0)
        np.testing.assert_allclose(flow.shift_times(bent, 1 / shift), t, atol=1e-12)


def test_shifts_compose_by_multiplication():
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(
        flow.shift_times(flow.shift_times(t, 2.0), 1.5), flow.shift_times(t, 3.0), atol=1e-12
    )


def test_shift_adds_log_s_to_the_logit():
    raw = np.array([-2.0, 0.0, 1.5])
    t = flow.logit_normal(raw, 4.0)
    np.testing.assert_allclose(np.log(t / (1 - t)), raw + np.log(4.0), atol=1e-12)


def test_clean_images_are_at_time_zero():
    with np.errstate(all="raise"):
        t = flow.logit_normal(np.array([-np.inf, 0.0], np.float32), 3.0)
    assert t.dtype == np.float32
    np.testing.assert_allclose(t, [0.0, 0.75])


def test_numpy_and_jax_agree_also_under_jit():
    raw = np.random.default_rng(0).normal(size=64).astype(np.float32)
    expected = flow.logit_normal(raw, 3.0)
    compiled = jax.jit(lambda r: flow.logit_normal(r, 3.0))(jnp.asarray(raw))
    assert isinstance(expected, np.ndarray) and isinstance(compiled, jax.Array)
    np.testing.assert_allclose(compiled, expected, rtol=2e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sampling_times_fall_from_one_to_zero(shift):
    grid = flow.sampling_times(7, shift)
    assert grid[0] == 1 and grid[-1] == 0 and len(grid) == 7 and np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid[3], shift / (1 + shift), rtol=1e-6)  # the middle, s/2 over (s+1)/2


def euler(velocity, noise, grid):
    """Along a velocity that keeps nothing."""
    return flow.euler(lambda x, t, _: (velocity(x, t), None), noise, grid)[0]


def test_one_step_is_enough_on_a_straight_path():
    x_0, eps = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])
    for points in (2, 9):
        drawn = euler(lambda x, t: flow.velocity(x_0, eps), eps, flow.sampling_times(points, 3.0))
        np.testing.assert_allclose(drawn, x_0, atol=1e-5)


def test_linear_ode_against_its_closed_form():
    """dx/dt = a x: every Euler step multiplies by (1 - a h), and many steps approach exp(-a)."""
    rates = jnp.array([0.5, -1.0, 2.0])
    start = jnp.array([1.0, 2.0, -1.0])
    run = jax.jit(lambda grid: euler(lambda x, t: rates * x, start, grid))
    coarse = run(flow.sampling_times(11, 1.0))
    np.testing.assert_allclose(coarse, start * (1 - rates * 0.1) ** 10, rtol=1e-5)
    fine = run(flow.sampling_times(1001, 1.0))
    np.testing.assert_allclose(fine, start * jnp.exp(-rates), rtol=5e-3)


def test_velocity_is_asked_at_the_start_of_each_step():
    """dx/dt = t integrates to the left Riemann sum over the grid, whatever its spacing."""
    grid = flow.sampling_times(6, 3.0)
    drawn = euler(lambda x, t: jnp.full_like(x, t), jnp.zeros(1), grid)
    np.testing.assert_allclose(drawn, -np.sum(-np.diff(grid) * grid[:-1]), rtol=1e-6)


def test_what_a_velocity_keeps_goes_from_step_to_step():
    """Adams-Bashforth of second order as a velocity that keeps its last value: exact on dx/dt = t but for the start."""
    grid = flow.sampling_times(5, 1.0)

    def velocity(x, t, before):
        return 1.5 * t - 0.5 * before, t

    drawn, last = flow.euler(velocity, jnp.float32(0), grid, jnp.float32(1.25))
    np.testing.assert_allclose(drawn, -0.5, rtol=1e-6)
    np.testing.assert_array_equal(last, grid[-2])


@pytest.mark.skipif(not GOLDEN.exists(), reason="the recorded BAGEL runs are not at hand")
@pytest.mark.parametrize("run", ["plain", "global", "channel", "text_channel", "textonly_global"])
def test_replays_recorded_bagel_runs(run):
    """Given BAGEL's own velocities, the loop visits its times and states and ends on its latent."""
    golden = np.load(GOLDEN)
    recorded = {key: golden[f"run_{run}_{key}"] for key in ("x", "v", "t", "latent")}
    grid = flow.sampling_times(7, 3.0)
    np.testing.assert_allclose(grid[:-1], recorded["t"], atol=2e-7)

    def velocity(x, t):
        return jnp.asarray(recorded["v"])[jnp.argmin(jnp.abs(grid[:-1] - t))]

    scale = np.abs(recorded["latent"]).max()
    for calls in range(6):
        reached = euler(velocity, jnp.asarray(recorded["x"][0]), grid[: calls + 1])
        np.testing.assert_allclose(reached, recorded["x"][calls], atol=2e-5 * scale)
    drawn = euler(velocity, jnp.asarray(recorded["x"][0]), grid)
    np.testing.assert_allclose(drawn, recorded["latent"], atol=2e-5 * scale)
