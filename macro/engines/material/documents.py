"""Stories from JSON files in one of two forms; images are files, named relative to the JSON.

    {"title": "The lost hat",
     "pages": [{"text": "Ann finds a hat.", "image": "1.png", "characters": ["Ann"]}, ...],
     "distractors": [{"before": 2, "image": "advert.png"}, ...]}           an image of no page, before page 2 (from 0)

    {"texts": ["Ann finds a hat.", null, "She puts it on.", null], "images": [null, "1.png", null, "2.png"]}

`title`, `characters` and `distractors` may be missing. The second form is that of interleaved web documents: two lists
of equal length, which are read in parallel. An image belongs to the texts before it, back to the previous image;
in a document that begins with an image, to those after it. An image without texts of its own belongs to no page: a
distractor.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from macro.engines.material.files import read_image, resolve_sibling
from macro.engines.material.types import EngineImage, Page, Story
from macro.utils.errors import ItemError

LARGEST = 16 << 20  # bytes of a JSON file
PAGES = 16  # longer documents are cut


def read_story(path: Path, root: Path, longest: int) -> Story:
    """The story of a JSON file.

    Args:
        root: folder that must contain its images.
        longest: side in pixels to which larger images are scaled down.

    Raises:
        ItemError: not JSON, a field missing or ill-typed, fewer than two pages, an image that is missing, broken or
            outside of `root`.
    """
    record = _read(path)

    def open_image(name: str) -> EngineImage:
        if "://" in name:
            raise ItemError(f"{path}: names {name!r:.80}, an address; images must be files beside it")
        return read_image(resolve_sibling(root, path, name), longest)

    story = (_listed if "texts" in record else _paged)(path, record, open_image)
    if len(story.pages) < 2:
        raise ItemError(f"{path}: {len(story.pages)} pages with text and image; a story has at least two")
    return story


def _read(path: Path) -> dict:
    try:
        if path.stat().st_size > LARGEST:
            raise ItemError(f"{path}: over {LARGEST >> 20} MB, too large for one story")
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ItemError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ItemError(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise ItemError(f"{path}: must hold one JSON object {{...}}")
    return record


_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def _field(path: Path, record: Any, name: str, kind: type, default: Any = None) -> Any:
    """A field of a record, of the required type; `default` if it may be missing."""
    if not isinstance(record, dict):
        raise ItemError(f"{path}: {record!r:.40} must be an object with {name!r}")
    value = record.get(name, default)
    if type(value) is not kind:
        raise ItemError(f"{path}: {name} must be {_NAMES[kind]}, not {value!r:.40}")
    return value


def _paged(path: Path, record: dict, open_image: Callable[[str], EngineImage]) -> Story:
    pages = []
    for page in _field(path, record, "pages", list)[:PAGES]:
        text = _field(path, page, "text", str).strip()
        names = _field(path, page, "characters", list, [])
        if not text:
            raise ItemError(f"{path}: page {len(pages)} has no text")
        if not all(isinstance(name, str) for name in names):
            raise ItemError(f"{path}: characters must be a list of texts, not {names!r:.40}")
        pages.append(Page(text, open_image(_field(path, page, "image", str)), tuple(names)))
    distractors = []
    for other in _field(path, record, "distractors", list, []):
        before = _field(path, other, "before", int)
        if before < 0:
            raise ItemError(f"{path}: a distractor stands before page {before}; pages count from 0")
        if before < len(pages):
            distractors.append((before, open_image(_field(path, other, "image", str))))
    return Story(_field(path, record, "title", str, path.stem), tuple(pages), tuple(distractors))


def _listed(path: Path, record: dict, open_image: Callable[[str], EngineImage]) -> Story:
    texts, images = _field(path, record, "texts", list), _field(path, record, "images", list)
    if len(texts) != len(images):
        raise ItemError(f"{path}: {len(texts)} texts, but {len(images)} images; both lists have a place for each")
    for given in (*texts, *images):
        if not isinstance(given, str | None):
            raise ItemError(f"{path}: texts and images must be lists of texts and nulls, not {given!r:.40}")
    pages, distractors = [], []
    for text, name in _paired(list(zip(texts, images, strict=True))):
        if len(pages) == PAGES:
            break
        if text:
            pages.append(Page(text, open_image(name)))
        else:
            distractors.append((len(pages), open_image(name)))
    kept = tuple((before, other) for before, other in distractors if before < len(pages))
    return Story(_field(path, record, "title", str, path.stem), tuple(pages), kept)


def _paired(places: list[tuple[str | None, str | None]]) -> list[tuple[str, str]]:
    """(texts, image) for every image; texts after the last, or before the first, are added to that image's."""
    things = [thing for text, name in places for thing in (("text", text), ("image", name)) if thing[1]]
    images = [n for n, (kind, _) in enumerate(things) if kind == "image"]
    if not images:
        return []
    if images[0] == 0:
        ranges = zip(images, [*images[1:], len(things)], strict=True)
    else:
        ranges = zip([0, *images[:-1]], [*images[:-1], len(things)], strict=True)
    paired = []
    for number, (start, stop) in zip(images, ranges, strict=True):
        words = [text.strip() for kind, text in things[start:stop] if kind == "text" and text.strip()]
        paired.append((" ".join(words), things[number][1]))
    return paired
