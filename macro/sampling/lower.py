"""Prefill and denoising, lowered for devices that need not exist here; `macro.compile --program=sample` compiles them.

The two programs do what `macro/sampling/pipeline.py` does, for a sentence with black images of the size that the config
gives them. One encodes the images and prefills the prompt in all contexts (several programs in the pipeline); the other
runs all denoising steps after the prompt, a plan and, if configured, a token selection (with a step cache, every step
counts as one that runs the layers). Text is tokenized by the demo tokenizer, whatever the model's: it is short beside
the images.
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
from macro.sampling.contexts import TEXT, Continuation, Prompt, continue_prompt, prompt_of
from macro.sampling.denoise import denoise
from macro.sampling.drop_tokens import Choice, choice_of
from macro.sampling.load import packing_of
from macro.sampling.options import SamplingOptions, read_options
from macro.sampling.prefill import gathered, names_of, read_plans, read_prompt
from macro.sentence.plan import Plan
from macro.sentence.prompt import build_sentence
from macro.utils import tree

THOUGHT = "it stands beside the others on the grass. " * 12  # about the length of a chain of thought about ten subjects


@dataclasses.dataclass(frozen=True)
class LoweredSampling:
    """The programs for one number of references; `context_tokens`: tokens of the full context before the image."""

    prefill: jax.stages.Lowered
    loop: jax.stages.Lowered
    context_tokens: int


class SamplingLowering:
    """Lowers prefill and denoising of a config for the devices of a mesh.

    Attributes:
        params: number of parameters of the model.
        steps: number of denoising steps.
        size: (height, width) of the image in pixels.
    """

    def __init__(self, config, model: ModelConfig, mesh: Mesh):
        self._packing = packing_of(model, config.packing.to_dict() | {"tasks": tuple(config.tasks)})
        self._options = read_options(config.sampling)
        self._model, self._mesh, self._shapes = model, mesh, placement.shapes(model, mesh)
        self.params, self.steps = tree.count(self._shapes), self._options.steps
        self.size = self._packing.images.output_size()

    def lower(self, references: int) -> LoweredSampling:
        """Both programs for a sentence with this many reference images."""
        with jax.set_mesh(self._mesh):
            return self._lower(references)

    def _lower(self, references: int) -> LoweredSampling:
        params, model, options, mesh = self._shapes, self._model, self._options, self._mesh
        prompt, after = _tokens(self._packing, options, references)
        choice = choice_of(options.token_selection, prompt, model)
        reading, caches = _reading(params, model, prompt, choice, mesh)
        ends = {name: prompt.contexts[name] for name in prompt.distinct}
        read = [None if n is None else caches[n] for n in ends.values()]
        together = [jax.eval_shape(lambda read: gathered(read, 1, model), read)]
        if after.plan:
            kept = {"config": model, "contexts": len(read), "kept": after.kept, "candidates": 1}
            given = params["composer"], together[0], after.plan
            together.append(jax.eval_shape(lambda *given: read_plans(*given, **kept), *given)[0])
        if choice is not None:
            sizes = [choice.size(names_of(prompt, n)) for n in ends.values() if n is not None]
            together[0] = _shortened(together[0], max(sizes))
        noise = jax.ShapeDtypeStruct((1, after.latent["position"].shape[1], model.latent_channels), jnp.float32)
        drawing = denoise.lower(
            params["composer"],
            [_laid_cache(cache, mesh) for cache in together],
            _whole(after.frame, mesh),
            _whole(after.latent, mesh),
            _whole(noise, mesh),
            _whole(sampling_times(options.steps + 1, options.timestep_shift), mesh),
            config=model,
            guidance=options.guidance,
            same=tuple(prompt.distinct.index(prompt.same[name]) for name in options.guidance.contexts),
            step_cache=options.step_cache,
        )
        context = int((names_of(prompt, prompt.contexts["full"])[0] >= TEXT).sum())
        context += len(after.plan["ids"][0]) if after.plan else 0
        return LoweredSampling(reading, drawing, context)


def _reading(params, model: ModelConfig, prompt: Prompt, choice: Choice | None, mesh: Mesh):
    """The prefill of a prompt, traced but not compiled, and the shapes of the caches that it returns."""
    arrays = {"streams": [chunk.streams for chunk in prompt.chunks], "vision": prompt.vision, "latents": prompt.latents}
    probes = {} if choice is None else choice.probes()

    def read(params, arrays, probes):
        chunks = tuple(dataclasses.replace(c, streams=s) for c, s in zip(prompt.chunks, arrays["streams"], strict=True))
        given = dataclasses.replace(prompt, chunks=chunks, vision=arrays["vision"], latents=arrays["latents"])
        return read_prompt(params, given, model, probes=probes)[0]

    given = params, _whole(arrays, mesh), _whole(probes, mesh)
    return jax.jit(read).lower(*given), jax.eval_shape(read, *given)


def _shortened(cache: Mapping, size: int) -> dict:
    """Shapes of a cache shortened to `size` tokens."""
    kept = {part: (*cache[part].shape[:2], size, *cache[part].shape[3:]) for part in ("k", "v")}
    kept = {part: jax.ShapeDtypeStruct(shape, cache[part].dtype) for part, shape in kept.items()}
    rows = cache["k"].shape[1]
    return kept | {"meta": {name: jax.ShapeDtypeStruct((rows, size), x.dtype) for name, x in cache["meta"].items()}}


def _tokens(packing: PackingConfig, options: SamplingOptions, number: int) -> tuple[Prompt, Continuation]:
    size, tokenizer = packing.images.output_size(), Tokenizer.demo()
    black = np.zeros((*size, 3), np.uint8)
    names = [f"<image {n}> stands beside the others" for n in range(1, number + 1)]
    sentence = build_sentence(", ".join(names) or "a red fox in snow", [black] * number, size)
    prompt = prompt_of([sentence], options.guidance.contexts, options.policy, tokenizer, packing)
    grid = np.arange(64, dtype=np.int8).reshape(8, 8) % (number + 1)
    plan = Plan(THOUGHT, grid if packing.binding else None) if options.use_planner else None
    ids = None if plan is None else plan.tokens(tokenizer)
    return prompt, continue_prompt([sentence], size, [[plan]], [[ids]], prompt, tokenizer, packing)


def _whole(arrays, mesh: Mesh):
    """Shapes of arrays that are replicated on every device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), arrays)


def _laid_cache(cache: Mapping, mesh: Mesh) -> dict:
    """Shapes of a cache, sharded over the mesh as `Composer.prefill` returns it."""

    def lies(x):
        where = activation_sharding(mesh, x.shape, "layers", "batch", "tokens", "kv_heads", "head_dim")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return {name: lies(cache[name]) for name in ("k", "v")} | {"meta": _whole(cache["meta"], mesh)}
