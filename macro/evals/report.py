"""From records to numbers, a table and a page.

A measure of a bucket is the sum over its samples divided by the number of things (subjects, cells, samples);
its interval is the 95% bootstrap over samples. Values over all buckets are the mean of the buckets' values,
each bucket resampled by itself. Read next: `journal.py`, `benches/scenes.py`.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from macro.utils.files import atomic_write
from macro.utils.images import data_uri, load

RESAMPLES = 1000
DIGITS = 4
HEADS = {
    "layout_iou": "layout", "layout_iou_independent": "(indep.)", "subject_recall": "subject",
    "kind_recall": "kind", "kind_alone": "(kind)", "texture_alone": "(texture)",
    "palette_distance": "palette", "swap_rate": "swap", "swap_follow": "follow",
}  # fmt: skip

Bucket = Sequence[Mapping[str, Sequence[int | float]]]  # of each sample: measure -> [sum, number of things]


def _pairs(samples: Bucket, key: str) -> np.ndarray:
    """[n, 2]: sums and numbers of one measure; nothing of a kind counts as zeros."""
    return np.array([sample.get(key, (0, 0)) for sample in samples], np.float64).reshape(-1, 2)


def _ratio(pairs: np.ndarray) -> np.ndarray:
    """Sums over the samples, divided; NaN where there is nothing to count."""
    total = pairs.sum(-2)
    return np.where(total[..., 1] > 0, total[..., 0] / np.maximum(total[..., 1], 1e-12), np.nan)


def value_of(buckets: Sequence[Bucket], key: str) -> float | None:
    """A measure, the mean over the buckets that have it; None if none does."""
    values = [float(_ratio(_pairs(samples, key))) for samples in buckets]
    values = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(values)), DIGITS) if values else None


def interval_of(buckets: Sequence[Bucket], key: str) -> list[float] | None:
    """The 95% interval of `value_of`, by resampling the samples of each bucket; the same every time."""
    rng, draws = np.random.default_rng(0), []
    for samples in buckets:
        pairs = _pairs(samples, key)
        if len(pairs) and pairs[:, 1].any():
            draws.append(_ratio(pairs[rng.integers(len(pairs), size=(RESAMPLES, len(pairs)))]))
    if not draws:
        return None
    means = np.array(draws).T
    means = means[np.isfinite(means).all(1)]  # a draw of samples in which nothing can be counted says nothing
    low, high = np.quantile(means.mean(1), (0.025, 0.975))
    return [round(float(low), DIGITS), round(float(high), DIGITS)]


def row(buckets: Sequence[Bucket], keys: Sequence[str]) -> dict:
    """Values of all measures, and their intervals under "intervals"."""
    values = {key: value_of(buckets, key) for key in keys}
    return values | {"intervals": {key: interval_of(buckets, key) for key in keys}}


def summary(
    records: Mapping[str, Sequence[dict]], keys: Sequence[str], yardsticks: Sequence[str], settings: Mapping
) -> dict:
    """The evaluation's JSON.

    Args:
        records: by bucket, in order.
        keys: the measures.
        yardsticks: names of the versions beside "model".
        settings: what it was made with.
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


# ---- the page ----

_LEGEND = (
    "Shares from 0 to 1, with 95% intervals; palette distance in Oklab. The last rows are yardsticks: the true "
    "picture through the VAE, the true scene in another light and pose (what a perfect composer would score), "
    "and another sample's picture. A right layout need not be the true one: compare it with the agreement of "
    "two independent layouts of one instruction."
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #24292f }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .25rem .7rem; text-align: right }
th { border-bottom: 2px solid #888; font-weight: 600 }
tr.rule td { border-top: 1px solid #bbb }
td:first-child, th:first-child { text-align: left }
small { color: #667; white-space: nowrap }
img { max-width: 100% }
section { border-top: 1px solid #ddd; padding: .6rem 0 }
pre { white-space: pre-wrap; color: #556 }
"""


def page(results: Mapping, strips: Sequence[tuple[str, Path]]) -> str:
    """A page that stands alone: the table with intervals, and images.

    Args:
        results: see `summary`.
        strips: what stands under each image strip, and its file.
    """
    parts = [
        f"<title>scenes</title><style>{_STYLE}</style><h1>Benchmark &ldquo;scenes&rdquo;</h1>",
        _table(results),
        f"<p>{_LEGEND}</p>",
    ]
    for words, file in strips:
        picture = f'<img src="{data_uri(load(file))}" alt="">'
        parts.append(f"<section>{picture}<br>{html.escape(words)}</section>")
    settings = json.dumps(results["settings"], indent=2, ensure_ascii=False)
    parts.append(f"<h2>Settings</h2><pre>{html.escape(settings)}</pre>")
    return '<!doctype html><html lang="en"><meta charset="utf-8">' + "".join(parts) + "</html>"


def _table(results: Mapping) -> str:
    head = "".join(f"<th>{html.escape(key.replace('_', ' '))}</th>" for key in HEADS)
    rows = [(values["bucket"], values) for values in results["buckets"]]
    rows += [("all", results["overall"]), *results["yardsticks"].items()]
    body = ""
    for name, values in rows:
        ruled = ' class="rule"' if name in ("all", *list(results["yardsticks"])[:1]) else ""
        cells = "".join(f"<td>{_with_interval(values, key)}</td>" for key in HEADS)
        body += f"<tr{ruled}><td>{html.escape(name)}</td>{cells}</tr>"
    return f"<table><tr><th>references</th>{head}</tr>{body}</table>"


def _with_interval(values: Mapping, key: str) -> str:
    interval = values["intervals"][key]
    if values[key] is None or interval is None:
        return "-"
    return f"{values[key]:.3f}<br><small>{interval[0]:.3f}&ndash;{interval[1]:.3f}</small>"


def write(workdir: str | Path, results: Mapping, strips: Sequence[tuple[str, Path]], json_file: str | None) -> None:
    """Writes `evaluation.json` and `evaluation.html`, and the JSON also to `json_file` if one is named."""
    text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
    atomic_write(Path(workdir) / "evaluation.json", text)
    atomic_write(Path(workdir) / "evaluation.html", page(results, strips))
    if json_file:
        atomic_write(json_file, text)
