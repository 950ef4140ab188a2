"""Sample sheets: what the model makes of a few samples of its data, as `<workdir>/sheets/<step>.png`.

    joint         references | target | its thoughts | its layout | drawn | drawn after the true plan
    autoencode    picture | the same through the autoencoder

Hooks for `macro/training/loop.py`; they look at averaged weights.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from macro.inputs.packing import PackingConfig
from macro.models.vae import VAE, normalise
from macro.models.variants import ModelConfig
from macro.sampling.pipeline import Pipeline
from macro.sampling.settings import read_settings
from macro.sentence.plan import Plan
from macro.sentence.spans import Sentence
from macro.training.lora import without_adapters
from macro.training.state import TrainState, averaged
from macro.utils import image

SAMPLES = 4
SIDE = 160  # of a tile, pixels
Tiles = list[tuple[np.ndarray, str]]


def hook(
    config, workdir: str, model: ModelConfig, source: Sequence, tokenizer, packing: PackingConfig
) -> Callable[[TrainState, int], None]:
    """What writes a sheet of the first samples of `source` when the loop evaluates."""
    rows = ROWS[config.objective](config, model, tokenizer, packing)

    def write(state: TrainState, step: int) -> None:
        samples = [source[i] for i in range(min(SAMPLES, len(source)))]
        tiles = list(rows(without_adapters(averaged(state), config), samples))
        labelled = [tile for row in tiles for tile in row]
        pictures, labels = zip(*labelled, strict=True)
        sheet = image.contact_sheet(pictures, len(tiles[0]), labels)
        folder = Path(workdir) / "sheets"
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{step:06d}.png", sheet)

    return write


def _composed(config, model: ModelConfig, tokenizer, packing: PackingConfig) -> Callable:
    settings = read_settings(config.sampling)

    def rows(params: dict, samples: Sequence[Sentence]) -> Iterator[Tiles]:
        pipeline = Pipeline(params, model, tokenizer, packing, settings)
        for seed, sample in enumerate(samples):
            free = pipeline.compose_sentence(sample, seed=seed)
            told = pipeline.compose_sentence(sample, plan=sample.plan, seed=seed)
            references = [span.pixels for span in sample.images]
            across = int(np.ceil(np.sqrt(len(references))))
            yield [
                (image.contact_sheet(references, across), "references"),
                (_tile(sample.target.pixels), "target"),
                (Plan(free.plan.cot, None).picture(SIDE), "its thoughts"),
                (Plan("", free.plan.grid).picture(SIDE), "its layout"),
                (_tile(free.pixels), "drawn"),
                (_tile(told.pixels), "after the true plan"),
            ]

    return rows


def _reconstructed(config, model: ModelConfig, tokenizer, packing: PackingConfig) -> Callable:
    @partial(jax.jit, static_argnums=1)
    def through(params, vae: VAE, x):
        mean, _ = vae.apply({"params": params}, x[None], method=VAE.encode)
        return vae.apply({"params": params}, normalise(mean, model.vae), method=VAE.decode)[0]

    def rows(params: dict, samples: Sequence[Sentence]) -> Iterator[Tiles]:
        for sample in samples:
            target = sample.target.pixels
            x = target.astype(np.float32) / 127.5 - 1
            again = image.to_uint8(through(params["vae"], VAE(model.vae), x))
            yield [(_tile(target), "picture"), (_tile(again), "through the autoencoder")]

    return rows


def _tile(pixels: np.ndarray) -> np.ndarray:
    return image.resize_to(pixels, (SIDE, SIDE))


# Objective -> what makes a sheet's rows out of parameters and samples.
ROWS = {"joint": _composed, "autoencode": _reconstructed}
