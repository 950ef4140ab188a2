"""MacroData's published layout: a JSON file a sample, images beside it, folders by task, split and bucket.

    <out>/data/filter/{task}/{train|eval}/{1-3|4-5|6-7|>=8}/00000012.json     task, idx, prompt, input_images, ...
                                                            00000012_input1.png

It is written from the finished records, so that both hold the same samples; paths in a JSON file are relative
to it. A task's folder appears once it is complete. The way back: `from_json.py`.
Read next: `macro/sentence/prompt.py` (`write_macrodata`), `macro/inputs/sources.py`.
"""

import functools
import os
import shutil
from pathlib import Path

from etils import epath

from data.builders import EngineBuilder
from data.runners import side_by_side
from data.shards import bucket_of_count
from macro.inputs.shards import is_local
from macro.inputs.sources import open_source
from macro.sentence.formats.macrodata import write_macrodata
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError
from macro.utils.log import ProgressBar

_CHUNK = 256  # samples that a process writes before it reports progress


def file_of(sentence: Sentence, split: str) -> Path:
    """Path of a sample's JSON file below `data/filter`."""
    bucket = bucket_of_count(len(sentence.images))
    return Path(sentence.task) / split / bucket / f"{sentence.idx:08d}.json"


class LayoutBuilder(EngineBuilder, skip_registration=True):
    """A data set of an engine that is also written in the published layout."""

    def __init__(self, *, data_dir: str, **kwargs):
        """See `EngineBuilder`; UserError for a folder that is not local."""
        if not is_local(data_dir):
            raise UserError(f"--out={data_dir}: {self.name} also writes JSON files, for which --out must be local")
        super().__init__(data_dir=data_dir, **kwargs)

    def download_and_prepare(self) -> None:
        """Builds the data set, then the layout, skipping what exists already.

        Raises:
            UserError: see `EngineBuilder`; a layout of another build is there already.
        """
        out, half = Path(self.data_dir_root), self._half
        there = sorted((out / "data" / "filter").glob(f"*/{self.split}"))
        if there and not half.exists() and not epath.Path(self.data_dir).exists():
            raise UserError(f"--out: {there[0]} is there already, from another build; name another folder")
        super().download_and_prepare()
        if half.exists() or not there:
            write_layout(self.data_dir, out / "data" / "filter", half, self.split, self.workers)

    @property
    def _half(self) -> Path:
        """Folder in which the layout is written until it is complete."""
        return Path(self.data_dir_root) / f"{self.name}.json-{self.key}"


def write_layout(records: str, folder: Path, half: Path, split: str, workers: int = 1) -> None:
    """Writes the data set in `records` under `folder`, in the published layout.

    Args:
        half: a folder beside it for the incomplete layout; a call that was stopped resumes from there.
        workers: processes that write in parallel.
    """
    total = len(open_source(records))
    half.mkdir(parents=True, exist_ok=True)
    countdown = ProgressBar("JSON", total, "samples")
    write = functools.partial(_write_some, records, folder, half, split)
    for number in side_by_side(write, range(0, total, _CHUNK), workers):
        countdown.done(number)
    for task in sorted(half.iterdir()):
        (folder / task.name).mkdir(parents=True, exist_ok=True)
        os.rename(task / split, folder / task.name / split)
    shutil.rmtree(half)


def _write_some(records: str, folder: Path, half: Path, split: str, start: int) -> int:
    """Writes a chunk of samples; those that are there already are left. Returns how many there were."""
    source = open_source(records, truth=False)
    chunk = range(start, min(start + _CHUNK, len(source)))
    for index in chunk:
        file = file_of(source.outline(index), split)
        # Its task may be complete already, if a build was stopped between two tasks.
        if not (half / file).exists() and not (folder / file.parts[0] / split).exists():
            write_macrodata(half / file, source[index])
    return len(chunk)
