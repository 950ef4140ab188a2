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

from macro.sampling.candidates import Candidate
from macro.sampling.pipeline import Composition
from macro.sentence.plan import Plan
from macro.utils.errors import UserError
from macro.utils.html import badge, colour, grid_svg, image_html, name_of, page, spans_html
from macro.utils.images import encode_png

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
    return page("macro: a picture and its plan", body)


def _sentence(composition: Composition) -> str:
    """The instruction, its pictures as words."""
    return f'<header><p class="mark">macro</p><h1 class="sentence">{spans_html(composition.sentence)}</h1></header>'


def _result(best: Candidate) -> str:
    drawn = image_html(best.pixels, "the picture")
    figures = [f'<figure class="main">{drawn}<figcaption>Picture</figcaption></figure>']
    if best.plan.grid is not None:
        over = f'<div class="stack">{drawn}{grid_svg(best.plan.grid, over=True)}</div>'
        figures.append(f"<figure>{over}<figcaption>Plan over the picture</figcaption></figure>")
        plan = grid_svg(best.plan.grid)
        figures.append(f"<figure>{plan}<figcaption>Plan, 8 by 8 cells</figcaption></figure>")
    return f'<section class="result">{"".join(figures)}</section>'


def _thought(plan: Plan, given: bool) -> str:
    source = "given" if given else "written by the planner"
    said = escape(plan.cot.strip()) or "(no words)"
    return f"<section><h2>Thought <small>{source}</small></h2><blockquote>{said}</blockquote></section>"


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
            f'<figure class="card"{colour(image.subject)}>{image_html(image.pixels, name_of(image))}'
            f"{badge(image.subject)}<figcaption><b>{escape(name_of(image))}</b><br>{facts}</figcaption></figure>"
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
        thought = f"<details><summary>thought</summary>{escape(candidate.plan.cot.strip())}</details>"
        cards.append(
            f'<figure class="candidate{" picked" if picked else ""}"><div class="pair">'
            f"{image_html(candidate.pixels, f'candidate {number + 1}')}{svg}</div>"
            f"<figcaption>{label}{thought}</figcaption></figure>"
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
