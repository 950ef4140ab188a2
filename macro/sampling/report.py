"""One page that shows how a picture came about: `report.html`, whole in one file.

From the top: the sentence with its pictures standing at their words; the picture, the plan laid over it, and
the plan; the chain of thought; the references; every candidate with its score; settings and times. Pictures
are data URIs and grids are inline SVG, so the page needs nothing from anywhere and prints well.
Read next: `macro/sampling/pipeline.py`, whose `Composition` is shown.
"""

import dataclasses
import os
import tempfile
from html import escape
from pathlib import Path

import numpy as np

from macro.sampling.candidates import Candidate
from macro.sampling.page import STYLE
from macro.sampling.pipeline import Composition
from macro.sentence.grid import SIDE
from macro.sentence.plan import COLOURS, Plan
from macro.sentence.spans import Image, Text
from macro.utils.errors import UserError
from macro.utils.image import data_uri, encode_png

_STAGES = {
    "prompt": "reading the prompt",
    "plan": "writing the plan",
    "read": "reading the plan",
    "select": "choosing the pictures' tokens",
    "draw": "drawing",
    "decode": "decoding the picture",
}


def html(composition: Composition, command: str | None = None) -> str:
    """The page.

    Args:
        composition: what to show.
        command: the command line that made it, if there was one.
    """
    best = composition.candidates[composition.best]
    sections = [
        _sentence(composition),
        _result(best),
        _thought(best.plan, composition.given),
        _references(composition, best.plan),
        _candidates(composition),
        _settings(composition, command),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>macro: a picture and its plan</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def _sentence(composition: Composition) -> str:
    """The instruction, its pictures as words."""
    words = []
    for span in composition.sentence:
        if isinstance(span, Text):
            words.append(escape(span.text))
        elif isinstance(span, Image):
            words.append(
                f'<span class="word"{_colour(span.subject)}>{_picture(span.pixels, _name(span))}'
                f"{_badge(span.subject)}</span>"
            )
    return f'<header><p class="mark">macro</p><h1 class="sentence">{"".join(words)}</h1></header>'


def _result(best: Candidate) -> str:
    picture = _picture(best.pixels, "the picture")
    figures = [f'<figure class="main">{picture}<figcaption>Picture</figcaption></figure>']
    if best.plan.grid is not None:
        over = f'<div class="stack">{picture}{grid_svg(best.plan.grid, over=True)}</div>'
        figures.append(f"<figure>{over}<figcaption>Plan over the picture</figcaption></figure>")
        plan = grid_svg(best.plan.grid)
        figures.append(f"<figure>{plan}<figcaption>Plan, 8 by 8 cells</figcaption></figure>")
    return f'<section class="result">{"".join(figures)}</section>'


def _thought(plan: Plan, given: bool) -> str:
    source = "given" if given else "written by the planner"
    words = escape(plan.cot.strip()) or "(no words)"
    return f"<section><h2>Thought <small>{source}</small></h2><blockquote>{words}</blockquote></section>"


def _references(composition: Composition, plan: Plan) -> str:
    images = composition.sentence.images
    cards = []
    for image in images:
        height, width = image.pixels.shape[:2]
        facts = f"{width} &times; {height}"
        if image.subject is not None and plan.grid is not None:
            cells = int((plan.grid == image.subject).sum())
            facts += f"<br>{cells} cell{'' if cells == 1 else 's'}"
        facts += "<br>to edit" if image.role == "source" else ""
        cards.append(
            f'<figure class="card"{_colour(image.subject)}>{_picture(image.pixels, _name(image))}'
            f"{_badge(image.subject)}<figcaption><b>{escape(_name(image))}</b><br>{facts}</figcaption></figure>"
        )
    return f'<section><h2>References</h2><div class="cards">{"".join(cards)}</div></section>' if cards else ""


def _candidates(composition: Composition) -> str:
    if len(composition.candidates) == 1:
        return ""
    cards = []
    for number, candidate in enumerate(composition.candidates):
        picked = number == composition.best
        label = (
            f"<b>{number + 1}{' &mdash; picked' if picked else ''}</b><br>{candidate.score:.3f} nats a token"
        )
        svg = "" if candidate.plan.grid is None else grid_svg(candidate.plan.grid)
        words = f"<details><summary>thought</summary>{escape(candidate.plan.cot.strip())}</details>"
        cards.append(
            f'<figure class="candidate{" picked" if picked else ""}"><div class="pair">'
            f"{_picture(candidate.pixels, f'candidate {number + 1}')}{svg}</div>"
            f"<figcaption>{label}{words}</figcaption></figure>"
        )
    why = "the plan with the highest mean log-likelihood is picked"
    if composition.given:
        why = "all of one given plan, so the first is picked"
    return (
        f"<section><h2>Candidates <small>{why}</small></h2>"
        f'<div class="candidates">{"".join(cards)}</div></section>'
    )


def _settings(composition: Composition, command: str | None) -> str:
    settings, best = composition.settings, composition.candidates[composition.best]
    weights = ", ".join(f"{name} {weight:+g}" for name, weight in settings.guidance.weights.items())
    writing = dataclasses.asdict(settings.writing)
    height, width = composition.pixels.shape[:2]
    rows = {
        "seed": composition.seed,
        "picture": f"{width} × {height} pixels",
        "steps": f"{settings.steps}, shift {settings.shift:g}",
        "full steps": f"{composition.full_steps}, {settings.reuse or 'nothing is reused'}",
        "pictures' tokens": settings.select or "all of them",
        "strengths": "1 each" if composition.strengths is None else ", ".join(f"{s:g}" for s in composition.strengths),
        "guidance": weights
        if settings.guidance.renorm == "none"
        else f"{weights}, {settings.guidance.renorm}",
        "plan": "given" if composition.given else ", ".join(f"{k} {v:g}" for k, v in writing.items()),
        "score of the plan": f"{best.score:.3f} nats a token",
    }
    table = "".join(f"<tr><th>{key}</th><td>{escape(str(value))}</td></tr>" for key, value in rows.items())
    again = f"<pre>{escape(command)}</pre>" if command else ""
    return (
        f'<section class="how"><div><h2>Settings</h2><table>{table}</table></div>'
        f"<div><h2>Time</h2>{_times(composition)}</div></section>{again}"
    )


def _times(composition: Composition) -> str:
    total = sum(composition.seconds.values())
    bars = [
        f'<div class="time"><span>{_STAGES[stage]}</span>'
        f'<i style="width:{100 * seconds / total:.1f}%"></i><span>{seconds:.2f} s</span></div>'
        for stage, seconds in composition.seconds.items()
    ]
    return (
        f'{"".join(bars)}<div class="time total"><span>together</span><i></i><span>{total:.2f} s</span></div>'
    )


def grid_svg(grid: np.ndarray, over: bool = False) -> str:
    """A layout as SVG.

    Args:
        grid: int8[8, 8].
        over: see-through and with outlines only around subjects, to lie on the picture.
    """
    cells, lines, numbers = [], [], []
    for row, column in np.ndindex(SIDE, SIDE):
        label = int(grid[row, column])
        if not (over and label == 0):
            cells.append(f'<rect x="{column}" y="{row}" width="1" height="1" fill="{_rgb(label)}"/>')
        if column and label != grid[row, column - 1]:
            lines.append(f"M{column} {row}v1")
        if row and label != grid[row - 1, column]:
            lines.append(f"M{column} {row}h1")
    for label in np.unique(grid[grid > 0]):
        x, y = _heart(grid == label)
        numbers.append(f'<text x="{x + 0.5}" y="{y + 0.5}">{label}</text>')
    return (
        f'<svg class="grid{" over" if over else ""}" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="layout"><g class="cells">{"".join(cells)}</g>'
        f'<path d="{"".join(lines)}"/>{"".join(numbers)}</svg>'
    )


def _heart(mask: np.ndarray) -> tuple[int, int]:
    """Column and row of the cell of a subject that is nearest to its centre."""
    places = np.argwhere(mask)
    row, column = places[np.argmin(((places - places.mean(0)) ** 2).sum(1))]
    return int(column), int(row)


def _picture(pixels: np.ndarray, name: str) -> str:
    return f'<img src="{data_uri(pixels)}" alt="{escape(name)}" title="{escape(name)}">'


def _name(image: Image) -> str:
    if image.path is not None:
        return image.path.replace("\\", "/").rsplit("/", 1)[-1]
    return f"image {image.number}" if image.number is not None else image.role


def _badge(subject: int | None) -> str:
    return "" if subject is None else f'<b class="badge">{subject}</b>'


def _colour(subject: int | None) -> str:
    return "" if subject is None else f' style="--colour:{_rgb(subject)}"'


def _rgb(label: int) -> str:
    red, green, blue = (int(part) for part in COLOURS[label])
    return f"rgb({red},{green},{blue})"


def write(folder: str | os.PathLike, composition: Composition, command: str | None = None) -> None:
    """Writes plan.json, plan.png, image.png and report.html: each whole, and none if one cannot be written.

    Raises:
        UserError: the folder cannot be written to.
    """
    plan = composition.plan
    files = {
        "plan.json": plan.to_json().encode("utf-8"),
        "plan.png": encode_png(plan.picture()),
        "image.png": encode_png(composition.pixels),
        "report.html": html(composition, command).encode("utf-8"),
    }
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            for name, content in files.items():
                Path(partial, name).write_bytes(content)
            for name in files:
                os.replace(Path(partial, name), Path(folder, name))
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({error.strerror}); name another folder") from None
