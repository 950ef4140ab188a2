"""The TFDS builder of `macrodata`: what `macro/engines/macrodata/` makes, as ArrayRecord and in the published layout.

    Builder(data_dir=..., seed=0, num=1600, options=Options()).download_and_prepare()

How it is made and written: `data/builders.py`, `layout.py`; what a record holds: `macro/inputs/codec.py`.
"""

import tensorflow_datasets as tfds

from data.macrodata.layout import LayoutBuilder
from macro.engines.macrodata import ENGINE, Options

__all__ = ["Builder", "Options"]


class Builder(LayoutBuilder):
    """Four tasks with one to ten references, in four buckets of their number."""

    name = "macrodata"
    engine = "macro.engines.macrodata:ENGINE"
    VERSION = tfds.core.Version(ENGINE.version)
