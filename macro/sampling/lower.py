"""Prefill and denoising, lowered for devices that need not exist here; `macro.compile --program=sample` compiles them.

The two programs are those that `macro/sampling/pipeline.py` runs, on a sentence of so many black images of the size
that the config's rule gives them: reading the prompt in all contexts, and all denoising steps after it, a plan and,
where the config asks for one, a token selection (with a step cache each step counts as if it ran the layers). Text is
tokenized by our own tokenizer, whatever the model's is: it is short beside the images.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from macro.diffusion.flow import sampling_times
from macro.inputs.packing import PackingConfig
from macro.inputs.tokenizer import Tokenizer
from macro.models.variants import ModelConfig
from macro.parallel.sharding import activation_sharding
from macro.sampling import placement
from macro.sampling.bagel.options import BagelOptions
from macro.sampling.bagel.pipeline import settings_of
from macro.sampling.contexts import Continuation, Prompt, continue_prompt, read_prompt
from macro.sampling.draw import draw
from macro.sampling.load import packing_of, sampling_of
from macro.sampling.plan import prefill, read
from macro.sampling.select import choice_of, selected
from macro.sampling.settings import Settings
from macro.sentence.formats import compose_sentence
from macro.sentence.plan import Plan
from macro.utils import tree

THOUGHT = "it stands beside the others on the grass. " * 12  # about as long as a thought about ten subjects


@dataclasses.dataclass(frozen=True)
class LoweredSampling:
    """One number of references; `context_tokens`: tokens of the full context before the image."""

    prefill: jax.stages.Lowered
    loop: jax.stages.Lowered
    context_tokens: int


class SamplingLowering:
    """Lowers prefill and denoising of a config for the mesh's devices.

    Attributes:
        params: how many parameters the model has.
        steps: of denoising.
        size: (height, width) of the image.
    """

    def __init__(self, config, model: ModelConfig, mesh: Mesh):
        self._packing = packing_of(model, config.packing.to_dict() | {"tasks": tuple(config.tasks)})
        _, settings = sampling_of(config.sampling)
        self._settings = settings_of(settings) if isinstance(settings, BagelOptions) else settings
        self._model, self._mesh, self._shapes = model, mesh, placement.shapes(model, mesh)
        self.params, self.steps = tree.count(self._shapes), self._settings.steps
        self.size = tuple(self._packing.buckets[0][:2])

    def lower(self, references: int) -> LoweredSampling:
        """Both programs for a sentence with so many reference images."""
        with jax.set_mesh(self._mesh):
            return self._lower(references)

    def _lower(self, references: int) -> LoweredSampling:
        params, model, settings, mesh = self._shapes, self._model, self._settings, self._mesh
        prompt, after = _tokens(self._packing, settings, references)
        choice = choice_of(settings.select, prompt, model)
        streams, pixels = _whole(prompt.streams, mesh), _whole(prompt.pixels, mesh)
        asking, again = (None, None) if choice is None else (choice.of_prompt(), choice.of_plan(after, 1))
        given = params["composer"], params["vae"], streams, pixels, _whole(asking, mesh)
        reading = prefill.lower(*given, config=model)
        cache, asked = jax.eval_shape(lambda *given: prefill(*given, config=model), *given)
        caches, answers = [cache], [asked]
        if after.plan:
            kept = {"config": model, "contexts": len(prompt.contexts), "kept": after.kept, "candidates": 1}
            given = params["composer"], cache, after.plan, again
            plans, _, asked = jax.eval_shape(lambda *given: read(*given, **kept), *given)
            caches, answers = [cache, plans], [*answers, asked]
        if choice is not None:
            plans = caches[1] if after.plan else None
            caches[0] = jax.eval_shape(lambda *given: selected(choice, *given, [0]), cache, plans, answers)
        places = after.latent["position"].shape[1]
        drawing = draw.lower(
            params["composer"],
            [_laid_cache(cache, mesh) for cache in caches],
            _whole(after.frame, mesh),
            _whole(after.latent, mesh),
            _whole(jax.ShapeDtypeStruct((1, places, model.latent_channels), jnp.float32), mesh),
            _whole(sampling_times(settings.steps + 1, settings.shift), mesh),
            config=model,
            guidance=settings.guidance,
            reuse=settings.reuse,
        )
        context = sum(int((stream["sample"][0] >= 0).sum()) for stream in prompt.streams.values())
        context += len(after.plan["ids"][0]) if after.plan else 0
        return LoweredSampling(reading, drawing, context)


def _tokens(packing: PackingConfig, settings: Settings, number: int) -> tuple[Prompt, Continuation]:
    size, tokenizer = packing.buckets[0][:2], Tokenizer.demo()
    black = np.zeros((*size, 3), np.uint8)
    names = [f"<image {n}> stands beside the others" for n in range(1, number + 1)]
    sentence = compose_sentence(", ".join(names) or "a red fox in snow", [black] * number, size)
    prompt = read_prompt([sentence], settings.guidance.contexts, tokenizer, packing)
    grid = np.arange(64, dtype=np.int8).reshape(8, 8) % (number + 1)
    plans = [Plan(THOUGHT, grid if packing.binding else None) if settings.planned else None]
    return prompt, continue_prompt([sentence], [plans], prompt, tokenizer, packing)


def _whole(arrays, mesh: Mesh):
    """Shapes of arrays that every device is given."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), arrays)


def _laid_cache(cache: Mapping, mesh: Mesh) -> dict:
    """Shapes of a cache as `Composer.prefill` leaves it on the mesh."""

    def lies(x):
        where = activation_sharding(mesh, x.shape, "layers", "batch", "tokens", "kv_heads", "head_dim")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return {name: lies(cache[name]) for name in ("k", "v")} | {"meta": _whole(cache["meta"], mesh)}
