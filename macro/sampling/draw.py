"""Drawing: the denoising loop after contexts that have been read, then the VAE's decoder.

Each step asks for the velocity of every context and candidate in one batch and adds the contexts up
(`macro/diffusion/guidance.py`); the steps are one compiled scan (`macro/diffusion/sampler.py`). The contexts'
keys and values are only read. The noise of a candidate follows from (seed, candidate) alone, never from its
plan: the same seed with an edited plan shows what the edit does.
Read next: `macro/sampling/pipeline.py`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from macro.diffusion.guidance import Guidance, guide
from macro.diffusion.sampler import euler
from macro.models.composer import Cache, Composer
from macro.models.vae import VAE, unpatchify
from macro.models.variants import ModelConfig


def candidate_keys(seed: int, candidates: int) -> tuple[Array, Array]:
    """Two random keys per candidate, for its plan and for its noise; each follows from (seed, number)."""
    each = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(candidates))
    pairs = jax.vmap(jax.random.split)(each)
    return pairs[:, 0], pairs[:, 1]


def noise_of(keys: Array, places: int, channels: int) -> Float[Array, "b n c"]:
    """The noise that each candidate's picture starts from."""
    return jax.vmap(lambda key: jax.random.normal(key, (places, channels)))(keys)


@partial(jax.jit, static_argnames=("config", "guidance"))
def draw(
    params: Mapping,
    caches: Sequence[Cache],
    frame: Mapping,
    latent: Mapping,
    noise: Float[Array, "b n c"],
    times: Float[Array, "points"],
    *,
    config: ModelConfig,
    guidance: Guidance,
) -> Float[Array, "b n c"]:
    """Latent tokens at t = 0, one picture per row of `noise`.

    Args:
        params: of the composer.
        caches: of prompts and of plans, each context by context in `guidance`'s order; a prompt's row serves the
            rows of all its candidates.
        frame, latent: the target's tokens in each row (`contexts.Continuation`), contexts x rows of `noise`.
        noise: the tokens at t = 1.
        times: falling from 1 to 0.
    """
    velocity = partial(guided_velocity, params, caches, frame, latent, config=config, guidance=guidance)
    return euler(velocity, noise, times)


def guided_velocity(
    params: Mapping,
    caches: Sequence[Cache],
    frame: Mapping,
    latent: Mapping,
    x: Float[Array, "b n c"],
    t: Float[Array, ""],
    *,
    config: ModelConfig,
    guidance: Guidance,
) -> Float[Array, "b n c"]:
    """What one step of `draw` goes along: the contexts' velocities of `x` at time `t`, added up."""
    model = Composer(config)

    def velocity(contexts: int) -> Array:
        """Of the first contexts' rows; each context sees the same noised candidates."""

        def first(tree, axis=0):
            def share(a):
                return jax.lax.slice_in_dim(a, 0, a.shape[axis] // len(guidance.contexts) * contexts, axis=axis)

            return jax.tree.map(share, tree)

        read = [
            first({name: cache[name] for name in ("k", "v")}, 1)
            | first({name: cache[name] for name in ("meta", "bias") if name in cache})
            for cache in caches
        ]
        x_t = jnp.tile(x, (contexts, 1, 1))
        time = jnp.full(x_t.shape[:2], t, jnp.float32)
        given = read, first(frame), first(latent), x_t, time
        return model.apply({"params": params}, *given, method=Composer.denoise)

    def guided() -> Array:
        velocities = jnp.split(velocity(len(guidance.contexts)), len(guidance.contexts))
        return guide(guidance, dict(zip(guidance.contexts, velocities, strict=True)))

    if guidance.always:
        return guided()
    return jax.lax.cond(guidance.active(t), guided, lambda: velocity(1))


@partial(jax.jit, static_argnames=("rows", "columns", "config"))
def decode_pictures(
    vae: Mapping, tokens: Float[Array, "b n c"], *, rows: int, columns: int, config: ModelConfig
) -> Float[Array, "b h w 3"]:
    """Latent tokens of `rows` x `columns` to pictures in about -1..1."""
    latents = unpatchify(tokens, config.latent_patch, rows, columns)
    return VAE(config.vae).apply({"params": vae}, latents, method=VAE.decode)
