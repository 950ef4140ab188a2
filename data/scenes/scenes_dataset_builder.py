"""The TFDS builder of `scenes`: what `macro/engines/scenes.py` makes, as ArrayRecord.

    Builder(data_dir=..., seed=0, num=20000, options=Options(size=128)).download_and_prepare()

How it writes and what a record holds: `macro/inputs/records.py`, `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from macro.engines.scenes import VERSION, Options, samples
from macro.inputs.records import SentenceBuilder


class Builder(SentenceBuilder):
    """Scenes with 1..12 subjects, their references, plan and truth."""

    name = "scenes"
    VERSION = tfds.core.Version(VERSION)
    make = staticmethod(samples)

    def __init__(self, *, options: Options | None = None, **kwargs):
        super().__init__(options=options or Options(), **kwargs)
