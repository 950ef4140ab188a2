import numpy as np

from macro.diffusion import process


def _path():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 5, 3)), rng.normal(size=(2, 5, 3)), rng.uniform(size=(2, 5))


def test_ends_of_the_path():
    x_0, eps, t = _path()
    np.testing.assert_array_equal(process.interpolate(x_0, eps, np.zeros_like(t)), x_0)
    np.testing.assert_array_equal(process.interpolate(x_0, eps, np.ones_like(t)), eps)


def test_velocity_is_the_derivative():
    x_0, eps, t = _path()
    h = 1e-6
    slope = (process.interpolate(x_0, eps, t + h) - process.interpolate(x_0, eps, t - h)) / (2 * h)
    np.testing.assert_allclose(process.velocity(x_0, eps), slope, atol=1e-8)
