"""The TFDS builder of `edit`: what `macro/engines/edit.py` makes, as ArrayRecord.

    Builder(data_dir=..., seed=0, num=1000, options=Options()).download_and_prepare()

How it is made and written: `data/builders.py`, `macro/inputs/records.py`; what a record holds: `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from data.builders import EngineBuilder
from macro.engines.edit import ENGINE, Options

__all__ = ["Builder", "Options"]


class Builder(EngineBuilder):
    """An image, a sentence that asks for one change, and the image with that change."""

    name = "edit"
    engine = "macro.engines.edit:ENGINE"
    needs_provider = False
    VERSION = tfds.core.Version(ENGINE.version)
