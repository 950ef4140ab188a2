"""MACRO's spatial task (arXiv 2603.25319): given some views of an object or a place, the target is a novel view.

    outside-in   an object from all around: eight named horizontal views, four low ones, top, bottom (`Turntable`)
    inside-out   a place from one standpoint: eight named directions, top, bottom, cut from a panorama

    choose    which views, and how far their axes deviate from the horizontal
    overlap   inside-out: the target's overlap with its inputs (`geometry.py`) must lie in .3 .. .8
    neighbour outside-in: a horizontal target has a view beside it among the inputs
    draw      the images
    word      the prompt: it names every view and their order seen from above, and requests one more

Buckets count inputs; a panorama has ten named views, so at most nine inputs. Read next: `temporal.py`.
"""

from dataclasses import dataclass

import numpy as np

from macro.engines.core import Candidate, Step, arranged, each, load_source
from macro.engines.ground_truth import known_truth
from macro.engines.macrodata import geometry
from macro.engines.macrodata.geometry import HORIZONTAL, LOW, POLES, YAWS, view_overlap
from macro.engines.macrodata.mixture import BUCKETS, rank_of
from macro.engines.macrodata.options import Options, SpatialOptions
from macro.engines.material.types import EngineImage, Panorama, Turntable
from macro.engines.provider import Provider
from macro.scenes.language.lexicon import listed
from macro.scenes.render.cameras import looking, perspective_view
from macro.sentence.prompt import marker
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import ItemError
from macro.utils.streams import branch, stream

# Name of each view of an object -> its name in a turntable.
OBJECT_VIEWS: dict[str, str] = {
    **{name: f"h{YAWS[name]:03d}" for name in HORIZONTAL},
    **{LOW + name: f"low{YAWS[name]:03d}" for name in HORIZONTAL[::2]},
    "top": "top", "bottom": "bottom",
}  # fmt: skip
PLACE_VIEWS = (*HORIZONTAL, *POLES)
_HORIZONTAL = 0.8  # share of targets that are horizontal, before filters
_DRAWS = 64  # selections tried before a candidate is dropped by its filter


@dataclass(frozen=True)
class View:
    """A named view; for a panorama also its direction, degrees."""

    name: str
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True, eq=False)
class SpatialCandidate(Candidate):
    """A candidate with `count` inputs.

    Attributes:
        way: "outside-in" or "inside-out". rank: how many samples before it are made that way.
        views, target: the inputs' views, and the target's.
        overlaps: of the target with each input (inside-out).
        material: the turntable or panorama.
        shown: the images of views and target, in this order.
    """

    way: str = ""
    rank: int = 0
    count: int = 1
    views: tuple[View, ...] = ()
    target: View | None = None
    overlaps: tuple[float, ...] = ()
    material: Turntable | Panorama | None = None
    shown: tuple[EngineImage, ...] = ()
    prompt: str = ""

    @property
    def references(self) -> tuple[EngineImage, ...]:
        return self.shown[:-1]

    @property
    def image(self) -> EngineImage:
        return self.shown[-1]


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> SpatialCandidate:
    """An empty candidate; its direction (way) and number of inputs are the same for every attempt."""
    rng = stream(seed, index, "spatial")
    inside_out, rank = branch(seed, rank_of(index), "inside-out", options.spatial.inside_out)
    way = "inside-out" if inside_out else "outside-in"
    most = len(PLACE_VIEWS if way == "inside-out" else OBJECT_VIEWS) - 1
    count = int(rng.choice([n for n in BUCKETS[bucket] if n <= most]))
    return SpatialCandidate(seed, index, attempt, "spatial", bucket, way=way, rank=rank, count=count)


# ---- steps ----

Batch = list[SpatialCandidate]


def _choose(candidate: SpatialCandidate, options: Options) -> SpatialCandidate:
    """Random views, drawn again until they pass the filter of their kind; the last selection if none does."""
    rng = candidate.rng("views")
    for _ in range(_DRAWS):
        candidate = _selection(candidate, rng, options.spatial)
        if _fits(candidate, options.spatial):
            break
    return candidate


def _selection(candidate: SpatialCandidate, rng: np.random.Generator, options: SpatialOptions) -> SpatialCandidate:
    names = tuple(OBJECT_VIEWS if candidate.way == "outside-in" else PLACE_VIEWS)
    askable = HORIZONTAL if rng.random() < _HORIZONTAL else names[len(HORIZONTAL) :]
    target = str(rng.choice(askable))
    inputs = [str(name) for name in rng.permutation([n for n in names if n != target])[: candidate.count]]
    if candidate.way == "outside-in":
        return candidate.replace(views=tuple(map(View, inputs)), target=View(target))
    asked, *given = (_direction(name, rng, options) for name in (target, *inputs))
    overlaps = (view_overlap(v.yaw, v.pitch, asked.yaw, asked.pitch, options.fov, options.fov) for v in given)
    return candidate.replace(views=tuple(given), target=asked, overlaps=tuple(map(float, overlaps)))


def _direction(name: str, rng: np.random.Generator, options: SpatialOptions) -> View:
    """Direction of a named view of a panorama; near a pole it deviates towards the front, never over the top."""
    off = float(rng.uniform(-options.base_pitch, options.base_pitch))
    if name in POLES:
        return View(name, 0.0, 90.0 - abs(off) if name == "top" else abs(off) - 90.0)
    return View(name, float(YAWS[name]), off)


def _fits(candidate: SpatialCandidate, options: SpatialOptions) -> bool:
    if candidate.way == "outside-in":
        return geometry.has_neighbour(candidate.target.name, [view.name for view in candidate.views])
    return options.lowest <= geometry.summed_up(candidate.overlaps, options.overlap) <= options.highest


def _filter_overlap(candidate: SpatialCandidate, options: Options) -> SpatialCandidate:
    """The filter of each kind, with its result."""
    options, kept = options.spatial, _fits(candidate, options.spatial)
    if candidate.way == "outside-in":
        return candidate.check("neighbour", kept, None, "" if kept else f"no view beside {candidate.target.name}")
    value = float(geometry.summed_up(candidate.overlaps, options.overlap))
    bounds = f"{options.lowest:g}..{options.highest:g}"
    reason = "" if kept else f"{options.overlap} overlap {value:.3f} not in {bounds}"
    return candidate.check("overlap", kept, value, reason)


def _draw(candidates: Batch, provider: Provider, options: Options) -> Batch:
    """The images of all views and of the target."""

    def found(candidate: SpatialCandidate) -> Turntable | Panorama:
        source = provider.sources.turntable if candidate.way == "outside-in" else provider.sources.panorama
        return source(candidate.seed, candidate.source_index(candidate.rank))

    def shown(candidate: SpatialCandidate) -> tuple[EngineImage, ...]:
        views = (*candidate.views, candidate.target)
        if candidate.way == "outside-in":
            return tuple(_of_ring(candidate.material, view) for view in views)
        return tuple(_of_panorama(candidate.material, view, options) for view in views)

    supplied = load_source(candidates, "draw", "material", found)
    return [d if d.dropped else load_source([d], "draw", "shown", shown)[0] for d in supplied]


def _of_ring(ring: Turntable, view: View) -> EngineImage:
    key = OBJECT_VIEWS[view.name]
    if key not in ring.views:
        raise ItemError(f"{ring.name}: has no view {key!r}")
    return ring.views[key]


def _of_panorama(panorama: Panorama, view: View, options: Options) -> EngineImage:
    whole, scene = panorama.image, panorama.image.scene
    if whole.pixels.shape[1] != 2 * whole.pixels.shape[0]:
        raise ItemError(f"{panorama.name}: not twice as wide as high, so no whole sphere")
    pixels = perspective_view(whole.pixels, view.yaw, view.pitch, options.spatial.fov, options.size)
    seen = None if scene is None else looking(scene, view.yaw, view.pitch, options.spatial.fov)
    return EngineImage(pixels, seen, whole.path)


# ---- prompt ----

_SHOWN = {
    "outside-in": (
        ("{n} shows an object from the {view}", "{n} from the {view}"),
        ("{n} is the {view} view of an object", "{n} its {view} view"),
        ("these images show one object: {n} is its {view} view", "{n} its {view} view"),
    ),
    "inside-out": (
        ("{n} shows a place in the direction {view}", "{n} in the direction {view}"),
        ("{n} is the {view} view of a place from one standpoint", "{n} its {view} view"),
        ("these images were taken from one standpoint: {n} is the {view} view", "{n} the {view} view"),
    ),
}
_ORDER = {
    "outside-in": "seen from above, the camera goes round it counter-clockwise in the order {ring}",
    "inside-out": "seen from above, the camera turns clockwise in the order {ring}",
}
_ASKED = {
    "outside-in": ("draw the same object from the {view}.", "now show its {view} view.", "draw its {view} view."),
    "inside-out": (
        "draw what is seen from there in the direction {view}.", "now show its {view} view.",
        "draw the {view} view from there.",
    ),
}  # fmt: skip


def prompt_of(way: str, views: tuple[str, ...], target: str, rng: np.random.Generator) -> str:
    """A prompt that names every view with its image, and their order seen from above, and requests one more."""
    style = int(rng.integers(3))
    first, others = _SHOWN[way][style]
    said = [(others if n > 1 else first).format(n=marker(n), view=spoken(view)) for n, view in enumerate(views, 1)]
    order = _ORDER[way].format(ring=", ".join(map(spoken, HORIZONTAL)))
    low = " low views are taken from near the ground." if any(v.startswith(LOW) for v in (*views, target)) else ""
    return f"{listed(said)}. {order}.{low} {_ASKED[way][style].format(view=spoken(target))}"


def spoken(view: str) -> str:
    """The name of a view as people write it: "back right", "low front"."""
    return view.replace("_", " ")


def _word(candidate: SpatialCandidate, options: Options) -> SpatialCandidate:
    names = tuple(view.name for view in candidate.views)
    return candidate.replace(prompt=prompt_of(candidate.way, names, candidate.target.name, candidate.rng("words")))


# ---- end ----


def finish(candidate: SpatialCandidate, options: Options) -> Sentence:
    """The prompt with its images in one of the two arrangements, the target, the truth if rendered.

    All images show the same thing, so none is assigned to a subject.
    """
    images = [Image(image.pixels, number=n) for n, image in enumerate(candidate.references, 1)]
    spans = arranged(candidate.prompt, images, candidate.rng("arrangement"), options.image_first)
    spans = (*spans, Target(candidate.image.pixels))
    notes = {
        "way": candidate.way,
        "material": candidate.material.name,
        "views": [_noted(candidate, view) for view in candidate.views],
        "asked": _noted(candidate, candidate.target),
        "overlaps": list(candidate.overlaps),
    }
    return Sentence(spans, "spatial", candidate.index, known_truth(candidate.image), notes)


def _noted(candidate: SpatialCandidate, view: View) -> dict:
    if candidate.way == "outside-in":
        return {"view": view.name, "ring": OBJECT_VIEWS[view.name]}
    return {"view": view.name, "yaw": view.yaw, "pitch": view.pitch}


STEPS = (
    Step("choose", each(_choose)), Step("overlap", each(_filter_overlap)), Step("draw", _draw),
    Step("word", each(_word)),
)  # fmt: skip
