import jax
import jax.numpy as jnp
import numpy as np
import pytest

from macro.diffusion import times


def test_shift_keeps_the_ends_and_is_undone_by_its_inverse():
    t = np.linspace(0, 1, 11)
    for shift in (0.25, 1.0, 3.0):
        bent = times.shift_times(t, shift)
        assert bent[0] == 0 and bent[-1] == 1 and np.all(np.diff(bent) > 0)
        np.testing.assert_allclose(times.shift_times(bent, 1 / shift), t, atol=1e-12)


def test_shifts_compose_by_multiplication():
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(
        times.shift_times(times.shift_times(t, 2.0), 1.5), times.shift_times(t, 3.0), atol=1e-12
    )


def test_shift_adds_log_s_to_the_logit():
    raw = np.array([-2.0, 0.0, 1.5])
    t = times.logit_normal(raw, 4.0)
    np.testing.assert_allclose(np.log(t / (1 - t)), raw + np.log(4.0), atol=1e-12)


def test_clean_images_are_at_time_zero():
    with np.errstate(all="raise"):
        t = times.logit_normal(np.array([-np.inf, 0.0], np.float32), 3.0)
    assert t.dtype == np.float32
    np.testing.assert_allclose(t, [0.0, 0.75])


def test_numpy_and_jax_agree_also_under_jit():
    raw = np.random.default_rng(0).normal(size=64).astype(np.float32)
    expected = times.logit_normal(raw, 3.0)
    compiled = jax.jit(lambda r: times.logit_normal(r, 3.0))(jnp.asarray(raw))
    assert isinstance(expected, np.ndarray) and isinstance(compiled, jax.Array)
    np.testing.assert_allclose(compiled, expected, rtol=2e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_sampling_times_fall_from_one_to_zero(shift):
    grid = times.sampling_times(7, shift)
    assert grid[0] == 1 and grid[-1] == 0 and len(grid) == 7 and np.all(np.diff(grid) < 0)
    np.testing.assert_allclose(grid[3], shift / (1 + shift), rtol=1e-6)  # the middle, s/2 over (s+1)/2
