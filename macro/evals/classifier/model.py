"""A small reader: which kind of subject, in which texture, stands in this part of a picture?

It sees nothing but the pixels of a square crop around a subject's cells and is trained on renders alone, so
that `macro/evals` can ask what a drawn picture shows. It takes no part in the training of a composer nor in
any search. A reader must not see dogs in blobs: blurred crops, soft ellipses and empty ground are among its
lessons, under the name `NOTHING`. The shipped weights come from

    python -m macro.evals.classifier.model --out=macro/assets/reader.safetensors --scenes=6000 --steps=3000 --seed=0

(two CPU cores; the metadata of the file holds its numbers). Its scenes come from streams of their own, which
no data set and no evaluation draws from. Read next: `training.py` (the lessons), `macro/evals/metrics/palettes.py` (its
use).
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, UInt8

from macro.nn.subject_classifier import SubjectClassifier, crop, square
from macro.sentence.layout import GRID_SIZE, Grid
from macro.utils.errors import UserError
from macro.utils.files import atomic_write

SHIPPED = Path(__file__).parents[2] / "assets" / "reader.safetensors"
NOTHING = "nothing"
_CHUNK = 64  # crops read at once: one compiled program for any number of them


def cells_box(grid: Grid, number: int) -> Float[np.ndarray, "4"] | None:
    """(x0, y0, x1, y1) in 0..1 around a subject's cells; None if it has none."""
    rows, columns = np.nonzero(grid == number)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64) / GRID_SIZE


@dataclass(frozen=True)
class Reading:
    """What the reader takes a crop for: a key of `catalog.KINDS` or `NOTHING`, and one of `graph.TEXTURES`."""

    kind: str
    texture: str


@dataclass(frozen=True, eq=False)
class Reader:
    """A trained network with the names of its answers and notes on its making."""

    params: dict
    kinds: tuple[str, ...]
    textures: tuple[str, ...]
    notes: dict

    def read(
        self,
        pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
        boxes: Sequence[Float[np.ndarray, "4"]],
        blur: float = 0.0,
    ) -> list[Reading]:
        """What stands in each box.

        Args:
            pictures: one per box, all of one size.
            boxes: x0, y0, x1, y1 in 0..1, the box around a subject's cells.
            blur: added to the crops, as a share of their side (to try how the reader takes it).
        """
        readings = []
        for start in range(0, len(boxes), _CHUNK):
            count = min(_CHUNK, len(boxes) - start)
            chosen = [start + min(n, count - 1) for n in range(_CHUNK)]  # the last one fills the chunk
            batch = np.stack([pictures[n] for n in chosen])
            squares = square(np.array([boxes[n] for n in chosen], np.float32)).astype(np.float32)
            answers = _answer(self.params, batch, squares, blur, len(self.kinds), len(self.textures))
            kinds, textures = (np.asarray(answer)[:count] for answer in answers)
            readings += [Reading(self.kinds[k], self.textures[t]) for k, t in zip(kinds, textures, strict=True)]
        return readings


@functools.partial(jax.jit, static_argnames=("kinds", "textures"))
def _answer(params, pictures, squares, blur, kinds: int, textures: int):
    crops = crop(pictures, squares, jnp.full(squares.shape[0], blur))
    answers = SubjectClassifier(kinds, textures).apply({"params": params}, crops)
    return tuple(answer.argmax(-1) for answer in answers)


def save(reader: Reader, path: str | os.PathLike) -> None:
    """Writes a reader as safetensors in float16, names and notes in its metadata; whole or not at all."""
    from safetensors.numpy import save as serialise

    flat = {name: np.asarray(value, np.float16) for name, value in flatten_dict(reader.params, sep="/").items()}
    names = {"kinds": reader.kinds, "textures": reader.textures, "notes": reader.notes}
    atomic_write(path, serialise(flat, {key: json.dumps(value) for key, value in names.items()}))


@functools.cache
def load(path: str | os.PathLike = SHIPPED) -> Reader:
    """Reads what `save` wrote; the shipped reader by default.

    Raises:
        UserError: no such file, or not a reader.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"{path}: no such reader; train one with `python -m macro.evals.classifier.model --out={path}`")
    try:
        with safe_open(path, framework="numpy") as file:
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            names = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        kinds, textures, notes = tuple(names["kinds"]), tuple(names["textures"]), names["notes"]
    except (SafetensorError, KeyError, ValueError) as error:
        command = "python -m macro.evals.classifier.model"
        raise UserError(f"{path}: not a reader ({error}); train one with `{command}`") from None
    return Reader(unflatten_dict(flat, sep="/"), kinds, textures, notes)


def main(out: str, scenes: int = 6000, steps: int = 3000, seed: int = 0) -> None:
    """Trains a reader and writes it to `out`."""
    from macro.evals.classifier.training import teach

    if scenes < 1 or steps < 1 or seed < 0:
        raise UserError("--scenes and --steps must be at least 1, --seed at least 0")
    save(teach(scenes, steps, seed), out)


if __name__ == "__main__":
    from macro.utils.config import run

    run(
        main,
        out="safetensors file to write",
        scenes="how many scenes to render for the lessons",
        steps="optimizer steps of 128 crops",
        seed="of scenes, lessons and first weights",
    )
