"""Statistics of a data set: counts, references, subjects, box areas, and what its filters dropped and why.

Read next: `gallery.py` (how it is shown), `summary.py` (what a build writes).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data.shards import bucket_of
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError

# Upper bounds of the bins for areas of boxes, as shares of the image.
AREAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REASONS = 12


@dataclass
class Statistics:
    """Counts of a data set.

    Attributes:
        samples: number of samples; looked: how many of them were counted.
        places: (task, bucket) -> indices of the counted samples, in order.
        references, subjects: number in a sample -> number of samples.
        areas: bin of AREAS -> number of boxes.
        filters: name -> {"kept", "dropped"}, of a build's summary. dead: (step, reason) -> count, most frequent first.
    """

    samples: int
    looked: int = 0
    places: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    references: Counter = field(default_factory=Counter)
    subjects: Counter = field(default_factory=Counter)
    areas: Counter = field(default_factory=Counter)
    filters: dict[str, dict[str, int]] = field(default_factory=dict)
    dead: list[tuple[tuple[str, str], int]] = field(default_factory=list)


def statistics_of(outlines: Iterable[tuple[int, Sentence]], samples: int, summary: Path, dead: Path) -> Statistics:
    """The statistics of a data set.

    Args:
        outlines: index and outline of each counted sample. samples: number of samples in the data set.
        summary, dead: files of a build; missing ones are left out.

    Raises:
        UserError: one of the files was not written by a build.
    """
    found = Statistics(samples)
    for index, sentence in outlines:
        found.looked += 1
        found.places.setdefault((sentence.task, bucket_of(sentence)), []).append(index)
        found.references[references_of(sentence)] += 1
        boxes = [region["box"] for region in sentence.notes.get("regions", ())]
        count = len(boxes) or (len(sentence.plan.named) if sentence.plan is not None else 0)
        if count:
            found.subjects[count] += 1
        for x0, y0, x1, y1 in boxes:
            found.areas[next(end for end in AREAS if (x1 - x0) * (y1 - y0) <= end + 1e-6)] += 1
    found.places = dict(sorted(found.places.items(), key=_in_order))
    try:
        if summary.is_file():
            found.filters = dict(json.loads(summary.read_text())["filters"])
        if dead.is_file():
            letters = [json.loads(line) for line in dead.read_text().splitlines()]
            found.dead = Counter((one["step"], one["reason"]) for one in letters).most_common(REASONS)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{summary} or {dead.name}: is not what data.build writes ({error!r}); move it away") from None
    return found


def _in_order(item: tuple[tuple[str, str], list[int]]) -> tuple:
    """Sort key: by task, then by bucket, "4-5" before "11-12", and names alphabetically."""
    (task, bucket), _ = item
    number = re.search(r"\d+", bucket)
    return task, int(number[0]) if number else 0, bucket


def references_of(sentence: Sentence) -> int:
    """Number of images before the target."""
    count = 0
    for span in sentence:
        if isinstance(span, Target):
            break
        count += isinstance(span, Image)
    return count
