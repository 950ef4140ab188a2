from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.diffusion import process, sampler, times

GOLDEN = Path(__file__).parents[3] / "shared" / "parity" / "bagel" / "infer.npz"


def euler(velocity, noise, grid):
    """Along a velocity that keeps nothing."""
    return sampler.euler(lambda x, t, _: (velocity(x, t), None), noise, grid)[0]


def test_one_step_is_enough_on_a_straight_path():
    x_0, eps = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 3.0]])
    for points in (2, 9):
        drawn = euler(lambda x, t: process.velocity(x_0, eps), eps, times.sampling_times(points, 3.0))
        np.testing.assert_allclose(drawn, x_0, atol=1e-5)


def test_linear_ode_against_its_closed_form():
    """dx/dt = a x: every Euler step multiplies by (1 - a h), and many steps approach exp(-a)."""
    rates = jnp.array([0.5, -1.0, 2.0])
    start = jnp.array([1.0, 2.0, -1.0])
    run = jax.jit(lambda grid: euler(lambda x, t: rates * x, start, grid))
    coarse = run(times.sampling_times(11, 1.0))
    np.testing.assert_allclose(coarse, start * (1 - rates * 0.1) ** 10, rtol=1e-5)
    fine = run(times.sampling_times(1001, 1.0))
    np.testing.assert_allclose(fine, start * jnp.exp(-rates), rtol=5e-3)


def test_velocity_is_asked_at_the_start_of_each_step():
    """dx/dt = t integrates to the left Riemann sum over the grid, whatever its spacing."""
    grid = times.sampling_times(6, 3.0)
    drawn = euler(lambda x, t: jnp.full_like(x, t), jnp.zeros(1), grid)
    np.testing.assert_allclose(drawn, -np.sum(-np.diff(grid) * grid[:-1]), rtol=1e-6)


def test_what_a_velocity_keeps_goes_from_step_to_step():
    """Adams-Bashforth of second order as a velocity that keeps its last value: exact on dx/dt = t but for the start."""
    grid = times.sampling_times(5, 1.0)

    def velocity(x, t, before):
        return 1.5 * t - 0.5 * before, t

    drawn, last = sampler.euler(velocity, jnp.float32(0), grid, jnp.float32(1.25))
    np.testing.assert_allclose(drawn, -0.5, rtol=1e-6)
    np.testing.assert_array_equal(last, grid[-2])


@pytest.mark.skipif(not GOLDEN.exists(), reason="the recorded BAGEL runs are not at hand")
@pytest.mark.parametrize("run", ["plain", "global", "channel", "text_channel", "textonly_global"])
def test_replays_recorded_bagel_runs(run):
    """Given BAGEL's own velocities, the loop visits its times and states and ends on its latent."""
    golden = np.load(GOLDEN)
    recorded = {key: golden[f"run_{run}_{key}"] for key in ("x", "v", "t", "latent")}
    grid = times.sampling_times(7, 3.0)
    np.testing.assert_allclose(grid[:-1], recorded["t"], atol=2e-7)

    def velocity(x, t):
        return jnp.asarray(recorded["v"])[jnp.argmin(jnp.abs(grid[:-1] - t))]

    scale = np.abs(recorded["latent"]).max()
    for calls in range(6):
        reached = euler(velocity, jnp.asarray(recorded["x"][0]), grid[: calls + 1])
        np.testing.assert_allclose(reached, recorded["x"][calls], atol=2e-5 * scale)
    drawn = euler(velocity, jnp.asarray(recorded["x"][0]), grid)
    np.testing.assert_allclose(drawn, recorded["latent"], atol=2e-5 * scale)
