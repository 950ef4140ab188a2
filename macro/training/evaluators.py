"""Evaluators: sample grids, the model's output for a few samples, as `<workdir>/sample_grids/<step>.png`.

    joint         references | target | sampled CoT | sampled layout | sample | sample from the true plan
                  references | target | sample                           where sampling has no plan
    autoencoder   image | its reconstruction

Hooks for `macro/training/loop.py`; they use the averaged weights.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from macro.inputs.packing import PackingConfig
from macro.models.vae import VAE, normalise
from macro.models.variants import ModelConfig
from macro.parallel import multihost
from macro.sampling.options import read_options
from macro.sampling.pipeline import Pipeline
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target
from macro.training.lora import without_adapters
from macro.training.state import TrainState, averaged
from macro.utils import images as image_io

SAMPLES = 4
SIDE = 160  # side of a tile, pixels
BLANK = np.full((SIDE, SIDE, 3), 255, np.uint8)  # for an empty tile
Tiles = list[tuple[np.ndarray, str]]


def sample_grids(
    config, workdir: str, model: ModelConfig, source: Sequence, tokenizer, packing: PackingConfig
) -> Callable[[TrainState, int], None]:
    """A hook that writes a grid of the first samples of `source` when the loop evaluates."""
    rows = ROWS[config.objective](config, model, tokenizer, packing)

    def write(state: TrainState, step: int) -> None:
        samples = [source[i] for i in range(min(SAMPLES, len(source)))]
        tiles = list(rows(without_adapters(averaged(state), config), samples))
        if not multihost.is_primary():
            return
        labelled = [tile for row in tiles for tile in row]
        images, labels = zip(*labelled, strict=True)
        sheet = image_io.contact_sheet(images, len(tiles[0]), labels)
        folder = Path(workdir) / "sample_grids"
        folder.mkdir(exist_ok=True)
        image_io.save(folder / f"{step:06d}.png", sheet)

    return write


def _composed(config, model: ModelConfig, tokenizer, packing: PackingConfig) -> Callable:
    options = read_options(config.sampling)
    planned = options.use_planner

    def rows(params: dict, samples: Sequence[Sentence]) -> Iterator[Tiles]:
        pipeline = Pipeline(params, model, tokenizer, packing, options)
        for seed, sample in enumerate(samples):
            asked = _at_a_size_of(packing, sample)
            drawn = pipeline.compose_sentence(asked, seed=seed)
            row = [(_together(sample.images), "references"), (_tile(sample.target.pixels), "target")]
            if planned:
                row += [
                    (Plan(drawn.plan.cot, None).image(SIDE), "its thoughts"),
                    (Plan("", drawn.plan.grid).image(SIDE), "its layout"),
                ]
            row.append((_tile(drawn.pixels), "drawn"))
            if planned:
                told = BLANK
                if sample.plan is not None:
                    told = _tile(pipeline.compose_sentence(asked, plan=sample.plan, seed=seed).pixels)
                row.append((told, "after the true plan"))
            yield row

    return rows


def _at_a_size_of(packing: PackingConfig, sample: Sentence) -> Sentence:
    """The sentence with its target resized as in training."""
    size = image_io.nearest_size(sample.target.size, [bucket[:2] for bucket in packing.buckets])
    return sample.replace(spans=tuple(Target(size=size) if isinstance(s, Target) else s for s in sample))


def _together(given: Sequence[Image]) -> np.ndarray:
    if not given:
        return BLANK
    return image_io.contact_sheet([image.pixels for image in given], int(np.ceil(np.sqrt(len(given)))))


def _reconstructed(config, model: ModelConfig, tokenizer, packing: PackingConfig) -> Callable:
    @partial(jax.jit, static_argnums=1)
    def through(params, vae: VAE, x):
        mean, _ = vae.apply({"params": params}, x[None], method=VAE.encode)
        return vae.apply({"params": params}, normalise(mean, model.vae), method=VAE.decode)[0]

    def rows(params: dict, samples: Sequence[Sentence]) -> Iterator[Tiles]:
        for sample in samples:
            target = sample.target.pixels
            x = target.astype(np.float32) / 127.5 - 1
            again = image_io.to_uint8(through(params["vae"], VAE(model.vae), x))
            yield [(_tile(target), "image"), (_tile(again), "through the autoencoder")]

    return rows


def _tile(pixels: np.ndarray) -> np.ndarray:
    return image_io.resize(pixels, (SIDE, SIDE))


# Objective -> a function from parameters and samples to the rows of a grid.
ROWS = {"joint": _composed, "autoencoder": _reconstructed}
