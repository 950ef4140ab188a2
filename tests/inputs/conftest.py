"""A toy tokenizer, toy sentences and a toy source, small enough to count by hand."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text


class ToyTokenizer:
    """A character is its code; special ids lie above."""

    bos, eos, image_start, image_end, layout_start, layout_end = 300, 301, 302, 303, 304, 305
    cells = tuple(range(310, 323))

    def encode(self, text):
        return [ord(c) for c in text]

    def decode(self, ids):
        return "".join(chr(i) for i in ids if i < 300)


def image(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@cache
def sentence(index, subjects=None):
    """A compose sample with 1..12 references and text and plan that grow with them, as scenes have."""
    rng = np.random.default_rng((index, 7))
    subjects = subjects or int(rng.integers(1, 13))
    spans = []
    for n in range(1, subjects + 1):
        spans += [Text("w" * int(rng.integers(2, 8))), Image(image(n, 16, 16), subject=n, number=n)]
    grid = rng.integers(0, subjects + 1, (8, 8)).astype(np.int8)
    spans += [Plan("c" * int(rng.integers(5, 9) * subjects), grid), Target(image(index, 32, 32))]
    return Sentence(tuple(spans), idx=index)


class ToySource(Sequence):
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return sentence(index)


@pytest.fixture
def tokenizer():
    return ToyTokenizer()


@pytest.fixture
def make_sentence():
    return sentence


@pytest.fixture
def make_image():
    return image


@pytest.fixture
def make_source():
    return ToySource
