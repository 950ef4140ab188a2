"""Stories from JSON files, in either of two forms; pictures are files, named relative to the JSON.

    {"title": "The lost hat",
     "pages": [{"text": "Ann finds a hat.", "image": "1.png", "characters": ["Ann"]}, ...],
     "distractors": [{"before": 2, "image": "advert.png"}, ...]}           a picture of no page, before page 2 (from 0)

    {"texts": ["Ann finds a hat.", null, "She puts it on.", null], "images": [null, "1.png", null, "2.png"]}

`title`, `characters` and `distractors` may be missing. The second form is that of interleaved web documents: two lists
of one length, which are read side by side. There a picture belongs to the texts before it, back to the picture before;
in a document that begins with a picture, to those after it. One without texts of its own belongs to no page: a
distractor.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from macro.engines.material.files import beside, picture
from macro.engines.sources import Page, Picture, SourceFault, Story

LARGEST = 16 << 20  # bytes of a JSON file
PAGES = 16  # the rest of a longer document is not read


def read_story(path: Path, root: Path, longest: int) -> Story:
    """The story of a JSON file.

    Args:
        root: the folder that its pictures must lie in.
        longest: side in pixels that larger pictures are scaled down to.

    Raises:
        SourceFault: no JSON, a field missing or ill-typed, fewer than two pages, a picture that is missing, broken or
            outside of `root`.
    """
    record = _read(path)

    def open_picture(name: str) -> Picture:
        if "://" in name:
            raise SourceFault(f"{path}: names {name!r:.80}, an address; pictures must be files beside it")
        return picture(beside(root, path, name), longest)

    story = (_listed if "texts" in record else _paged)(path, record, open_picture)
    if len(story.pages) < 2:
        raise SourceFault(f"{path}: {len(story.pages)} pages with text and picture; a story has at least two")
    return story


def _read(path: Path) -> dict:
    try:
        if path.stat().st_size > LARGEST:
            raise SourceFault(f"{path}: over {LARGEST >> 20} MB, too large for one story")
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SourceFault(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SourceFault(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise SourceFault(f"{path}: must hold one JSON object {{...}}")
    return record


_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def _field(path: Path, record: Any, name: str, kind: type, default: Any = None) -> Any:
    """A field of a record that must be of a kind; `default` where it may be missing."""
    if not isinstance(record, dict):
        raise SourceFault(f"{path}: {record!r:.40} must be an object with {name!r}")
    value = record.get(name, default)
    if type(value) is not kind:
        raise SourceFault(f"{path}: {name} must be {_NAMES[kind]}, not {value!r:.40}")
    return value


def _paged(path: Path, record: dict, open_picture: Callable[[str], Picture]) -> Story:
    pages = []
    for page in _field(path, record, "pages", list)[:PAGES]:
        text = _field(path, page, "text", str).strip()
        names = _field(path, page, "characters", list, [])
        if not text:
            raise SourceFault(f"{path}: page {len(pages)} has no text")
        if not all(isinstance(name, str) for name in names):
            raise SourceFault(f"{path}: characters must be a list of texts, not {names!r:.40}")
        pages.append(Page(text, open_picture(_field(path, page, "image", str)), tuple(names)))
    distractors = []
    for other in _field(path, record, "distractors", list, []):
        before = _field(path, other, "before", int)
        if before < 0:
            raise SourceFault(f"{path}: a distractor stands before page {before}; pages count from 0")
        if before < len(pages):
            distractors.append((before, open_picture(_field(path, other, "image", str))))
    return Story(_field(path, record, "title", str, path.stem), tuple(pages), tuple(distractors))


def _listed(path: Path, record: dict, open_picture: Callable[[str], Picture]) -> Story:
    texts, images = _field(path, record, "texts", list), _field(path, record, "images", list)
    if len(texts) != len(images):
        raise SourceFault(f"{path}: {len(texts)} texts, but {len(images)} images; both lists have a place for each")
    for given in (*texts, *images):
        if not isinstance(given, str | None):
            raise SourceFault(f"{path}: texts and images must be lists of texts and nulls, not {given!r:.40}")
    pages, distractors = [], []
    for text, name in _paired(list(zip(texts, images, strict=True))):
        if len(pages) == PAGES:
            break
        if text:
            pages.append(Page(text, open_picture(name)))
        else:
            distractors.append((len(pages), open_picture(name)))
    kept = tuple((before, other) for before, other in distractors if before < len(pages))
    return Story(_field(path, record, "title", str, path.stem), tuple(pages), kept)


def _paired(places: list[tuple[str | None, str | None]]) -> list[tuple[str, str]]:
    """(texts, picture) for every picture; what stands after the last, or before the first, goes to that one."""
    things = [thing for text, name in places for thing in (("text", text), ("image", name)) if thing[1]]
    pictures = [n for n, (kind, _) in enumerate(things) if kind == "image"]
    if not pictures:
        return []
    if pictures[0] == 0:
        ranges = zip(pictures, [*pictures[1:], len(things)], strict=True)
    else:
        ranges = zip([0, *pictures[:-1]], [*pictures[:-1], len(things)], strict=True)
    paired = []
    for number, (start, stop) in zip(pictures, ranges, strict=True):
        words = [text.strip() for kind, text in things[start:stop] if kind == "text" and text.strip()]
        paired.append((" ".join(words), things[number][1]))
    return paired
