"""Sentences that lie in folders as JSON files beside their images, and mixtures of them.

    Files("macrodata/customization/train/1-3")       every *.json below the folder, in the order of their paths
    Mixture([a, b], [2, 3])                          two samples of a for three of b

MacroData's files (`prompt`, `input_images`) and INSET's (`caption`, `map`, `images`) are told apart by their fields
(`macro/sentence/formats.py`). Both classes are sequences with `outline`, as `macro/inputs/pipeline.py` reads them.
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from macro.sentence.formats import read, with_pixels
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError
from macro.utils.images import size_of


class Files(Sequence):
    """The sentences of a folder; images are read when a sentence is asked for."""

    def __init__(self, folder: str | os.PathLike):
        """
        Args:
            folder: looked through with all folders below it.

        Raises:
            UserError: no JSON file in it.
        """
        self._paths = sorted(str(path) for path in Path(folder).glob("**/*.json"))
        if not self._paths:
            raise UserError(f"{folder}: no .json files are there; name a folder of MacroData or INSET samples")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sentence:
        return with_pixels(self._read(index))

    def outline(self, index: int) -> Sentence:
        """The sentence with black images of the right size: no image is decoded."""
        sentence = self._read(index)
        return sentence.replace(spans=tuple(_black(span) for span in sentence))

    def _read(self, index: int) -> Sentence:
        path = self._paths[index]
        sentence = read(path)
        if sentence.target is None:
            raise UserError(f"{path}: has no output_image; there is nothing to learn to draw")
        return sentence


def _black(span):
    if not isinstance(span, Image | Target):
        return span
    return dataclasses.replace(span, pixels=np.broadcast_to(np.uint8(0), (*size_of(span.path), 3)))


class Mixture(Sequence):
    """Several data sets as one, whose parts stand in given proportions.

    An epoch holds every sample of every part at least once: the part that is largest for its weight once, the others
    again and again, from the start. The order within the epoch is whoever reads's business.
    """

    def __init__(self, parts: Sequence[Sequence], weights: Sequence[int | float]):
        """Args: `parts` not empty; `weights` above 0, one a part; only their proportions count."""
        rounds = max(len(part) / weight for part, weight in zip(parts, weights, strict=True))
        # A hair below: len / weight * weight may come out a little above len.
        counts = [int(np.ceil(weight * rounds - 1e-9)) for weight in weights]
        self._parts, self._ends = list(parts), np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> Sentence:
        part, place = self._locate(index)
        return part[place]

    def outline(self, index: int) -> Sentence:
        """The part's own outline of the sentence, or the sentence where it has none."""
        part, place = self._locate(index)
        return getattr(part, "outline", part.__getitem__)(place)

    def _locate(self, index: int) -> tuple[Sequence, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sentence {index} of {len(self)}")
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self._parts[number], (index - start) % len(self._parts[number])
