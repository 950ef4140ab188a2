"""A judge of generated images: a classifier of kind and texture for the crop around a subject's cells.

Its input is only the crop, and it is trained only on rendered scenes (`training.py`); it is used neither to train a
composer nor to select candidates. Crops without a recognisable subject (heavy blur, blobs of colour, empty
ground) are the class `NOTHING`. The shipped weights come from

    python -m macro.evals.classifier.training --out=macro/assets/reader.safetensors --scenes=6000 --steps=3000 --seed=0

(two CPU cores; the file's metadata holds the accuracies). Its scenes come from random streams that no data set and no
evaluation uses. Read next: `macro/nn/subject_classifier.py` (the network), `../metrics/palettes.py` (the other judge).
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
_COMMAND = "python -m macro.evals.classifier.training"
_CHUNK = 64  # crops per batch: one compiled program for any number of them


def cells_box(grid: Grid, number: int) -> Float[np.ndarray, "4"] | None:
    """(x0, y0, x1, y1) in 0..1 around a subject's cells; None if it has none."""
    rows, columns = np.nonzero(grid == number)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64) / GRID_SIZE


@dataclass(frozen=True)
class Prediction:
    """The prediction for a crop: a key of `catalog.KINDS` or `NOTHING`, and one of `graph.TEXTURES`."""

    kind: str
    texture: str


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network with the names of its classes and notes on its training."""

    params: dict
    kinds: tuple[str, ...]
    textures: tuple[str, ...]
    notes: dict

    def classify(
        self,
        images: Sequence[UInt8[np.ndarray, "h w 3"]],
        boxes: Sequence[Float[np.ndarray, "4"]],
        blur: float = 0.0,
    ) -> list[Prediction]:
        """Classifies the content of each box.

        Args:
            images: one per box, all of one size.
            boxes: x0, y0, x1, y1 in 0..1, the box around a subject's cells.
            blur: added to the crops, as a share of their side (to test robustness).
        """
        predictions = []
        for start in range(0, len(boxes), _CHUNK):
            count = min(_CHUNK, len(boxes) - start)
            chosen = [start + min(n, count - 1) for n in range(_CHUNK)]  # the last one fills the chunk
            batch = np.stack([images[n] for n in chosen])
            squares = square(np.array([boxes[n] for n in chosen], np.float32)).astype(np.float32)
            answers = _answer(self.params, batch, squares, blur, len(self.kinds), len(self.textures))
            kinds, textures = (np.asarray(answer)[:count] for answer in answers)
            predictions += [Prediction(self.kinds[k], self.textures[t]) for k, t in zip(kinds, textures, strict=True)]
        return predictions


@functools.partial(jax.jit, static_argnames=("kinds", "textures"))
def _answer(params, images, squares, blur, kinds: int, textures: int):
    crops = crop(images, squares, jnp.full(squares.shape[0], blur))
    answers = SubjectClassifier(kinds, textures).apply({"params": params}, crops)
    return tuple(answer.argmax(-1) for answer in answers)


def save(classifier: Classifier, path: str | os.PathLike) -> None:
    """Writes a classifier atomically as safetensors in float16, with names and notes in its metadata."""
    from safetensors.numpy import save as serialise

    flat = {name: np.asarray(value, np.float16) for name, value in flatten_dict(classifier.params, sep="/").items()}
    names = {"kinds": classifier.kinds, "textures": classifier.textures, "notes": classifier.notes}
    atomic_write(path, serialise(flat, {key: json.dumps(value) for key, value in names.items()}))


@functools.cache
def load(path: str | os.PathLike = SHIPPED) -> Classifier:
    """Reads a file written by `save`; the shipped classifier by default.

    Raises:
        UserError: no such file, or not a classifier.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; train a classifier with `{_COMMAND} --out={path}`")
    try:
        with safe_open(path, framework="numpy") as file:
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            names = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        kinds, textures, notes = tuple(names["kinds"]), tuple(names["textures"]), names["notes"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: not a classifier ({error}); train one with `{_COMMAND} --out={path}`") from None
    return Classifier(unflatten_dict(flat, sep="/"), kinds, textures, notes)
