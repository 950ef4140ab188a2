"""How good the shipped model's images are under other sampling settings: the same scenes, plans, seeds each time.

Scenes, measures and their meaning are those of the benchmark "scenes" (`macro/evals/benches/scenes.py`), of which this
takes one bucket. The plans are the model's own, written once. Used by `006_selection` and `007_step_caching`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import macro
from macro.evals.benches.scenes import Judge, cases, classify_cells, question
from macro.evals.classifier.model import load as load_classifier
from macro.training.data import data_config
from macro.utils import config as config_lib

BATCH = 8
NAMES = ("subject_recall", "kind_recall", "palette_distance", "swap_rate")


class Quality:
    """Draws scenes of one bucket under settings, and measures what came out."""

    def __init__(self, bucket: str, num: int, seed: int):
        config = config_lib.load("configs/demo.py")
        _, options = data_config(config)
        self.pipeline, self.classifier = macro.load("demo", config), load_classifier()
        self.cases = cases(bucket, 0, num, seed, 0, options)
        self.asked = [question(case.sentence) for case in self.cases]
        self.plans = [made.plan for made in self._compose(None)[0]]
        grids, counts = [case.sentence.plan.grid for case in self.cases], self._counts()
        self.true = classify_cells(self.classifier, [case.sentence.target.pixels for case in self.cases], grids, counts)

    def _counts(self) -> list[int]:
        return [len(case.sentence.truth.kinds) for case in self.cases]

    def _compose(self, plans, **changes):
        """All compositions, and the median seconds of a batch's denoising loop, of which some had to be compiled."""
        made, seconds = [], []
        for start in range(0, len(self.asked), BATCH):
            batch = slice(start, start + BATCH)
            seeds = [case.index for case in self.cases[batch]]
            given = None if plans is None else plans[batch]
            made += self.pipeline.compose_batch(self.asked[batch], given, seeds=seeds, **changes)
            seconds.append(made[-1].seconds["draw"])
        return made, statistics.median(seconds)

    def measure(self, **changes) -> dict:
        """Means over subjects with 95% intervals over scenes, and seconds of a batch's loop."""
        made, seconds = self._compose(self.plans, **changes)
        grids = [result.plan.grid for result in made]
        predictions = classify_cells(self.classifier, [result.pixels for result in made], grids, self._counts())
        records = []
        for case, result, prediction, true in zip(self.cases, made, predictions, self.true, strict=True):
            judge = Judge(case)
            measures = judge.colour_measures(result.pixels, result.plan.grid) | judge.kind_measures(prediction, true)
            records.append({name: measures[name] for name in NAMES})
        found = {name: _mean(np.array([record[name] for record in records], float)) for name in NAMES}
        return found | {"loop_seconds": seconds, "full_steps": made[0].full_steps}


def _mean(sums: np.ndarray) -> list[float]:
    """Mean, and the ends of its 95% interval by 1,000 resamplings of scenes; `sums` has (sum, number) rows."""
    draws = np.random.default_rng(0).integers(len(sums), size=(1000, len(sums)))
    means = sums[draws].sum(axis=1)
    low, high = np.percentile(means[:, 0] / np.maximum(means[:, 1], 1), (2.5, 97.5))
    return [float(sums[:, 0].sum() / max(sums[:, 1].sum(), 1)), float(low), float(high)]


def run(folder: Path, variants: Mapping[str, dict], bucket: str, num: int, seed: int) -> dict:
    """Measures every variant that `results.json` in the folder does not have yet; variant -> measures."""
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    missing = [name for name in variants if name not in results]
    if not missing:
        return results
    quality, start = Quality(bucket, num, seed), time.monotonic()
    for number, name in enumerate(missing, 1):
        results[name] = quality.measure(**variants[name])
        file.write_text(json.dumps(results, indent=1) + "\n")
        left = (time.monotonic() - start) / number * (len(missing) - number)
        print(f"{name}: subject recall {results[name]['subject_recall'][0]:.3f}, {left:.0f} s left", file=sys.stderr)
    return results
