"""The summary of a build: `<name>-summary.json`, and the text that `data.build` prints."""

import re
from collections import Counter
from collections.abc import Sequence

from macro.inputs.shards import Shards
from macro.utils.log import ProgressBar, clock


def summarise(name: str, shards: Shards, steps: Sequence[str], countdown: ProgressBar) -> dict:
    """The counts of all shards; filters in the order of the engine's `steps`.

    Returns:
        JSON-like: "places" requested, "samples" built, "empty" places, "dead" candidates, "filters" {name: {"kept",
        "dropped"}}, "tasks" {task: {bucket: samples}}, "references" {number in a sample: samples} and their mean;
        "spent" at endpoints (`Endpoint.counts`), {} for nothing; "made" places in "seconds" by this call, at "rate" per
        second.
    """
    filters: dict[str, Counter] = {}
    tasks: dict[str, Counter] = {}
    references, samples, dead = Counter(), 0, 0
    for number in range(len(shards)):
        about = shards.about(number)
        samples += about["samples"]
        dead += len(shards.dead(number))
        references.update({int(count): times for count, times in about["references"].items()})
        for key, counts in about["filters"].items():
            filters.setdefault(key, Counter()).update(counts)
        for task, counts in about["tasks"].items():
            tasks.setdefault(task, Counter()).update(counts)
    seconds, place = countdown.seconds(), {name: n for n, name in enumerate(steps)}
    order = sorted(filters, key=lambda name: (place.get(name, len(place)), name))
    return {
        "name": name,
        "places": shards.num,
        "samples": samples,
        "empty": shards.num - samples,
        "dead": dead,
        "filters": {name: dict(filters[name]) for name in order},
        "tasks": {task: dict(sorted(counts.items(), key=_order)) for task, counts in sorted(tasks.items())},
        "references": {str(count): references[count] for count in sorted(references)},
        "references_mean": sum(n * times for n, times in references.items()) / max(samples, 1),
        "spent": shards.spent(),
        "made": countdown.made,
        "seconds": round(seconds, 1),
        "rate": round(countdown.made / seconds, 3),
    }


def _order(bucket: tuple[str, int]) -> tuple[int, str]:
    """Sort key: 4-5 before 11-12, names alphabetically."""
    number = re.search(r"\d+", bucket[0])
    return int(number[0]) if number else 0, bucket[0]


def printed(summary: dict) -> str:
    """The summary as text."""
    lines = [f"{summary['name']}: {summary['samples']:,} samples in {summary['places']:,} places"]
    if summary["filters"]:
        width = max(map(len, summary["filters"]))
        lines += [f"  {'filter':{width}}     kept  dropped"]
        lines += [
            f"  {name:{width}}  {counts['kept']:7,}  {counts['dropped']:7,}"
            for name, counts in summary["filters"].items()
        ]
    for task, buckets in summary["tasks"].items():
        lines.append(f"  {task}: " + ", ".join(f"{count:,} of {bucket}" for bucket, count in buckets.items()))
    lines.append(f"  {summary['references_mean']:.2f} references a sample")
    if summary["spent"]:
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(summary["spent"].items()))
        lines.append(f"  endpoints: {counts}")
    lines.append(f"  {summary['made']:,} places in {clock(summary['seconds'])}, {summary['rate']:.3g} a second")
    lines.append(f"  {summary['dead']:,} dead drafts: {summary['name']}-dead.jsonl")
    empty = f"{summary['empty']:,} places stayed EMPTY: every attempt was dropped"
    lines.append(f"  {empty if summary['empty'] else 'all places are filled'}")
    return "\n".join(lines)
