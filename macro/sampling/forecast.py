"""Drawing on devices that are not here, by number of references: `macro.compile --program=sample`.

For each number two programs are compiled on a sentence of that many black images of the size that the config's rule
gives them: encoding the images and reading the prompt in all contexts, which `macro/sampling/pipeline.py` runs as a
few programs, and all denoising steps after it, a plan and, where the config asks for one, a token selection (with a
step cache each step is counted as if it ran the layers). Text is counted by our own tokenizer, whatever the model's
is: its tokens are few beside those of the images.
Read next: `macro/parallel/fit.py`, `macro/sampling/denoise.py`.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from macro.diffusion.times import sampling_times
from macro.inputs.packing import PackingConfig
from macro.inputs.tokenizer import Tokenizer
from macro.models.variants import ModelConfig
from macro.parallel.chips import Chip
from macro.parallel.fit import Fit, fit, gib
from macro.parallel.rules import sharding
from macro.sampling import placement
from macro.sampling.contexts import TEXT, Continuation, Prompt, context_spans, continue_prompt, make_prompt, reading_plans
from macro.sampling.denoise import denoise
from macro.sampling.drop_tokens import Choice, choice_of
from macro.sampling.load import packing_of
from macro.sampling.options import SamplingOptions, read_options
from macro.sampling.prefill import gathered, names_of, read_plans, read_prompt
from macro.sentence.formats import compose_sentence
from macro.sentence.plan import Plan
from macro.utils import tree

THOUGHT = "it stands beside the others on the grass. " * 12  # about as long as a thought about ten subjects


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of references; `context` counts the tokens of the full context before the picture."""

    references: int
    context: int
    prefill: Fit
    loop: Fit

    @property
    def fits(self) -> bool:
        """Whether both programs do."""
        return self.prefill.fits and self.loop.fits

    @property
    def peak_bytes(self) -> int:
        """Of the larger program."""
        return max(self.prefill.peak_bytes, self.loop.peak_bytes)

    @property
    def seconds(self) -> float | None:
        """Of both, at least; None where one does not fit."""
        return self.prefill.seconds + self.loop.seconds if self.fits else None


@dataclasses.dataclass(frozen=True)
class Forecast:
    """`params`: numbers in the parameters; `devices` that draw; `steps` of denoising; `size` of the picture."""

    params: int
    devices: int
    steps: int
    size: tuple[int, int]
    rows: tuple[Row, ...]


def forecast(config, model: ModelConfig, mesh: Mesh, chip: Chip, references: Sequence[int]) -> Forecast:
    """Compiles prefill and drawing for each number of references, with progress on stderr."""
    packing = packing_of(model, config.packing.to_dict() | {"tasks": tuple(config.tasks)})
    options = read_options(config.sampling)
    params = placement.shapes(model, mesh)
    rows = []
    for number in references:
        print(f"compiling for {number} references", file=sys.stderr, flush=True)
        with jax.set_mesh(mesh):
            prompt, after = _tokens(packing, options, number)
            choice = choice_of(options.token_selection, prompt, model)
            rows.append(_row(params, model, prompt, after, choice, options, mesh, chip, number))
    size = packing.images.output_size()
    return Forecast(tree.count(params), mesh.size, options.steps, size, tuple(rows))


def _row(params, model: ModelConfig, prompt, after, choice: Choice | None, options, mesh, chip, number: int) -> Row:
    reading, caches = _reading(params, model, prompt, choice, mesh)
    caches = {name: None if n is None else caches[n] for name, n in prompt.contexts.items() if name in prompt.distinct}
    together = [jax.eval_shape(lambda: gathered(list(caches.values()), 1, model))]
    if after.plan:
        kept = {"config": model, "contexts": len(caches), "kept": after.kept, "candidates": 1}
        given = params["composer"], together[0], after.plan
        together.append(jax.eval_shape(lambda *given: read_plans(*given, **kept), *given)[0])
    if choice is not None:
        sizes = [choice.size(names_of(prompt, prompt.contexts[name])) for name, x in caches.items() if x is not None]
        together[0] = _shortened(together[0], max(sizes))
    drawing = denoise.lower(
        params["composer"],
        [_laid_cache(cache, mesh) for cache in together],
        _whole(after.frame, mesh),
        _whole(after.latent, mesh),
        _whole(jax.ShapeDtypeStruct((1, after.latent["position"].shape[1], model.latent_channels), jnp.float32), mesh),
        _whole(sampling_times(options.steps + 1, options.timestep_shift), mesh),
        config=model,
        guidance=options.guidance,
        same=tuple(prompt.distinct.index(prompt.same[name]) for name in options.guidance.contexts),
        step_cache=options.step_cache,
    )
    context = int((names_of(prompt, prompt.contexts["full"])[0] >= TEXT).sum())
    context += len(after.plan["ids"][0]) if after.plan else 0
    return Row(number, context, fit(reading, chip), fit(drawing, chip))


def _reading(params, model: ModelConfig, prompt: Prompt, choice: Choice | None, mesh: Mesh):
    """The program that reads a prompt, not compiled yet, and the shapes of the caches it gives."""
    arrays = {"streams": [chunk.streams for chunk in prompt.chunks], "vision": prompt.vision, "latents": prompt.latents}
    probes = {} if choice is None else choice.probes()

    def read(params, arrays, probes):
        chunks = [dataclasses.replace(c, streams=s) for c, s in zip(prompt.chunks, arrays["streams"], strict=True)]
        given = dataclasses.replace(prompt, chunks=chunks, vision=arrays["vision"], latents=arrays["latents"])
        return read_prompt(params, given, model, probes=probes)[0]

    given = params, _whole(arrays, mesh), _whole(probes, mesh)
    return jax.jit(read).lower(*given), jax.eval_shape(read, *given)


def _shortened(cache: Mapping, size: int) -> dict:
    """Shapes of a cache with so many tokens."""
    kept = {part: (*cache[part].shape[:2], size, *cache[part].shape[3:]) for part in ("k", "v")}
    kept = {part: jax.ShapeDtypeStruct(shape, cache[part].dtype) for part, shape in kept.items()}
    rows = cache["k"].shape[1]
    return kept | {"meta": {name: jax.ShapeDtypeStruct((rows, size), x.dtype) for name, x in cache["meta"].items()}}


def _tokens(packing: PackingConfig, options: SamplingOptions, number: int) -> tuple[Prompt, Continuation]:
    size, tokenizer = packing.images.output_size(), Tokenizer.demo()
    black = np.zeros((*size, 3), np.uint8)
    names = [f"<image {n}> stands beside the others" for n in range(1, number + 1)]
    sentence = compose_sentence(", ".join(names) or "a red fox in snow", [black] * number, size)
    contexts = options.guidance.contexts
    spans = context_spans(sentence, contexts, options.policy, tokenizer, packing)
    prompt = make_prompt([spans], reading_plans(contexts, options.policy), tokenizer, packing)
    grid = np.arange(64, dtype=np.int8).reshape(8, 8) % (number + 1)
    plan = Plan(THOUGHT, grid if packing.binding else None) if options.use_planner else None
    ids = None if plan is None else plan.tokens(tokenizer)
    return prompt, continue_prompt([sentence], size, [[plan]], [[ids]], prompt, tokenizer, packing)


def _whole(arrays, mesh: Mesh):
    """Shapes of arrays that every device is given."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), arrays)


def _laid_cache(cache: Mapping, mesh: Mesh) -> dict:
    """Shapes of a cache as `Composer.prefill` leaves it on the mesh."""

    def lies(x):
        where = sharding(mesh, x.shape, "layers", "batch", "tokens", "kv_heads", "head_dim")
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

    return {name: lies(cache[name]) for name in ("k", "v")} | {"meta": _whole(cache["meta"], mesh)}


def record(found: Forecast) -> dict:
    """The forecast as JSON: figures of the largest row under the names that training's have, and all `rows`."""
    last = max(found.rows, key=lambda row: row.references)
    programs = [program for program in (last.prefill, last.loop) if program.costs]
    sent: dict[str, int] = {}
    for program in programs:
        for kind, size in program.costs.collective_bytes.items():
            sent[kind] = sent.get(kind, 0) + size
    return {
        "params": found.params,
        "devices": found.devices,
        "fits": all(row.fits for row in found.rows),
        "peak_bytes": last.peak_bytes,
        "hbm_bytes": last.loop.chip.hbm_bytes,
        "flops": sum(program.costs.flops for program in programs) * found.devices if last.fits else None,
        "step_seconds_roofline": last.seconds,
        "bound_by": last.loop.bound_by,
        "collective_bytes": sent,
        "rows": [
            {
                "references": row.references,
                "context_tokens": row.context,
                "fits": row.fits,
                "peak_bytes": row.peak_bytes,
                "prefill_seconds": row.prefill.seconds,
                "loop_seconds": row.loop.seconds,
                "bound_by": row.loop.bound_by,
                "culprits": [*row.prefill.culprits, *row.loop.culprits],
            }
            for row in found.rows
        ],
    }


def table(found: Forecast, topology: str) -> str:
    """The forecast for a person."""
    height, width = found.size
    lines = [
        f"{topology}: {found.devices} devices draw one picture of {height} x {width} in {found.steps} steps, "
        f"{found.params:,} parameters",
        "references  context tokens  peak memory  prefill s  steps s  bound by",
    ]
    for row in found.rows:
        peak, chip = gib(row.peak_bytes), row.loop.chip
        if row.fits:
            times = f"{row.prefill.seconds:9.3f}  {row.loop.seconds:7.2f}  {row.loop.bound_by}"
        else:
            largest = (*row.prefill.culprits, *row.loop.culprits)
            times = f"DOES NOT FIT ({gib(chip.hbm_bytes)} usable): {'; '.join(largest)}"
        lines.append(f"{row.references:10d}  {row.context:14,d}  {peak:>11}  {times}")
    return "\n".join(lines)
