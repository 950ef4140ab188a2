"""The page of `data.browse`: statistics, then samples with their sentence, target, boxes, layout, thought, verdicts.

What it shows is gathered here and laid out by `gallery.html`. Checkboxes at the top switch boxes, layouts and
thoughts off by plain CSS: there is no script. Parts that other pages share: `macro/utils/html`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.statistics import AREAS, Statistics
from macro.sentence.prompt import marker
from macro.sentence.spans import MAX_REFERENCES, Plan, Sentence, Target
from macro.utils.html import render, rgb

SIDE, SMALL = 256, 96  # pixels: of targets, and of images in sentences
SWITCHES = {"boxes": "boxes", "layouts": "layout", "thoughts": "thought"}
_KNOWN = ("engine", "bucket", "attempt", "verdicts", "regions")  # keys of the notes that have a place of their own

Chapter = tuple[str, Statistics, Mapping[tuple[str, str], Sequence[Sentence]]]


def gallery(title: str, about: str, chapters: Sequence[Chapter]) -> str:
    """The page.

    Args:
        about: one line on what was chosen.
        chapters: (name, statistics, samples by task and bucket) of each data set.
    """
    return render(
        "gallery.html",
        Path(__file__).parent,
        title=f"macro: {title}",
        heading=title,
        about=about,
        chapters=[_chapter(f"s{number}", *chapter) for number, chapter in enumerate(chapters)],
        switches=SWITCHES,
        side=SIDE,
        small=SMALL,
        marker=marker,
    )


def _chapter(anchor: str, name: str, found: Statistics, kinds: Mapping[tuple[str, str], Sequence[Sentence]]) -> dict:
    parts = [
        {
            "anchor": f"{anchor}-{place}",
            "name": f"{task} {bucket}",
            "heading": f"{name}: {task}, {bucket}",
            "counted": f"{len(samples)} of {len(found.places[task, bucket]):,}",
            "samples": [_sample(sample) for sample in samples],
        }
        for place, ((task, bucket), samples) in enumerate(kinds.items())
    ]
    return {"anchor": anchor, "name": name, "statistics": _numbers(found), "parts": parts}


def _numbers(found: Statistics) -> dict:
    def run(counts: Mapping[int, int]) -> dict[str, int]:
        numbers = range(min(counts), max(counts) + 1) if counts else ()
        return {str(n): counts.get(n, 0) for n in numbers}

    return {
        "samples": found.samples,
        "looked": found.looked,
        "rows": [(task, bucket, len(places)) for (task, bucket), places in found.places.items()],
        "references": run(found.references),
        "subjects": run(found.subjects),
        "areas": {f"≤{end:.0%}": found.areas[end] for end in AREAS} if found.areas else {},
        "filters": [(name, counts["kept"], counts["dropped"]) for name, counts in (found.filters or {}).items()],
        "dead": [(step, reason, count) for (step, reason), count in found.dead or ()],
    }


def _sample(sentence: Sentence) -> dict:
    spans, notes = list(sentence), sentence.notes
    end = next((n for n, span in enumerate(spans) if isinstance(span, Plan | Target)), len(spans))
    engine = [str(notes["engine"])] if notes.get("engine") else []
    attempt = [f"attempt {notes['attempt'] + 1}"] if notes.get("attempt") else []
    others = {name: value for name, value in notes.items() if name not in _KNOWN}
    return {
        "about": [str(sentence.idx), *engine, *attempt],
        "prompt": spans[:end],
        "then": [span for span in spans[end:] if not isinstance(span, Plan | Target)],
        "target": sentence.target,
        "images": sentence.images,
        "phrases": [image for image in sentence.images if image.phrase is not None],  # INSET maps words to images
        "plan": sentence.plan,
        "verdicts": notes.get("verdicts", ()),
        "notes": json.dumps(others, ensure_ascii=False, indent=1) if others else "",
        **_boxes(sentence),
    }


def _boxes(sentence: Sentence) -> dict:
    """Boxes with labels over the target, in hundredths of its longer side: those of the notes, or of the truth."""
    boxes = [(str(region["label"]), region["box"]) for region in sentence.notes.get("regions", ())]
    if not boxes and sentence.truth is not None:
        boxes = list(zip(sentence.truth.kinds, sentence.truth.boxes.tolist(), strict=True))
    if not boxes or sentence.target is None:
        return {"boxes": []}
    height, width = sentence.target.size
    high, wide = 100 * height / max(height, width), 100 * width / max(height, width)
    shown = [
        {
            "x": x0 * wide,
            "y": y0 * high,
            "width": (x1 - x0) * wide,
            "height": (y1 - y0) * high,
            # The foundation provider's detector may find more subjects than the twelve that cells can name.
            "colour": rgb(number) if number <= MAX_REFERENCES else "rgb(60,64,72)",
            "label": f"{number} {label}",
        }
        for number, (label, (x0, y0, x1, y1)) in enumerate(boxes, 1)
        if x1 > x0 and y1 > y0  # else it is in the scene, but outside the image
    ]
    return {"boxes": shown, "box_size": (wide, high)}
