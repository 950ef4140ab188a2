"""A small reader: which kind of subject, in which texture, stands in this part of a picture?

It sees nothing but the pixels of a square crop around a subject's cells and is trained on renders alone, so
that `macro/evals` can ask what a drawn picture shows. It takes no part in the training of a composer nor in
any search. A reader must not see dogs in blobs: blurred crops, soft ellipses and empty ground are among its
lessons, under the name `NOTHING`. The shipped weights come from

    python -m macro.evals.classifier.model --out=macro/assets/reader.safetensors --scenes=6000 --steps=3000 --seed=0

(two CPU cores; the metadata of the file holds its numbers). Its scenes come from streams of their own, which
no data set and no evaluation draws from. Read next: `training.py` (the lessons), `macro/evals/metrics.py` (its
use).
"""

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, UInt8

from macro.utils.errors import UserError
from macro.utils.files import atomic_write

SHIPPED = Path(__file__).parents[2] / "assets" / "reader.safetensors"
CROP = 48  # pixels along the side of what the network sees
MARGIN = 1.15  # the crop's side, in units of the longer side of the box around the cells
NOTHING = "nothing"
_CHUNK = 64  # crops read at once: one compiled program for any number of them


class Network(nn.Module):
    """Crops [b, 48, 48, 3] in -1..1 to logits of kinds (the first is `NOTHING`) and of textures.

    An outline is read from where things are in the crop; a texture from what there is around its middle, wherever.
    """

    kinds: int
    textures: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b k"], Float[Array, "b j"]]:
        x = nn.Conv(32, (4, 4), (2, 2), name="conv_0")(x)
        for n, (channels, stride) in enumerate(((64, 1), (96, 2), (96, 1)), 1):
            x = nn.gelu(nn.GroupNorm(8, name=f"norm_{n}")(x))
            x = nn.Conv(channels, (3, 3), (stride, stride), name=f"conv_{n}")(x)
        x = nn.gelu(nn.GroupNorm(8, name="norm_4")(x))
        middle = x[:, 2:-2, 2:-2]
        patterns = jnp.concatenate([middle.max((1, 2)), middle.mean((1, 2))], -1)
        x = nn.Conv(128, (3, 3), (2, 2), name="conv_4")(x)
        x = nn.gelu(nn.GroupNorm(8, name="norm_5")(x))
        x = nn.Conv(32, (1, 1), name="squeeze")(x).reshape(x.shape[0], -1)
        x = nn.gelu(nn.Dense(128, name="hidden")(x))
        patterns = nn.gelu(nn.Dense(96, name="patterns")(jnp.concatenate([patterns, x], -1)))
        return nn.Dense(self.kinds, name="kind")(x), nn.Dense(self.textures, name="texture")(patterns)


def square(box: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 3"]:
    """(middle x, middle y, side) of the crop around a box (x0, y0, x1, y1), all in 0..1 of the picture."""
    side = MARGIN * np.maximum(box[..., 2] - box[..., 0], box[..., 3] - box[..., 1])
    return np.stack([(box[..., 0] + box[..., 2]) / 2, (box[..., 1] + box[..., 3]) / 2, side], -1)


def crop(
    pictures: UInt8[Array, "b h w 3"], squares: Float[Array, "b 3"], blur: Float[Array, "b"]
) -> Float[Array, "b 48 48 3"]:
    """Square crops, resampled by a Gaussian to 48 x 48 and to -1..1; 0 outside the picture.

    Args:
        pictures: one per crop.
        squares: middle x, middle y and side, in 0..1 of the picture.
        blur: standard deviation of an added blur, as a share of the crop's side.
    """

    def weights(middle: Array, side: Array, blur: Array, pixels: int) -> Array:
        """[48, pixels]: how much each pixel of an axis adds to each place of the crop."""
        places = (middle + side * ((jnp.arange(CROP) + 0.5) / CROP - 0.5)) * pixels
        step = side * pixels / CROP
        width = jnp.sqrt(jnp.maximum(0.45 * step, 0.6) ** 2 + (blur * side * pixels) ** 2)
        away = (places[:, None] - jnp.arange(pixels) - 0.5) / width
        return jnp.exp(-0.5 * away**2) / (width * np.sqrt(2 * np.pi))

    def one(picture: Array, square: Array, blur: Array) -> Array:
        rows = weights(square[1], square[2], blur, picture.shape[0])
        columns = weights(square[0], square[2], blur, picture.shape[1])
        return jnp.einsum("rh,hwc,kw->rkc", rows, picture.astype(jnp.float32) / 127.5 - 1, columns)

    return jax.vmap(one)(pictures, squares, blur)


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
    answers = Network(kinds, textures).apply({"params": params}, crops)
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
