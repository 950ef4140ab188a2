"""The page of `data.browse`: statistics, then samples with their sentence, target, boxes, layout, thought, verdicts.

Boxes, layouts and thoughts can be switched off by the marks at the top, which are plain CSS: there is no script.
What it shares with the report of a drawing: `macro/sentence/page.py`.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape

from data.statistics import AREAS, Statistics
from macro.sentence.formats import marker
from macro.sentence.page import colour, grid_svg, page, picture, rgb, words
from macro.sentence.spans import MAX_REFERENCES, Image, Plan, Sentence, Target

SIDE, SMALL = 256, 96  # pixels: of targets, and of images in sentences
SWITCHES = {"boxes": "boxes", "layouts": "layout", "thoughts": "thought"}
_KNOWN = ("engine", "bucket", "attempt", "verdicts", "regions")  # of the notes: what has its own place on the page

Chapter = tuple[str, Statistics, Mapping[tuple[str, str], Sequence[Sentence]]]


def gallery(title: str, about: str, chapters: Sequence[Chapter]) -> str:
    """The page.

    Args:
        about: one line on what was chosen.
        chapters: (name, statistics, samples by task and bucket) of each data set.
    """
    inputs = "".join(
        f'<input type="checkbox" id="{name}"{"" if name == "layouts" else " checked"}>' for name in SWITCHES
    )
    labels = "".join(f'<label for="{name}">{what}</label>' for name, what in SWITCHES.items())
    links, sections = [], []
    for number, (name, statistics, kinds) in enumerate(chapters):
        links.append(f'{"<br>" if number else ""}<a class="set" href="#s{number}">{escape(name)}</a>')
        sections.append(_numbers(f"s{number}", name, statistics))
        for place, ((task, bucket), samples) in enumerate(kinds.items()):
            anchor = f"s{number}-{place}"
            links.append(f'<a href="#{anchor}">{escape(f"{task} {bucket}")}</a>')
            cards = "".join(_sample(sample) for sample in samples)
            counted = f"{len(samples)} of {len(statistics.places[task, bucket]):,}"
            heading = f"<h2>{escape(f'{name}: {task}, {bucket}')} <small>{counted}</small></h2>"
            sections.append(f'<section id="{anchor}">{heading}{cards}</section>')
    head = f'<header><p class="mark">macro</p><h1>{escape(title)}</h1><p class="about">{escape(about)}</p></header>'
    body = f"{inputs}{head}<nav><div>{''.join(links)}</div><div>show {labels}</div></nav>{''.join(sections)}"
    return page(f"macro: {title}", body, STYLE)


# ---- numbers ----


def _numbers(anchor: str, name: str, found: Statistics) -> str:
    of = "" if found.looked == found.samples else f", counted over {found.looked:,} of them, evenly spaced"
    heading = f"<h2>{escape(name)} <small>{found.samples:,} samples{of}</small></h2>"
    areas = {f"≤{end:.0%}": found.areas[end] for end in AREAS} if found.areas else {}
    parts = [
        _tasks(found),
        _bars("references in a sample", {str(n): found.references[n] for n in _run(found.references)}),
        _bars("subjects in a sample", {str(n): found.subjects[n] for n in _run(found.subjects)}),
        _bars("area of a subject's box", areas),
        _filters(found),
        _dead(found),
    ]
    return f'<section id="{anchor}" class="numbers">{heading}<div class="figures">{"".join(parts)}</div></section>'


def _run(counts: Mapping[int, int]) -> range:
    return range(min(counts), max(counts) + 1) if counts else range(0)


def _tasks(found: Statistics) -> str:
    rows = "".join(
        f"<tr><td>{escape(task)}</td><td>{escape(bucket)}</td><td>{len(places):,}</td></tr>"
        for (task, bucket), places in found.places.items()
    )
    return f"<figure><table><tr><th>task</th><th>bucket</th><th>samples</th></tr>{rows}</table></figure>"


def _bars(what: str, counts: Mapping[str, int]) -> str:
    if not counts:
        return ""
    most = max(counts.values())
    bars = "".join(
        f'<div title="{count:,}"><i style="height:{100 * count / most:.0f}%"></i><span>{escape(name)}</span></div>'
        for name, count in counts.items()
    )
    return f'<figure><div class="bars">{bars}</div><figcaption>{what}</figcaption></figure>'


def _filters(found: Statistics) -> str:
    if not found.filters:
        return ""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{counts['kept']:,}</td><td>{counts['dropped']:,}</td></tr>"
        for name, counts in found.filters.items()
    )
    return f"<figure><table><tr><th>filter</th><th>kept</th><th>dropped</th></tr>{rows}</table></figure>"


def _dead(found: Statistics) -> str:
    if not found.dead:
        return ""
    rows = "".join(
        f"<tr><td>{escape(step)}</td><td>{escape(reason)}</td><td>{count:,}</td></tr>"
        for (step, reason), count in found.dead
    )
    head = "<tr><th>dropped by</th><th>because</th><th>drafts</th></tr>"
    return f'<figure class="wide"><table>{head}{rows}</table></figure>'


# ---- a sample ----


def _sample(sentence: Sentence) -> str:
    spans = list(sentence)
    end = next((n for n, span in enumerate(spans) if isinstance(span, Plan | Target)), len(spans))
    then = [span for span in spans[end:] if not isinstance(span, Plan | Target)]
    parts = [
        f'<p class="said">{words(spans[:end], SMALL)}</p>',
        _thought(sentence.plan),
        _phrases(sentence.images),
        f'<p class="said">then: {words(then, SMALL)}</p>' if then else "",
        _verdicts(sentence.notes.get("verdicts", ())),
        _others(sentence.notes),
    ]
    engine = sentence.notes.get("engine")
    about = [str(sentence.idx), *([str(engine)] if engine else [])]
    about += [f"attempt {sentence.notes['attempt'] + 1}"] if sentence.notes.get("attempt") else []
    return (
        f'<article><div class="target">{_target(sentence)}<p class="about">{escape(" · ".join(about))}</p></div>'
        f"<div>{''.join(parts)}</div></article>"
    )


def _target(sentence: Sentence) -> str:
    """The image to draw with boxes and layout over it; above it, where there is one, the image to edit."""
    target = sentence.target
    if target is None or target.pixels is None:
        return '<p class="about">no picture to draw</p>'
    sources = [image for image in sentence.images if image.role == "source"]
    before = "".join(f'<div class="before">{picture(image.pixels, "to edit", SIDE)}</div>' for image in sources)
    plan = sentence.plan
    grid = f'<div class="layouts">{grid_svg(plan.grid, over=True)}</div>' if plan and plan.grid is not None else ""
    return f'{before}<div class="stack">{picture(target.pixels, "target", SIDE)}{_boxes(sentence)}{grid}</div>'


def _boxes(sentence: Sentence) -> str:
    """Boxes as SVG over the target, with numbers and labels: those of the notes, or of the truth."""
    boxes = [(str(region["label"]), region["box"]) for region in sentence.notes.get("regions", ())]
    if not boxes and sentence.truth is not None:
        boxes = list(zip(sentence.truth.kinds, sentence.truth.boxes.tolist(), strict=True))
    if not boxes:
        return ""
    height, width = sentence.target.size
    high, wide = 100 * height / max(height, width), 100 * width / max(height, width)
    drawn = []
    for number, (label, (x0, y0, x1, y1)) in enumerate(boxes, 1):
        if x1 <= x0 or y1 <= y0:  # of the scene, but not in the image
            continue
        # A foundation's detector may find more than the twelve that cells can name.
        hue = rgb(number) if number <= MAX_REFERENCES else "rgb(60,64,72)"
        at = f'x="{x0 * wide:.2f}" y="{y0 * high:.2f}"'
        drawn.append(
            f'<rect {at} width="{(x1 - x0) * wide:.2f}" height="{(y1 - y0) * high:.2f}" style="stroke:{hue}"/>'
            f'<text x="{x0 * wide + 1:.2f}" y="{y0 * high + 5:.2f}">{number} {escape(label)}</text>'
        )
    return f'<svg class="boxes" viewBox="0 0 {wide:.2f} {high:.2f}">{"".join(drawn)}</svg>'


def _thought(plan: Plan | None) -> str:
    if plan is None or not plan.cot.strip():
        return ""
    return f'<blockquote class="thoughts">{escape(plan.cot.strip())}</blockquote>'


def _phrases(images: Sequence[Image]) -> str:
    """INSET's map: which words each image shows."""
    rows = "".join(
        f"<tr><td>{escape(image.phrase)}</td>"
        f"<td{colour(image.subject)}>{picture(image.pixels, image.phrase, SMALL)}</td>"
        f"<td>{escape(marker(image.number)) if image.number else ''}</td></tr>"
        for image in images
        if image.phrase is not None
    )
    return f'<table class="phrases">{rows}</table>' if rows else ""


def _verdicts(verdicts: Sequence[Mapping]) -> str:
    chips = []
    for verdict in verdicts:
        value = "" if verdict["value"] is None else f" {verdict['value']:.3g}"
        kept = "kept" if verdict["kept"] else "dropped"
        title = escape(f"{kept}: {verdict['reason']}" if verdict["reason"] else kept)
        chips.append(f'<span class="{kept}" title="{title}">{escape(verdict["filter"])}{value}</span>')
    return f'<p class="verdicts">{"".join(chips)}</p>' if chips else ""


def _others(notes: Mapping) -> str:
    others = {name: value for name, value in notes.items() if name not in _KNOWN}
    if not others:
        return ""
    text = json.dumps(others, ensure_ascii=False, indent=1)
    return f"<details><summary>notes</summary><pre>{escape(text)}</pre></details>"


STYLE = (
    """
main { max-width: 1180px; }
h1 { margin: 0 0 6px; font-size: 31px; font-weight: 400; }
main > input { position: absolute; opacity: 0; }
.about, nav, .verdicts, .numbers, .phrases {
  font: 13px/1.5 "Inter", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.about { margin: 4px 0; color: var(--soft); overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 2; margin: 18px 0 0; padding: 10px 0; background: var(--paper);
  border-bottom: 1px solid var(--line); display: flex; justify-content: space-between; gap: 24px; color: var(--soft); }
nav a { margin-right: 12px; color: var(--accent); text-decoration: none; white-space: nowrap; display: inline-block; }
nav a.set { color: var(--ink); font-weight: 600; }
nav div:first-child { max-height: 66px; overflow-y: auto; } nav div:last-child { flex: none; }
nav label { margin-left: 6px; padding: 2px 9px; border: 1px solid var(--line); border-radius: 10px; cursor: pointer; }
section { scroll-margin-top: 80px; }
.figures { display: flex; flex-wrap: wrap; gap: 30px; align-items: flex-start; }
.figures table { width: auto; } .figures td, .figures th { padding: 3px 16px 3px 0; width: auto; }
.figures td:last-child, .figures th:last-child { text-align: right; padding-right: 0; }
.wide { flex-basis: 100%; }
.bars { display: flex; height: 120px; }
.bars div { display: flex; flex-direction: column; justify-content: flex-end; align-items: center; width: 38px; }
.bars i { width: 24px; min-height: 1px; background: var(--accent); opacity: .75; border-radius: 3px 3px 0 0; }
.bars span { font-size: 11px; color: var(--soft); }
article { display: grid; grid-template-columns: 256px 1fr; gap: 24px; padding: 18px 0;
  border-top: 1px solid var(--line); break-inside: avoid; }
.said { margin: 0 0 10px; font-size: 18px; line-height: 1.9; overflow-wrap: anywhere; }
.said .word img { height: 54px; }
.before { margin: 0 0 10px; } .stack .layouts { position: absolute; inset: 0; }
svg.boxes rect { fill: none; stroke-width: 1; }
svg.boxes text { font-size: 5px; font-weight: 600; fill: #fff; paint-order: stroke; stroke: #1d2025;
  stroke-width: 1.2px; }
article blockquote { font-size: 15px; padding: 10px 16px; margin: 0 0 10px; overflow-wrap: anywhere; }
.phrases { width: auto; margin: 0 0 10px; } .phrases td { padding: 3px 16px 3px 0; vertical-align: middle; }
.phrases img { height: 40px; width: auto; }
.verdicts { margin: 0; } .verdicts span { display: inline-block; margin: 0 6px 6px 0; padding: 1px 9px;
  border-radius: 10px; background: #e2efe0; } .verdicts span.dropped { background: #f6d9d4; }
article pre { margin: 6px 0 0; }
"""
    + "".join(f"#{name}:not(:checked) ~ section .{name} {{ display: none; }}\n" for name in SWITCHES)
    + "".join(f"#{name}:checked ~ nav label[for={name}] {{ background: #dcebf2; }}\n" for name in SWITCHES)
)
