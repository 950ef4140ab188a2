"""From records to numbers, a table and a page.

A metric of a bucket is the sum over its samples divided by the count (of subjects, cells or samples); its
interval is the 95% bootstrap over samples. Values over all buckets are the mean of the buckets' values,
each bucket resampled separately. Read next: `journal.py`, `benches/scenes.py`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from macro.utils.files import atomic_write
from macro.utils.html import render
from macro.utils.images import load

RESAMPLES = 1000
DIGITS = 4
HEADS = {
    "layout_iou": "layout", "layout_iou_independent": "(indep.)", "subject_recall": "subject",
    "kind_recall": "kind", "kind_alone": "(kind)", "texture_alone": "(texture)",
    "palette_distance": "palette", "swap_rate": "swap", "swap_follow": "follow",
}  # fmt: skip

Bucket = Sequence[Mapping[str, Sequence[int | float]]]  # of each sample: metric -> [sum, count]


def _pairs(samples: Bucket, key: str) -> np.ndarray:
    """[n, 2]: sums and counts of one metric; zeros for a sample without it."""
    return np.array([sample.get(key, (0, 0)) for sample in samples], np.float64).reshape(-1, 2)


def _ratio(pairs: np.ndarray) -> np.ndarray:
    """Total sum divided by total count; NaN where the count is 0."""
    total = pairs.sum(-2)
    return np.where(total[..., 1] > 0, total[..., 0] / np.maximum(total[..., 1], 1e-12), np.nan)


def value_of(buckets: Sequence[Bucket], key: str) -> float | None:
    """A metric, averaged over the buckets that have it; None if none does."""
    values = [float(_ratio(_pairs(samples, key))) for samples in buckets]
    values = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(values)), DIGITS) if values else None


def interval_of(buckets: Sequence[Bucket], key: str) -> list[float] | None:
    """The 95% interval of `value_of`, by resampling the samples of each bucket; deterministic."""
    rng, draws = np.random.default_rng(0), []
    for samples in buckets:
        pairs = _pairs(samples, key)
        if len(pairs) and pairs[:, 1].any():
            draws.append(_ratio(pairs[rng.integers(len(pairs), size=(RESAMPLES, len(pairs)))]))
    if not draws:
        return None
    means = np.array(draws).T
    means = means[np.isfinite(means).all(1)]  # resamples with a count of 0 are left out
    low, high = np.quantile(means.mean(1), (0.025, 0.975))
    return [round(float(low), DIGITS), round(float(high), DIGITS)]


def row(buckets: Sequence[Bucket], keys: Sequence[str]) -> dict:
    """Values of all metrics, and their intervals under "intervals"."""
    values = {key: value_of(buckets, key) for key in keys}
    return values | {"intervals": {key: interval_of(buckets, key) for key in keys}}


def summary(
    records: Mapping[str, Sequence[dict]], keys: Sequence[str], yardsticks: Sequence[str], settings: Mapping
) -> dict:
    """The evaluation's JSON.

    Args:
        records: by bucket, in order.
        keys: the metrics.
        yardsticks: names of the baselines besides "model".
        settings: those of the evaluation.
    """

    def samples(version: str) -> dict[str, Bucket]:
        return {name: [record[version] for record in bucket] for name, bucket in records.items()}

    def rows(version: str) -> list[dict]:
        return [{"bucket": name, "num": len(bucket)} | row([bucket], keys) for name, bucket in samples(version).items()]

    def whole(version: str) -> dict:
        return row(list(samples(version).values()), keys)

    return {
        "settings": dict(settings),
        "buckets": rows("model"),
        "overall": whole("model"),
        "yardsticks": {name: whole(name) | {"buckets": rows(name)} for name in yardsticks},
    }


def table(results: Mapping) -> str:
    """The results as lines of text."""
    lines = [_cells("references", "num", HEADS.values())]
    for values in results["buckets"]:
        lines.append(_cells(values["bucket"], values["num"], [_shown(values[key]) for key in HEADS]))
    num = sum(values["num"] for values in results["buckets"])
    for name, values in {"all": results["overall"], **results["yardsticks"]}.items():
        lines.append(_cells(name, num, [_shown(values[key]) for key in HEADS]))
    low_high = results["overall"]["intervals"]
    between = [low_high[key] for key in HEADS]
    lines.insert(-len(results["yardsticks"]), _cells("95% from", "", [_shown(pair and pair[0]) for pair in between]))
    lines.insert(-len(results["yardsticks"]), _cells("95% to", "", [_shown(pair and pair[1]) for pair in between]))
    return "\n".join(lines)


def _cells(name, num, values) -> str:
    return f"{name:<11}{num!s:>5}" + "".join(f"{value:>10}" for value in values)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def page(results: Mapping, strips: Sequence[tuple[str, Path]]) -> str:
    """A self-contained page: the table with intervals, and images.

    Args:
        results: see `summary`.
        strips: the caption of each strip of images, and its file.
    """
    rows = [(values["bucket"], values) for values in results["buckets"]]
    rows += [("all", results["overall"]), *results["yardsticks"].items()]
    return render(
        "evaluation.html",
        measures=list(HEADS),
        rows=rows,
        ruled=["all", *list(results["yardsticks"])[:1]],
        strips=[(words, load(file)) for words, file in strips],
        settings=json.dumps(results["settings"], indent=2, ensure_ascii=False),
    )


def write(workdir: str | Path, results: Mapping, strips: Sequence[tuple[str, Path]], json_file: str | None) -> None:
    """Writes `evaluation.json` and `evaluation.html`, and the JSON also to `json_file` if one is named."""
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    atomic_write(Path(workdir) / "evaluation.json", text)
    atomic_write(Path(workdir) / "evaluation.html", page(results, strips))
    if json_file:
        atomic_write(json_file, text)
