"""The TFDS builder of `inset`: what `macro/engines/inset/` makes, as ArrayRecord.

    Builder(data_dir=..., seed=0, num=1000, options=Options()).download_and_prepare()

How it is made and written: `data/builders.py`, `macro/inputs/records.py`; what a record holds: `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from data.builders import EngineBuilder
from macro.engines.inset import ENGINE, Options

__all__ = ["Builder", "Options"]


class Builder(EngineBuilder):
    """Captions with images in them, cut from the photo or from an earlier frame."""

    name = "inset"
    engine = "macro.engines.inset:ENGINE"
    VERSION = tfds.core.Version(ENGINE.version)
