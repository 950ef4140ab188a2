"""The TFDS builder of `music`: what `macro/engines/music.py` makes, as ArrayRecord.

    Builder(data_dir=..., seed=0, num=1000, options=Options()).download_and_prepare()

How it is made and written: `data/builders.py`, `macro/inputs/records.py`; what a record holds: `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from data.builders import EngineBuilder
from macro.engines.music import ENGINE, Options

__all__ = ["Builder", "Options"]


class Builder(EngineBuilder):
    """Up to 12 subjects, a reference of each from another view, thought and layout."""

    name = "music"
    engine = "macro.engines.music:ENGINE"
    VERSION = tfds.core.Version(ENGINE.version)
