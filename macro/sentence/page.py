"""Pages that need nothing from anywhere: how sentences with pictures in them, plans and pictures look in HTML.

Pictures are data URIs, grids are inline SVG, all words are escaped. Used by `macro/sampling/report.py` (one drawing)
and `data/browse.py` (a data set).
"""

from collections.abc import Iterable
from html import escape

import numpy as np
from jaxtyping import Bool, Int8, UInt8

from macro.sentence.layout import GRID_SIZE
from macro.sentence.plan import COLOURS
from macro.sentence.spans import Image, Span, Text
from macro.utils.images import data_uri, shrink_to


def page(title: str, body: str, style: str = "") -> str:
    """A whole page. `body` is HTML; `style` goes after the common style sheet."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n<main>\n"
        f"{body}\n</main>\n</body>\n</html>\n"
    )


def words(spans: Iterable[Span], side: int | None = None) -> str:
    """Text, and pictures standing in it as words; other spans are left out. `side`: see `picture`."""
    said = []
    for span in spans:
        if isinstance(span, Text):
            said.append(escape(span.text))
        elif isinstance(span, Image):
            said.append(
                f'<span class="word"{colour(span.subject)}>{picture(span.pixels, name_of(span), side)}'
                f"{badge(span.subject)}</span>"
            )
    return "".join(said)


def grid_svg(grid: Int8[np.ndarray, "8 8"], over: bool = False) -> str:
    """A layout as SVG.

    Args:
        grid: int8[8, 8].
        over: see-through and with outlines only around subjects, to lie on the picture.
    """
    cells, lines, numbers = [], [], []
    for row, column in np.ndindex(GRID_SIZE, GRID_SIZE):
        label = int(grid[row, column])
        if not (over and label == 0):
            cells.append(f'<rect x="{column}" y="{row}" width="1" height="1" fill="{rgb(label)}"/>')
        if column and label != grid[row, column - 1]:
            lines.append(f"M{column} {row}v1")
        if row and label != grid[row - 1, column]:
            lines.append(f"M{column} {row}h1")
    for label in np.unique(grid[grid > 0]):
        x, y = _heart(grid == label)
        numbers.append(f'<text x="{x + 0.5}" y="{y + 0.5}">{label}</text>')
    return (
        f'<svg class="grid{" over" if over else ""}" viewBox="0 0 {GRID_SIZE} {GRID_SIZE}" '
        f'preserveAspectRatio="none" role="img" '
        f'aria-label="layout"><g class="cells">{"".join(cells)}</g>'
        f'<path d="{"".join(lines)}"/>{"".join(numbers)}</svg>'
    )


def _heart(mask: Bool[np.ndarray, "8 8"]) -> tuple[int, int]:
    """Column and row of the cell of a subject that is nearest to its centre."""
    places = np.argwhere(mask)
    row, column = places[np.argmin(((places - places.mean(0)) ** 2).sum(1))]
    return int(column), int(row)


def picture(pixels: UInt8[np.ndarray, "h w 3"], name: str, side: int | None = None) -> str:
    """A picture, whole; or at most `side` pixels a side and as JPEG, for pages with many of them."""
    if side is not None:
        pixels = shrink_to(pixels, side)
    uri = data_uri(pixels, ".jpg" if side else ".png")
    return f'<img src="{uri}" alt="{escape(name)}" title="{escape(name)}">'


def name_of(image: Image) -> str:
    """What a picture is called: its file, its number, or what it is there for."""
    if image.path is not None:
        return image.path.replace("\\", "/").rsplit("/", 1)[-1]
    return f"image {image.number}" if image.number is not None else image.role


def badge(subject: int | None) -> str:
    """A subject's number in a corner, for what has its `colour`."""
    return "" if subject is None else f'<b class="badge">{subject}</b>'


def colour(subject: int | None) -> str:
    """The attribute that gives an element a subject's colour."""
    return "" if subject is None else f' style="--colour:{rgb(subject)}"'


def rgb(label: int) -> str:
    """The colour of a cell with this label."""
    red, green, blue = (int(part) for part in COLOURS[label])
    return f"rgb({red},{green},{blue})"


STYLE = """
:root { --ink: #24272d; --soft: #6d7380; --line: #e3e1da;
  --paper: #fbfaf7; --card: #ffffff; --accent: #2f6f8f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "DejaVu Serif", serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 32px 64px; }
h2, figcaption, table, .mark, .time, small, summary, svg text {
  font-family: "Inter", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.mark { margin: 0 0 10px; font-size: 13px; letter-spacing: .18em; text-transform: uppercase;
  color: var(--accent); font-weight: 600; }
h1.sentence { margin: 0 0 34px; font-size: 31px; line-height: 2.05; font-weight: 400; }
h2 { margin: 44px 0 14px; font-size: 14px; letter-spacing: .04em; font-weight: 600; }
small { color: var(--soft); font-weight: 400; font-size: 13px; margin-left: 6px; letter-spacing: 0; }
figure { margin: 0; }
figcaption { margin-top: 8px; font-size: 13px; line-height: 1.45; color: var(--soft);
  overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
img { display: block; width: 100%; height: auto; border-radius: 8px; }
.word { position: relative; display: inline-block; vertical-align: middle; margin: 0 7px 0 4px; }
.word img { width: auto; height: 62px; border-radius: 10px; border: 3px solid var(--colour, var(--line)); }
.badge { position: absolute; left: -7px; top: -7px; min-width: 22px; height: 22px;
  padding: 0 6px; border-radius: 11px; background: var(--colour, var(--line)); color: #1d2025;
  font: 600 12px/22px "Inter", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; text-align: center; }
.result { display: grid; grid-template-columns: repeat(3, 1fr); gap: 22px; }
.result img, .result svg { border-radius: 12px; box-shadow: 0 1px 2px #0001, 0 10px 30px #00000014; }
.stack { position: relative; }
.stack img { box-shadow: none; }
.stack svg { position: absolute; inset: 0; width: 100%; height: 100%; }
svg.grid { display: block; width: 100%; height: auto; border-radius: 8px; background: rgb(238,236,230); }
svg.grid path { stroke: #3c4048; stroke-width: .06; fill: none; stroke-linecap: round; }
svg.grid text { font-size: .62px; font-weight: 600; text-anchor: middle; dominant-baseline: central;
  fill: #1d2025; }
svg.grid rect { stroke: #fff; stroke-width: .02; }
svg.over { background: none; }
svg.over .cells { opacity: .46; }
svg.over path { stroke: #fff; stroke-width: .05; }
svg.over text { paint-order: stroke; stroke: #fffc; stroke-width: .14; }
blockquote { margin: 0; padding: 20px 26px; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--accent); border-radius: 6px 12px 12px 6px; font-size: 19px;
  white-space: pre-wrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(108px, 1fr)); gap: 16px; }
.card { position: relative; padding: 8px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; border-top: 4px solid var(--colour, var(--line)); }
.card img { aspect-ratio: 1; object-fit: contain; background: var(--paper); }
.candidates { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 20px; }
.candidate { padding: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.candidate.picked { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
details { margin-top: 4px; } summary { cursor: pointer; color: var(--accent); }
.how { display: grid; grid-template-columns: 1fr 1fr; gap: 40px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: 7px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400; }
th { color: var(--soft); width: 130px; padding-right: 14px; }
.time { display: grid; grid-template-columns: 150px 1fr 64px; align-items: center; gap: 12px; font-size: 13px;
  padding: 6px 0; color: var(--soft); }
.time i { height: 10px; border-radius: 5px; background: var(--accent); opacity: .75; min-width: 2px; }
.time.total { border-top: 1px solid var(--line); color: var(--ink); font-weight: 600; }
.time.total i { visibility: hidden; }
.time span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 36px 0 0; padding: 14px 18px; background: #2b2f36; color: #eceae4; border-radius: 10px;
  font: 13px/1.5 "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 760px) { .result, .how { grid-template-columns: 1fr; } h1.sentence { font-size: 24px; } }
@media print { body { background: #fff; } main { max-width: none; padding: 0; } }
"""
