"""The autoencoder's objective: what it counts, what it ignores, and that a few steps bring it down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from macro.models.vae import VAE
from macro.objectives import autoencoder, parts
from macro.utils.errors import UserError

CONFIG = ConfigDict(
    {
        "model": {"variant": "XS/128", "vae": {"multipliers": (1, 1), "res_blocks": 1, "z": 4}},
        "init_from": {},
        "crop": 16,
        "loss": {"edges": 0.5, "kl": 1e-4},
    }
)


def random_images(seed, *shape):
    """Soft ramps with a hard edge: something a small autoencoder can learn in seconds."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, shape[-3])[:, None, None] * rng.uniform(60, 200, (*shape[:-3], 1, 1, 3)) + 20
    return np.where(np.arange(shape[-2])[:, None] > shape[-2] // 2, 230 - ramp, ramp).astype(np.uint8)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: autoencoder.init(key, CONFIG))(jax.random.key(0))


@pytest.fixture(scope="module")
def run():
    """((loss, metrics), gradient), compiled once for batches of four images."""

    def score(params, batch, key):
        loss, metrics = autoencoder.loss(params, batch, key, CONFIG, autoencoder.totals(batch, CONFIG))
        return loss, autoencoder.report(metrics)

    return jax.jit(jax.value_and_grad(score, has_aux=True))


def test_squares_are_windows_of_their_images():
    images = np.random.default_rng(0).integers(1, 255, (2, 3, 32, 24, 3)).astype(np.uint8)
    cut, used = autoencoder.squares({"32x24": jnp.asarray(images)}, 16, jax.random.key(1))
    assert cut.shape == (6, 16, 16, 3) and used.tolist() == [1] * 6
    corners = []
    for window, image in zip(np.asarray(cut), images.reshape(6, 32, 24, 3), strict=True):
        found = [
            (y, x) for y in range(17) for x in range(9) if (image[y : y + 16, x : x + 16] == window).all()
        ]
        assert len(found) == 1
        corners += found
    assert len(set(corners)) > 1


def test_square_larger_than_a_bucket_is_refused():
    with pytest.raises(UserError, match="config.crop=48"):
        autoencoder.squares({"32x32": jnp.ones((1, 1, 32, 32, 3), jnp.uint8)}, 48, jax.random.key(0))


def batch_of(images):
    return {"pixels": {"16x16": jnp.asarray(images)}}


def test_empty_slots_count_for_nothing(params, run):
    images = random_images(3, 1, 4, 16, 16, 3)
    images[:, 2:] = 0
    first, second = images.copy(), images.copy()
    first[:, 1], second[:, 0] = 0, 0
    both, *single = (run(params, batch_of(x), jax.random.key(0))[0][1] for x in (images, first, second))
    for name in ("kl", "latent_mean"):
        np.testing.assert_allclose(both[name], (single[0][name] + single[1][name]) / 2, rtol=1e-5)


def test_edge_error_sees_edges_and_no_offsets():
    mean = lambda values: jnp.mean(values)  # noqa: E731
    flat = jnp.full((1, 8, 8, 3), 0.3)
    assert autoencoder.edge_error(flat, mean) == 0
    step = flat.at[:, 3:].add(1.0)
    assert autoencoder.edge_error(step, mean) > 0.05


def test_total_is_the_weighted_sum(params, run):
    (total, metrics), _ = run(params, batch_of(random_images(5, 1, 4, 16, 16, 3)), jax.random.key(0))
    expected = metrics["l1"] + 0.5 * metrics["edges"] + 1e-4 * metrics["kl"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_a_few_steps_bring_the_psnr_up(params, run):
    batch = batch_of(random_images(7, 1, 4, 16, 16, 3))
    optimizer = optax.adam(2e-3)
    update = jax.jit(optimizer.update)
    state, psnr = optimizer.init(params), []
    for number in range(40):
        (_, metrics), grads = run(params, batch, jax.random.key(number))
        updates, state = update(grads, state)
        params = optax.apply_updates(params, updates)
        psnr.append(float(metrics["psnr"]))
    assert psnr[-1] > psnr[0] + 6


def test_reported_deviation_is_that_of_all_latents(params, run):
    images = random_images(9, 1, 4, 16, 16, 3)
    (_, metrics), _ = run(params, batch_of(images), jax.random.key(0))
    x = jnp.asarray(images.reshape(4, 16, 16, 3), jnp.float32) / 127.5 - 1
    cut, _ = autoencoder.squares({"16x16": jnp.asarray(images)}, 16, jax.random.key(0))
    assert (np.asarray(cut) == images.reshape(4, 16, 16, 3)).all()
    mean, _ = VAE(parts.model_config(CONFIG).vae).apply({"params": params["vae"]}, x, method=VAE.encode)
    np.testing.assert_allclose(metrics["latent_std"], np.std(mean), rtol=1e-4)
