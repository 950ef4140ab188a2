"""A self-contained page that shows how an image was made: `report.html`.

From the top: the sentence with its images inline; the image, the plan over it, and the plan; the chain of thought; the
references; every candidate with its score; options and times. Images are data URIs and grids are inline SVG, so the
page loads nothing else and prints well.
Read next: `macro/sampling/pipeline.py`, whose `PipelineOutput` is shown.
"""

import dataclasses
import os
import tempfile
from html import escape
from pathlib import Path

from macro.sampling.pipeline import Candidate, PipelineOutput
from macro.sentence.plan import Plan
from macro.utils.errors import UserError
from macro.utils.html import badge, colour, grid_svg, image_html, name_of, page, spans_html
from macro.utils.images import encode_png

_STAGES = {
    "prompt": "reading the prompt",
    "plan": "writing the plan",
    "read": "reading the plan",
    "select": "selecting image tokens",
    "draw": "denoising",
    "decode": "decoding the image",
}


def html(output: PipelineOutput, command: str | None = None) -> str:
    """The page as HTML.

    Args:
        output: what to show.
        command: the command line that made it, if any.
    """
    best = output.candidates[output.best]
    sections = [
        _sentence(output),
        _result(best),
        _thought(best.plan, output.given),
        _references(output, best.plan),
        _candidates(output),
        _settings(output, command),
    ]
    body = "\n".join(section for section in sections if section)
    return page("macro: an image and its plan", body)


def _sentence(output: PipelineOutput) -> str:
    """The instruction with its images inline."""
    return f'<header><p class="mark">macro</p><h1 class="sentence">{spans_html(output.sentence)}</h1></header>'


def _result(best: Candidate) -> str:
    drawn = image_html(best.pixels, "the image")
    figures = [f'<figure class="main">{drawn}<figcaption>Image</figcaption></figure>']
    if best.plan.grid is not None:
        over = f'<div class="stack">{drawn}{grid_svg(best.plan.grid, over=True)}</div>'
        figures.append(f"<figure>{over}<figcaption>Plan over the image</figcaption></figure>")
        plan = grid_svg(best.plan.grid)
        figures.append(f"<figure>{plan}<figcaption>Plan, 8 by 8 cells</figcaption></figure>")
    return f'<section class="result">{"".join(figures)}</section>'


def _thought(plan: Plan, given: bool) -> str:
    source = "given" if given else "written by the planner"
    said = escape(plan.cot.strip()) or "(no words)"
    return f"<section><h2>Thought <small>{source}</small></h2><blockquote>{said}</blockquote></section>"


def _references(output: PipelineOutput, plan: Plan) -> str:
    images = output.sentence.images
    cards = []
    for image in images:
        height, width = image.pixels.shape[:2]
        facts = f"{width} &times; {height}"
        if image.subject is not None and plan.grid is not None:
            cells = int((plan.grid == image.subject).sum())
            said = f"{cells} cell{'' if cells == 1 else 's'}" if cells else '<b class="missing">not in the plan</b>'
            facts += f"<br>{said}"
        facts += "<br>to edit" if image.role == "source" else ""
        cards.append(
            f'<figure class="card"{colour(image.subject)}>{image_html(image.pixels, name_of(image))}'
            f"{badge(image.subject)}<figcaption><b>{escape(name_of(image))}</b><br>{facts}</figcaption></figure>"
        )
    return f'<section><h2>References</h2><div class="cards">{"".join(cards)}</div></section>' if cards else ""


def _candidates(output: PipelineOutput) -> str:
    if len(output.candidates) == 1:
        return ""
    cards = []
    for number, candidate in enumerate(output.candidates):
        picked = number == output.best
        score = "no score" if candidate.score is None else f"{candidate.score:.3f} nats per token"
        label = f"<b>{number + 1}{' &mdash; picked' if picked else ''}</b><br>{score}"
        svg = "" if candidate.plan.grid is None else grid_svg(candidate.plan.grid)
        thought = f"<details><summary>thought</summary>{escape(candidate.plan.cot.strip())}</details>"
        cards.append(
            f'<figure class="candidate{" picked" if picked else ""}"><div class="pair">'
            f"{image_html(candidate.pixels, f'candidate {number + 1}')}{svg}</div>"
            f"<figcaption>{label}{thought}</figcaption></figure>"
        )
    why = "the plan with the highest mean log-likelihood is picked"
    if not output.scored:
        why = "nothing ranks them, as they have no plans of their own: the first is shown above"
    return f'<section><h2>Candidates <small>{why}</small></h2><div class="candidates">{"".join(cards)}</div></section>'


def _settings(output: PipelineOutput, command: str | None) -> str:
    options, best = output.options, output.candidates[output.best]
    guidance = options.guidance
    weights = ", ".join(f"{name} {weight:+g}" for name, weight in guidance.weights.items())
    height, width = output.pixels.shape[:2]
    written = "none"
    if options.use_planner:
        written = ", ".join(f"{key} {value:g}" for key, value in dataclasses.asdict(options.plan).items())
    elif options.think:
        written = f"a thought, {f'temperature {options.text_temperature:g}' if options.do_sample else 'greedy'}"
    rows = {
        "seed": output.seed,
        "image": f"{width} × {height} pixels",
        "steps": f"{options.steps}, shift {options.timestep_shift:g}",
        "full steps": f"{output.full_steps}, {options.step_cache or 'no step cache'}",
        "image tokens": options.token_selection or "all of them",
        "strengths": "1 each" if output.strengths is None else ", ".join(f"{s:g}" for s in output.strengths),
        "guidance": weights if guidance.renorm == "none" else f"{weights}, {guidance.renorm}",
        "contexts": ", ".join(f"{name} {tokens} tokens" for name, (tokens, _) in output.ends.items()) or "unknown",
        "plan": "given" if output.given else written,
        "score of the plan": "none" if best.score is None else f"{best.score:.3f} nats per token",
    }
    table = "".join(f"<tr><th>{key}</th><td>{escape(str(value))}</td></tr>" for key, value in rows.items())
    again = f"<pre>{escape(command)}</pre>" if command else ""
    return (
        f'<section class="how"><div><h2>Options</h2><table>{table}</table></div>'
        f"<div><h2>Time</h2>{_times(output)}</div></section>{again}"
    )


def _times(output: PipelineOutput) -> str:
    total = sum(output.seconds.values())
    bars = [
        f'<div class="time"><span>{_STAGES[stage]}</span>'
        f'<i style="width:{100 * seconds / total:.1f}%"></i><span>{seconds:.2f} s</span></div>'
        for stage, seconds in output.seconds.items()
    ]
    return f'{"".join(bars)}<div class="time total"><span>together</span><i></i><span>{total:.2f} s</span></div>'


def write(folder: str | os.PathLike, output: PipelineOutput, command: str | None = None) -> None:
    """Writes plan.json, plan.png, image.png and report.html, all of them or none.

    Raises:
        UserError: the folder cannot be written to.
    """
    plan = output.plan
    files = {
        "plan.json": plan.to_json().encode("utf-8"),
        "plan.png": encode_png(plan.image()),
        "image.png": encode_png(output.pixels),
        "report.html": html(output, command).encode("utf-8"),
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
