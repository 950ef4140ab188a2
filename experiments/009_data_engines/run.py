"""Statistics of built data sets beside the papers', and a sheet of samples: results.json, table.md, samples.png here.

python -m data.build macrodata --num=800 --out=runs/engines --seed=0 --workers=2
python -m data.build music --num=500 --out=runs/engines --seed=0 --workers=2
python -m data.build inset --num=200 --out=runs/engines --seed=0 --workers=2
python experiments/009_data_engines/run.py --data=runs/engines
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from macro.inputs.sources import open_source  # noqa: E402
from macro.sentence.prompt import prompt_of  # noqa: E402
from macro.sentence.spans import Sentence  # noqa: E402
from macro.utils.config import run  # noqa: E402
from macro.utils.files import atomic_write  # noqa: E402
from macro.utils.images import resize_and_crop, save  # noqa: E402

# What the papers say, with the words for the table.
CATEGORIES = {"human": 0.4, "cloth": 0.1, "object": 0.3, "scene": 0.15, "style": 0.05}
PAPER_REFERENCES = "5.44"


def main(data: str) -> None:
    sets = {name: list(_read(data, name)) for name in ("macrodata", "music", "inset")}
    results = macrodata(sets["macrodata"]) | music(sets["music"]) | inset(sets["inset"])
    atomic_write(HERE / "results.json", json.dumps(results, indent=1) + "\n")
    atomic_write(HERE / "table.md", table(results))
    save(HERE / "samples.png", sheet(sets["macrodata"]))
    print(table(results))


def _read(data: str, name: str) -> Iterable[Sentence]:
    source = open_source(str(Path(data) / name))
    return (source[index] for index in range(len(source)))


def macrodata(samples: list[Sentence]) -> dict:
    """References per sample by task, and customization's categories."""
    found = {"macrodata samples": [len(samples), "400,000"]}
    counts = [len(sample.images) for sample in samples]
    found["macrodata references per sample, mean"] = [round(float(np.mean(counts)), 2), PAPER_REFERENCES]
    for task in sorted({sample.task for sample in samples}):
        own = [len(sample.images) for sample in samples if sample.task == task]
        found[f"{task}: share of samples, references per sample"] = [
            f"{len(own) / len(samples):.3f}, {np.mean(own):.2f}", "0.250, -"
        ]  # fmt: skip
    chosen = Counter(c for s in samples if s.task == "customization" for c in s.notes["categories"])
    for name, share in CATEGORIES.items():
        found[f"customization: share of {name}"] = [round(chosen[name] / chosen.total(), 3), share]
    return found


def music(samples: list[Sentence]) -> dict:
    """Subjects, boxes and words of MUSIC's samples."""
    subjects = [len(sample.images) for sample in samples]
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for s in samples for b in (r["box"] for r in s.notes["regions"])]
    shapes = Counter(shape for sample in samples for shape in sample.notes["shapes"])
    words = [len(prompt_of(s).replace("<image ", "<").split()) / len(s.images) for s in samples]
    thoughts = [len(sample.plan.cot.split()) / len(sample.images) for sample in samples]
    return {
        "music samples": [len(samples), "10,000"],
        "music subjects per sample, least to most (mean)": [
            f"{min(subjects)} to {max(subjects)} ({np.mean(subjects):.2f})", "up to 12"
        ],
        "music area of a subject's box, least (median)": [f"{min(areas):.3f} ({np.median(areas):.3f})", "at least .01"],
        "music subjects laid out by their mask": [round(shapes["mask"] / shapes.total(), 3), "-"],
        "music words per subject, instruction and thought": [f"{np.mean(words):.1f}, {np.mean(thoughts):.1f}", "-"],
    }  # fmt: skip


def inset(samples: list[Sentence]) -> dict:
    """Images per sample, and which branch they come from."""
    counts = [len(sample.images) for sample in samples]
    video = np.mean([sample.notes["bucket"] == "video" for sample in samples])
    return {
        "inset samples": [len(samples), "15,000,000"],
        "inset images per sample, least to most (mean)": [
            f"{min(counts)} to {max(counts)} ({np.mean(counts):.2f})", "3 to 8"
        ],
        "inset share of the video branch": [round(float(video), 3), 0.333],
    }  # fmt: skip


def sheet(samples: list[Sentence], side: int = 96, gap: int = 6) -> np.ndarray:
    """A row for the first sample of every task with 4-5, and with 6-7 references: they, then the target, larger."""
    shown = [
        next(s for s in samples if s.task == task and s.notes["bucket"] == bucket)
        for task in sorted({sample.task for sample in samples})
        for bucket in ("4-5", "6-7")
    ]
    white = np.full((2 * side, gap, 3), 255, np.uint8)
    rows = []
    for left, right in zip(shown[::2], shown[1::2], strict=True):
        rows += [np.concatenate([_row(left, 5, side), white, white, _row(right, 8, side)], axis=1)]
        rows += [np.full((gap, rows[-1].shape[1], 3), 255, np.uint8)]
    return np.concatenate(rows[:-1])


def _row(sample: Sentence, places: int, side: int) -> np.ndarray:
    """References in two lines, then the target in both."""
    columns = -(-places // 2)
    page = np.full((2 * side, (columns + 2) * side, 3), 255, np.uint8)
    for n, image in enumerate(sample.images):
        top, left = n // columns * side, n % columns * side
        page[top : top + side, left : left + side] = resize_and_crop(image.pixels, (side, side))
    page[:, columns * side :] = resize_and_crop(sample.target.pixels, (2 * side, 2 * side))
    return page


def table(results: dict) -> str:
    """Markdown: ours beside the papers'."""
    lines = ["| | here | in the paper |\n|---|---|---|\n"]
    return "".join(lines + [f"| {name} | {ours} | {theirs} |\n" for name, (ours, theirs) in results.items()])


if __name__ == "__main__":
    run(main, data="folder that holds the data sets macrodata, music and inset")
