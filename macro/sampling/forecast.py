"""Drawing on devices that are not here, by number of references: `macro.compile --program=sample`.

For each number the two programs that `macro/sampling/pipeline.py` runs are compiled on a sentence of that many black
pictures of the size that the config's rule gives them: reading the prompt in all contexts, and all denoising steps
after it, a plan and, where the config asks for one, a selection (with `reuse` each step is counted as if it ran the
layers). Words are counted by our own tokenizer, whatever the model's is: they are few beside the pictures.
Read next: `macro/parallel/fit.py`, `macro/sampling/draw.py`.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from macro.diffusion.flow import sampling_times
from macro.inputs.packing import PackingConfig
from macro.inputs.tokenizer import Tokenizer
from macro.models.variants import ModelConfig
from macro.parallel.chips import Chip
from macro.parallel.fit import Fit, fit, gib
from macro.parallel.rules import sharding
from macro.sampling import placement
from macro.sampling.bagel.options import BagelOptions
from macro.sampling.bagel.pipeline import settings_of
from macro.sampling.contexts import Continuation, Prompt, continue_prompt, read_prompt
from macro.sampling.draw import draw
from macro.sampling.load import packing_of, sampling_of
from macro.sampling.plan import prefill, read
from macro.sampling.select import Choice, choice_of, selected
from macro.sampling.settings import Settings
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
    _, settings = sampling_of(config.sampling)
    if isinstance(settings, BagelOptions):
        settings = settings_of(settings)
    params = placement.shapes(model, mesh)
    rows = []
    for number in references:
        print(f"compiling for {number} references", file=sys.stderr, flush=True)
        prompt, after = _tokens(packing, settings, number)
        choice = choice_of(settings.select, prompt, model)
        with jax.set_mesh(mesh):
            rows.append(_row(params, model, prompt, after, choice, settings, mesh, chip, number))
    size = tuple(packing.buckets[0][:2])
    return Forecast(tree.count(params), mesh.size, settings.steps, size, tuple(rows))


def _row(params, model: ModelConfig, prompt, after, choice: Choice | None, settings, mesh, chip, number: int) -> Row:
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
    return Row(number, context, fit(reading, chip), fit(drawing, chip))


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
