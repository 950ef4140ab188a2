"""What a data set is made of, in numbers: counts, references, subjects, areas, and what its filters dropped and why.

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

# Upper ends of the classes that areas of boxes are counted in, as shares of the image.
AREAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
REASONS = 12


@dataclass
class Statistics:
    """Counts of a data set.

    Attributes:
        samples: how many there are; looked: how many of them were counted.
        places: (task, bucket) -> which samples, of those that were counted; in order.
        references, subjects: their number in a sample -> samples.
        areas: class of AREAS -> boxes.
        filters: name -> {"kept", "dropped"}, of a build's summary. dead: (step, reason) -> candidates, most frequent.
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
        outlines: index and outline of the samples that are counted. samples: how many there are in all.
        summary, dead: files of a build; what is not there is left out.

    Raises:
        UserError: one of the files is not what a build writes.
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
    """By task, then by bucket: "4-5" before "11-12", and names by letters."""
    (task, bucket), _ = item
    number = re.search(r"\d+", bucket)
    return task, int(number[0]) if number else 0, bucket


def references_of(sentence: Sentence) -> int:
    """How many images are given before the one to draw."""
    count = 0
    for span in sentence:
        if isinstance(span, Target):
            break
        count += isinstance(span, Image)
    return count
