"""Self-contained pages: jinja2 templates with one style sheet, and the parts that several pages show.

Images are data URIs and layouts inline SVG, so a page needs no other file and no network. Templates escape all text.
`page.html` is the frame that others extend; the functions below can be called in every template.
Used by `macro/sampling/report.py`, `macro/evals/report.py` and `data/gallery.py`.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Int8, UInt8
from markupsafe import Markup, escape

from macro.utils.images import LABEL_COLOURS, data_uri, shrink_to


def render(template: str, folder: str | Path | None = None, **values: Any) -> str:
    """A page from a template of this folder or of `folder`."""
    return _environment(folder and str(folder)).get_template(template).render(**values)


@cache
def _environment(folder: str | None) -> jinja2.Environment:
    folders = [str(Path(__file__).parent), *([folder] if folder else [])]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=lambda name: not (name or "").endswith(".css"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for part in (image_html, spans_html, grid_svg, name_of, badge, colour, rgb):
        environment.globals[part.__name__] = part
    return environment


def page(title: str, body: str, style: str = "") -> str:
    """A page made of HTML; `style` goes after the common style sheet."""
    return render("page.html", title=title, body=Markup(body), style=Markup(style))


def image_html(pixels: UInt8[np.ndarray, "h w 3"], name: str, side: int | None = None) -> Markup:
    """An image in full size; or at most `side` pixels a side and as JPEG, for pages with many images."""
    if side is not None:
        pixels = shrink_to(pixels, side)
    uri = data_uri(pixels, ".jpg" if side else ".png")
    title = Markup(' title="{}"').format(name) if name else ""
    return Markup('<img src="{}" alt="{}"{}>').format(uri, name, title)


def spans_html(spans: Iterable, side: int | None = None) -> Markup:
    """The text and images of a sentence (`macro/sentence/spans.py`), images inline; other spans are left out."""
    parts = []
    for span in spans:
        if hasattr(span, "text"):
            parts.append(escape(span.text))
        elif hasattr(span, "subject"):
            shown = image_html(span.pixels, name_of(span), side)
            parts.append(
                Markup('<span class="word"{}>{}{}</span>').format(colour(span.subject), shown, badge(span.subject))
            )
    return Markup("").join(parts)


def name_of(span) -> str:
    """The label of an image of a sentence: its file, its number, or its role."""
    if span.path is not None:
        return span.path.replace("\\", "/").rsplit("/", 1)[-1]
    return f"image {span.number}" if span.number is not None else span.role


def badge(subject: int | None) -> Markup:
    """A subject's number in a corner, for an element with its `colour`."""
    return Markup("") if subject is None else Markup('<b class="badge">{}</b>').format(subject)


def colour(subject: int | None) -> Markup:
    """The attribute that gives an element a subject's colour."""
    return Markup("") if subject is None else Markup(' style="--colour:{}"').format(rgb(subject))


def rgb(label: int) -> str:
    """The CSS colour of a layout's label."""
    red, green, blue = (int(part) for part in LABEL_COLOURS[label])
    return f"rgb({red},{green},{blue})"


def grid_svg(grid: Int8[np.ndarray, "8 8"], over: bool = False) -> Markup:
    """A layout as SVG.

    Args:
        grid: int8[8, 8].
        over: for an overlay on the image: translucent, with outlines only around subjects.
    """
    cells, lines, numbers = [], [], []
    for row, column in np.ndindex(*grid.shape):
        label = int(grid[row, column])
        if not (over and label == 0):
            cells.append(f'<rect x="{column}" y="{row}" width="1" height="1" fill="{rgb(label)}"/>')
        if column and label != grid[row, column - 1]:
            lines.append(f"M{column} {row}v1")
        if row and label != grid[row - 1, column]:
            lines.append(f"M{column} {row}h1")
    for label in np.unique(grid[grid > 0]):
        cell = np.argwhere(grid == label)
        row, column = cell[np.argmin(((cell - cell.mean(0)) ** 2).sum(1))]  # the subject's cell nearest to its centre
        numbers.append(f'<text x="{column + 0.5}" y="{row + 0.5}">{label}</text>')
    rows, columns = grid.shape
    return Markup(
        f'<svg class="grid{" over" if over else ""}" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" '
        f'role="img" aria-label="layout"><g class="cells">{"".join(cells)}</g>'
        f'<path d="{"".join(lines)}"/>{"".join(numbers)}</svg>'
    )
