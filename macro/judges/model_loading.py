"""Loads models by name or folder: once per process, on a device, in a dtype.

What cannot be loaded (a package that is not installed, weights that are missing) is a `UserError` of
one line. Torch is imported only here, in the encoders beside, and in `macro/engines/foundation/`, when a model is first
called. Read next: `clip.py`, `dino.py`.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float32

from macro.utils.errors import UserError
from macro.utils.images import Pixels

EXTRA = "pip install 'macro-compose[engine]'"
_FORMATS = ("float32", "bfloat16", "float16")
_LOADING = threading.RLock()

F = TypeVar("F", bound=Callable[..., Any])


def once(load: F) -> F:
    """Caches a loader's result for the same arguments, for as long as the process lives.

    One thread loads at a time: two that need the same model must not hold its weights twice.
    """
    remembered = functools.cache(load)

    @functools.wraps(load)
    def locked(*args):
        with _LOADING:
            return remembered(*args)

    return locked


@contextmanager
def loading(what: str, name: str) -> Iterator[None]:
    """Around imports and `from_pretrained`: turns their errors into one line about model `name`.

    Args:
        what: the kind of model: "CLIP".
        name: a model of the hub, or the path of a folder that holds one.

    Raises:
        UserError: a package is missing or too old, or the weights are missing, broken, or another model's.
    """
    try:
        yield
    # AttributeError: the package has no such class yet.
    except (ImportError, AttributeError) as error:
        root = error
        while isinstance(root.__cause__, Exception):  # transformers wraps the error that names the package
            root = root.__cause__
        raise UserError(f"{what}: a package is missing or too old ({first_line(root)}); {EXTRA}") from error
    except UserError:
        raise
    # Loaders raise whatever their file formats raise: OSError, ValueError, KeyError, RuntimeError, SafetensorError, ...
    except Exception as error:
        mend = "name a model of the hub, or a folder that save_pretrained has written"
        raise UserError(f"{what}: {name} cannot be loaded ({first_line(error)}); {mend}") from error


def check_kind(name: str, kinds: Sequence[str]) -> None:
    """Checks a model's declared type against what the caller can use.

    `from_pretrained` of another class loads what fits and initialises the rest at random, with no more than a warning.

    Raises:
        ValueError: it is of none of these kinds (`model_type`s of transformers).
    """
    from transformers import AutoConfig

    kind = AutoConfig.from_pretrained(name).model_type
    if kind not in kinds:
        raise ValueError(f"it is a model of type {kind}, not {' or '.join(kinds)}")


def first_line(error: Exception) -> str:
    """An error's message, cut to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def device_of(device: str | None) -> str:
    """The requested device, "cuda", "cuda:1", "cpu", ...; None is a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    # The type of the error depends on the device: AssertionError where torch was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device {device}: torch cannot use it ({first_line(error)}); use cpu or cuda") from error
    return device


def format_of(dtype: str) -> Any:
    """The torch dtype of a name.

    Raises:
        UserError: no such dtype.
    """
    import torch

    if dtype not in _FORMATS:
        raise UserError(f"dtype {dtype}: there is no such number format; use {', '.join(_FORMATS)}")
    return getattr(torch, dtype)


# ---- image models of transformers ----

# ImageNet's mean and deviation, with which every DINO and SAM2 was trained.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class PretrainedModel:
    """A model of `transformers`, loaded on its first use.

    Attributes:
        name: of the hub, or a folder.
        device: None is a GPU where there is one.
        dtype: "float32", "bfloat16" or "float16".
        batch: items per forward pass; the answers do not depend on it.
        TITLE: its name in errors. CLASS: of `transformers`. KINDS: the `model_type`s that are accepted.
        PROCESSOR: whether its processor is loaded.
    """

    name: str
    device: str | None = None
    dtype: str = "float32"
    batch: int = 4

    TITLE: ClassVar[str]
    CLASS: ClassVar[str] = "AutoModel"
    KINDS: ClassVar[tuple[str, ...]]
    PROCESSOR: ClassVar[bool] = False

    def __post_init__(self):
        if self.batch < 1:
            raise UserError(f"{self.TITLE}: batch is {self.batch}; use at least 1")

    def load(self) -> tuple[Any, Any]:
        """(model, processor or None), shared by all objects with these settings.

        Raises:
            UserError: as `loading`, `device_of`, `format_of`; or the model is of another kind.
        """
        return _pretrained(self.TITLE, self.CLASS, self.KINDS, self.PROCESSOR, self.name, self.device, self.dtype)

    def _unit_vectors(self, encode: Callable, items: Sequence[Any], width: int) -> Float32[np.ndarray, "n d"]:
        """`encode` of items, a batch at a time, as vectors of length 1; `width` is their dimension d."""
        import torch

        parts = [np.zeros((0, width), np.float32)]
        with torch.inference_mode():
            for start in range(0, len(items), self.batch):
                features = encode(items[start : start + self.batch]).float()
                parts.append(torch.nn.functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(parts)


@once
def _pretrained(
    title: str, class_name: str, kinds: Sequence[str], processor: bool, name: str, device: str | None, dtype: str
) -> tuple[Any, Any]:
    with loading(title, name):
        import transformers

        on, numbers = device_of(device), format_of(dtype)
        check_kind(name, kinds)
        model = getattr(transformers, class_name).from_pretrained(name).to(device=on, dtype=numbers).eval()
        return model, transformers.AutoProcessor.from_pretrained(name) if processor else None


def pixel_values(
    images: Sequence[Pixels], model: Any, mean: Sequence[float] = _MEAN, deviation: Sequence[float] = _DEVIATION
) -> Any:
    """Images of one size as the model's `pixel_values`, a tensor[b, 3, h, w] on its device, normalised."""
    import torch

    values = (np.stack(images).astype(np.float32) / 255 - np.float32(mean)) / np.float32(deviation)
    return torch.from_numpy(values.transpose(0, 3, 1, 2).copy()).to(model.device, model.dtype)


def cosines(first: Float32[np.ndarray, "n d"], second: Float32[np.ndarray, "n d"]) -> Float32[np.ndarray, "n"]:
    """Cosine of first[i] and second[i], unit vectors."""
    return np.einsum("nd,nd->n", first, second)
