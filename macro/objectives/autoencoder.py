"""The objective of the image autoencoder: reconstruct the image from a small, smooth latent.

    loss = mean |x' - x|  +  edges * mean |grad x' - grad x|  +  kl * mean KL(q(z|x) || N(0, 1))

The second term (differences of neighbouring pixels, at full and at half size) keeps contours sharp, which a
pixel loss alone would blur. The third is small: it bounds the latents and makes the posterior as wide as the decoder
tolerates, so that generated latents that are slightly off still decode well.

Read next: `macro/models/vae.py`; `configs/demo_vae.py` uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.lax import dynamic_slice
from jaxtyping import Array, Float, UInt8

from macro.models import sharding_rules
from macro.models.vae import VAE, normalise, sample
from macro.objectives.parts import model_config
from macro.utils.errors import UserError

FROZEN = ()
AXES = sharding_rules.SHARDING_RULES


def init(key: Array, config) -> dict:
    """Random parameters `{"vae"}` of the VAE that `config.model` names."""
    vae = VAE(model_config(config).vae)
    side = vae.config.stride
    return {"vae": vae.init(key, jnp.zeros((1, side, side, 3)), key)["params"]}


def totals(batch: Mapping, config) -> dict[str, Array]:
    """The number of images in the means of `loss`; at least one."""
    used = sum(jnp.sum(_used(images)) for images in batch["pixels"].values())
    return {"images": jnp.maximum(used, 1.0)}


def loss(
    params: Mapping, batch: Mapping, key: Array, config, totals: Mapping[str, Array]
) -> tuple[Array, dict[str, Array]]:
    """The loss over every image of a packed batch; the losses of its parts sum up to it.

    Args:
        params: `{"vae"}`.
        batch: `pixels`, per size bucket uint8 `[b, slots, h, w, 3]`; all-black slots are empty.
        key: for the crops and posterior samples of this step.
        config: `crop` is the side of the squares cut from every image; `loss.edges` and `loss.kl`.
        totals: from `totals`, for the whole batch even if `batch` is a part of it.

    Returns:
        (scalar loss, metrics): `l1`, `edges`, `kl`, and for `report` the mean squares of error and latents, `square`
        (pixels in 0..1) and `latent_square`, and `latent_mean`.
    """
    crop_key, sample_key = jax.random.split(key)
    config_vae = model_config(config).vae
    crops, used = squares(batch["pixels"], config.crop, crop_key)
    vae, images = VAE(config_vae), crops.astype(jnp.float32) / 127.5 - 1
    mean, logvar = vae.apply({"params": params["vae"]}, images, method=VAE.encode)
    latents = normalise(sample(mean, logvar, sample_key), config_vae)
    error = vae.apply({"params": params["vae"]}, latents, method=VAE.decode) - images
    kl = 0.5 * (jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)

    def average(values: Array) -> Array:
        """Mean over the images in use."""
        return jnp.sum(jnp.mean(values, axis=(1, 2, 3)) * used) / totals["images"]

    metrics = {"l1": average(jnp.abs(error)), "edges": edge_error(error, average), "kl": average(kl)}
    total = metrics["l1"] + config.loss.edges * metrics["edges"] + config.loss.kl * metrics["kl"]
    metrics["square"] = average(jnp.square(error / 2))
    metrics["latent_mean"] = average(mean)
    metrics["latent_square"] = average(jnp.square(mean))
    return total, metrics


def report(metrics: Mapping[str, Array]) -> dict[str, Array]:
    """The metrics of a whole batch for display: `psnr` in dB, and `latent_mean` and `latent_std` over all channels,
    which determine the config's shift and scale = 1 / std."""
    shown = dict(metrics)
    shown["psnr"] = -10 * jnp.log10(jnp.maximum(shown.pop("square"), 1e-10))
    shown["latent_std"] = jnp.sqrt(shown.pop("latent_square") - jnp.square(shown["latent_mean"]))
    return shown


def squares(pixels: Mapping, side: int, key: Array) -> tuple[UInt8[Array, "n side side 3"], Float[Array, " n"]]:
    """One random square crop from every slot of every bucket, and 1 where the slot is in use, else 0.

    Raises:
        UserError: a bucket is smaller than the square.
    """
    cut, used = [], []
    for number, (name, images) in enumerate(pixels.items()):
        flat = images.reshape(-1, *images.shape[2:])
        n, h, w, _ = flat.shape
        if min(h, w) < side:
            raise UserError(f"config.crop={side}: images of {name} are smaller; lower it")
        rows_key, columns_key = jax.random.split(jax.random.fold_in(key, number))
        rows = jax.random.randint(rows_key, (n,), 0, h - side + 1)
        columns = jax.random.randint(columns_key, (n,), 0, w - side + 1)
        corners = jnp.stack([rows, columns, jnp.zeros_like(rows)], axis=1)
        windows = jax.vmap(lambda image, corner: dynamic_slice(image, corner, (side, side, 3)))
        cut.append(windows(flat, corners))
        used.append(_used(images).reshape(-1))
    return jnp.concatenate(cut), jnp.concatenate(used)


def _used(images: UInt8[Array, "b slots h w 3"]) -> Float[Array, "b slots"]:
    """1 where a slot holds an image, 0 where it is all black."""
    return jnp.any(images > 0, axis=(2, 3, 4)).astype(jnp.float32)


def edge_error(error: Float[Array, "b h w 3"], average: Callable[[Array], Array]) -> Float[Array, ""]:
    """Mean absolute difference of the error between neighbouring pixels, along rows and columns, at full
    size and at half size."""
    b, h, w, c = error.shape
    half = jnp.mean(error.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))
    return sum(average(jnp.abs(jnp.diff(e, axis=axis))) for e in (error, half) for axis in (1, 2)) / 4
