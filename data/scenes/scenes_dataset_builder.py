"""The TFDS builder of `scenes`: what `macro/engines/scenes.py` makes, as ArrayRecord.

    Builder(data_dir=..., seed=0, num=20000, options=Options(size=128)).download_and_prepare()

How it is made and written: `data/builders.py`, `macro/inputs/records.py`; what a record holds: `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from data.builders import EngineBuilder
from macro.engines.scenes import VERSION, Options

__all__ = ["Builder", "Options"]


class Builder(EngineBuilder):
    """Scenes with 1..12 subjects, their references, plan and truth."""

    name = "scenes"
    engine = "macro.engines.scenes:ENGINE"
    needs_provider = False
    VERSION = tfds.core.Version(VERSION)
