"""The denoising loop after the prefilled contexts, then the VAE decoder.

Each step computes the velocity of every distinct context and candidate in one batch and combines the contexts
(`macro/diffusion/guidance.py`); the steps are one compiled scan (`macro/diffusion/flow.py`). The contexts' keys and
values are not modified. With a step cache some steps skip the layers (`macro/diffusion/step_cache.py`). The noise of a
candidate depends on (seed, candidate) alone, not on its plan: the same seed with an edited plan shows the effect of the
edit.
Read next: `macro/sampling/pipeline.py`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from macro.diffusion.flow import euler
from macro.diffusion.guidance import Guidance, guide
from macro.diffusion.step_cache import CacheState, StepCache, cached_step, init_cache
from macro.models.composer import Cache, Composer, index_cache
from macro.models.vae import VAE, unpatchify
from macro.models.variants import ModelConfig


def candidate_keys(seed: int, candidates: int) -> tuple[Array, Array]:
    """Two random keys per candidate, for its plan and for its noise; both depend on (seed, number) alone."""
    each = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(candidates))
    pairs = jax.vmap(jax.random.split)(each)
    return pairs[:, 0], pairs[:, 1]


def noise_of(keys: Array, tokens: int, channels: int) -> Float[Array, "b n c"]:
    """The noise that each candidate's image starts from."""
    return jax.vmap(lambda key: jax.random.normal(key, (tokens, channels)))(keys)


@partial(jax.jit, static_argnames=("config", "guidance", "same", "step_cache"))
def denoise(
    params: Mapping,
    caches: Sequence[Cache],
    frame: Mapping,
    latent: Mapping,
    noise: Float[Array, "b n c"],
    times: Float[Array, "points"],
    *,
    config: ModelConfig,
    guidance: Guidance,
    same: tuple[int, ...] = (),
    step_cache: StepCache | None = None,
) -> tuple[Float[Array, "b n c"], Int[Array, ""]]:
    """Latent tokens at t = 0, one image per row of `noise`, and the number of steps that ran the layers.

    Args:
        params: of the composer.
        caches: of prompts and of plans, each ordered by context, `full` first; a prompt's row is shared by all its
            candidates.
        frame, latent: the target's tokens in each row (`contexts.Continuation`), contexts x rows of `noise`.
        noise: the tokens at t = 1.
        times: descending from 1 to 0.
        same: for each context of `guidance`, the index of its block of rows; equal contexts share one. Empty: each has
            its own.
        step_cache: decides which steps skip the layers; None: none do.
    """
    settings = {"config": config, "guidance": guidance, "same": same, "step_cache": step_cache}
    velocity, steps = partial(guided_velocity, params, caches, frame, latent, **settings), len(times) - 1
    if step_cache is None:
        return euler(velocity, noise, times)[0], jnp.int32(steps)
    shape = frame["ids"].shape[0], noise.shape[1], config.llm.width
    tokens, kept = euler(velocity, noise, times, init_cache(step_cache, steps, shape))
    return tokens, kept.full_steps


def guided_velocity(
    params: Mapping,
    caches: Sequence[Cache],
    frame: Mapping,
    latent: Mapping,
    x: Float[Array, "b n c"],
    t: Float[Array, ""],
    kept: CacheState | None = None,
    *,
    config: ModelConfig,
    guidance: Guidance,
    same: tuple[int, ...] = (),
    step_cache: StepCache | None = None,
) -> tuple[Float[Array, "b n c"], CacheState | None]:
    """The guided velocity of one step of `denoise`: that of `x` at time `t`, combined over the contexts.

    `kept` is the state of `step_cache`, passed from step to step.
    """
    model = partial(Composer(config).apply, {"params": params})
    same = same or tuple(range(len(guidance.contexts)))
    blocks = max(same) + 1

    def velocity(contexts: int) -> tuple[Array, CacheState | None]:
        """Velocities of the first `contexts` contexts' rows; each context gets the same noised candidates."""

        def share(rows: int) -> slice:
            return slice(rows // blocks * contexts)

        def first(tree):
            return jax.tree.map(lambda a: a[share(len(a))], tree)

        read = [index_cache(cache, share(cache["k"].shape[1])) for cache in caches]
        x_t = jnp.tile(x, (contexts, 1, 1))
        time = jnp.full(x_t.shape[:2], t, jnp.float32)
        layers = partial(model, read, first(frame), first(latent), method=Composer.denoise)
        embedded = model(first(latent), x_t, time, method=Composer.embed_latent)
        if step_cache is None:
            return model(layers(embedded), method=Composer.velocity), None
        hidden, after = cached_step(step_cache, kept, layers, embedded, t)
        return model(hidden, method=Composer.velocity), after

    def guided() -> tuple[Array, CacheState | None]:
        velocities, after = velocity(blocks)
        contexts = jnp.split(velocities, blocks)
        by_name = {name: contexts[n] for name, n in zip(guidance.contexts, same, strict=True)}
        return guide(guidance, by_name), after

    if guidance.always:
        return guided()
    return jax.lax.cond(guidance.active(t), guided, lambda: velocity(1))


@partial(jax.jit, static_argnames=("rows", "columns", "config"))
def decode_images(
    vae: Mapping, tokens: Float[Array, "b n c"], *, rows: int, columns: int, config: ModelConfig
) -> Float[Array, "b h w 3"]:
    """Decodes images of `rows` x `columns` latent tokens; values in about -1..1."""
    latents = unpatchify(tokens, config.latent_patch, rows, columns)
    return VAE(config.vae).apply({"params": vae}, latents, method=VAE.decode)
