"""One page to look at data: samples by task and bucket, as their sentences, with boxes, layouts and verdicts.

    python -m data.browse runs/data                       writes runs/data/browse.html
    python -m data.browse runs/data/music --num=20 --seed=1 --out=page.html

The folder may hold any number of data sets: those that `data.build` made, with the summaries and dead letters beside
them, and folders of JSON samples as MACRO and INSET publish them. The page needs nothing from anywhere.
What is shown: `statistics.py`, `gallery.py`.
"""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.gallery import SIDE, gallery
from data.statistics import Statistics, statistics_of
from macro.inputs.sources import JsonFolderSource, open_source
from macro.sentence.spans import Sentence
from macro.utils.config import run
from macro.utils.errors import UserError
from macro.utils.files import atomic_write

LOOKED = 20_000  # samples of a data set that are counted, evenly spaced if there are more
MOST = 600  # samples on a page, about 50 kB each; with more a browser gets slow


@dataclass(frozen=True)
class DataSet:
    """A data set to show: its samples, and its summary and dead letters if they lie beside it."""

    name: str
    samples: Sequence[Sentence]
    summary: Path
    dead: Path


def main(folder: str, num: int = 8, seed: int = 0, out: str = "") -> None:
    if num < 1:
        raise UserError(f"--num={num}: must be at least 1")
    out = out or str(Path(folder) / "browse.html")
    shown, size = browse(folder, num, seed, out)
    print(f"wrote {out}: {shown:,} samples, {size / 1e6:.1f} MB")


def browse(folder: str, num: int, seed: int, out: str) -> tuple[int, int]:
    """Writes the page; returns how many samples it shows, and its bytes.

    Args:
        num: samples of each task and bucket, fewer where there are very many of these; `seed` chooses which.

    Raises:
        UserError: no data set in the folder, or something in it that cannot be read.
    """
    sets = [(one, _counted(one)) for one in data_sets(folder)]
    num = min(num, max(1, MOST // sum(len(found.places) for _, found in sets)))
    chapters, shown = [], 0
    for one, found in sets:
        samples = {}
        for kind, places in found.places.items():
            picked = _pick(places, num, [seed, *_hashes(one.name, *kind)])
            samples[kind] = [one.samples[index] for index in picked]
            shown += len(picked)
        chapters.append((one.name, found, samples))
    about = f"{num} of each task and bucket, seed {seed}; images are shown at most {SIDE} pixels a side, as JPEG"
    page = gallery(os.path.basename(os.path.abspath(folder)), about, chapters)
    atomic_write(out, page)
    return shown, len(page.encode())


def data_sets(folder: str) -> list[DataSet]:
    """All data sets in the folder: those that were built, then folders of JSON samples."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: there is no such folder; name one that holds data sets")
    found = []
    for built, where in sorted(_found(root), key=lambda each: (not each[0], each[1])):
        name, beside = where.parent.name if built else f"{where.name} (JSON)", where.parent.parent
        samples = open_source(str(where)) if built else JsonFolderSource(where)
        found.append(DataSet(name, samples, beside / f"{name}-summary.json", beside / f"{name}-dead.jsonl"))
    if not found:
        raise UserError(f"{folder}: holds no data set and no .json samples; name a folder that does")
    names = [one.name for one in found]
    if len(set(names)) < len(names):  # several versions of one
        found = [DataSet(f"{one.name} ({n})", one.samples, one.summary, one.dead) for n, one in enumerate(found, 1)]
    return found


def _found(folder: Path) -> list[tuple[bool, Path]]:
    """(whether it was built, else it holds JSON samples; folder) of each data set, searching no deeper than needed."""
    if (folder / "dataset_info.json").is_file():
        return [(True, folder)]
    if any(folder.glob("**/dataset_info.json")):
        below = sorted(each for each in folder.iterdir() if each.is_dir())
        # The JSON layout that macrodata's build writes beside its records holds the same samples.
        twin = folder / "data" if (folder / "macrodata").is_dir() and (folder / "data" / "filter").is_dir() else None
        return [found for each in below if each != twin for found in _found(each)]
    return [(False, folder)] if any(folder.glob("**/*.json")) else []


def looked_at(samples: Sequence[Sentence]) -> list[int]:
    """Which samples are counted: all, or LOOKED of them, evenly spaced."""
    return np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED)).round().astype(int)).tolist()


def _counted(one: DataSet) -> Statistics:
    outlines = ((index, one.samples.outline(index)) for index in looked_at(one.samples))
    return statistics_of(outlines, len(one.samples), one.summary, one.dead)


def _pick(places: Sequence[int], num: int, seed: Sequence[int]) -> list[int]:
    """At most `num` of them, in their order; the same seed picks the same."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(places, min(num, len(places)), replace=False).tolist())


def _hashes(*names: str) -> list[int]:
    return [zlib.crc32(name.encode()) for name in names]


if __name__ == "__main__":
    run(
        main,
        positional=("folder",),
        folder="folder that holds data sets, built or as JSON samples",
        num="samples of each task and bucket",
        seed="chooses which",
        out="the page to write; browse.html in the folder if left out",
    )
