"""MACRO's spatial task (arXiv 2603.25319): an object or a place from some views, and one more view of it to draw.

    outside-in   an object from all round: eight named horizontal views, four low ones, top, bottom (`sources.Ring`)
    inside-out   a place from one standpoint: eight named directions, top, bottom, cut from a panorama

    choose    which views, and how far their axes are off the level
    overlap   inside-out: the target's overlap with its inputs (`geometry.py`) must lie in .3 .. .8
    neighbour outside-in: a horizontal target has a view beside it among the inputs
    draw      the pictures
    word      the prompt: it names every view and their order seen from above, and asks for one more
    judge     viewpoint and content, both 6 or more; the judge sees the true view

Buckets are numbers of inputs; a panorama has ten named views, so at most nine inputs. Read next: `temporal.py`.
"""

from dataclasses import dataclass

import numpy as np

from macro.engines.drafts import Draft, Engine, Step, gather, notes_of, use
from macro.engines.known import truths
from macro.engines.macrodata import geometry
from macro.engines.macrodata.geometry import HORIZONTAL, POLES, YAWS
from macro.engines.sources import Panorama, Picture, Ring, SourceFault
from macro.engines.stages import Judgement, Stages
from macro.scenes.views import looking, perspective_view
from macro.sentence.formats import in_sentence, marker
from macro.sentence.spans import Image, Sentence, Target
from macro.utils.errors import UserError

BUCKETS = ("1-3", "4-5", "6-7", "8-10")
# How the views of an object are called, and what they are in a ring of views.
OBJECT_VIEWS: dict[str, str] = {
    **{name: f"h{YAWS[name]:03d}" for name in HORIZONTAL},
    **{f"low_{name}": f"low{YAWS[name]:03d}" for name in HORIZONTAL[::2]},
    "top": "top", "bottom": "bottom",
}  # fmt: skip
PLACE_VIEWS = (*HORIZONTAL, *POLES)
_DRAWS = 64  # selections that are looked at before a draft is dropped by its filter


@dataclass(frozen=True)
class Options:
    """How samples are made.

    Attributes:
        inside_out: share of samples that look out from one standpoint.
        size: side of a view taken from a panorama, pixels; views of objects have their ring's.
        fov: its field of view, degrees [paper: 90].
        base_pitch: views of a panorama are off the level, or the vertical, by up to so many degrees [paper: 10].
        overlap: "largest" or "mean": which of the target's overlaps with its inputs is looked at. With "mean", views
            that do not overlap the target count as much as those that do: few inputs pass.
        lowest, highest: where it must lie [paper: .3, .8].
        least: score that viewpoint and content must reach [paper: 6].
    """

    inside_out: float = 0.5
    size: int = 128
    fov: float = 90.0
    base_pitch: float = 10.0
    overlap: str = "largest"
    lowest: float = 0.3
    highest: float = 0.8
    least: float = 6.0

    def __post_init__(self):
        if self.overlap not in ("largest", "mean"):
            raise UserError(f"spatial options: overlap={self.overlap!r} must be 'largest' or 'mean'")
        if not 0 <= self.inside_out <= 1 or not 0 <= self.lowest <= self.highest <= 1:
            raise UserError("spatial options: inside_out, and lowest <= highest, must lie in 0..1")
        if self.size < 1 or not 0 < self.fov < 180 or not 0 <= self.base_pitch <= 45:
            raise UserError("spatial options: size is 1 or more, fov within 0..180, base_pitch within 0..45")
        if not 0 <= self.least <= 10:
            raise UserError(f"spatial options: least={self.least} must lie in 0..10")


@dataclass(frozen=True)
class View:
    """A named view; of a panorama also its direction, degrees."""

    name: str
    yaw: float = 0.0
    pitch: float = 0.0


@dataclass(frozen=True, eq=False)
class SpatialDraft(Draft):
    """What is known of a sample with `count` inputs.

    Attributes:
        way: "outside-in" or "inside-out".
        views, target: the inputs, and what is to be drawn.
        overlaps: of the target with each input (inside-out).
        material: the ring or panorama.
        shown: the pictures of views and target, in this order.
        scores: the judge's.
    """

    way: str = ""
    count: int = 1
    views: tuple[View, ...] = ()
    target: View | None = None
    overlaps: tuple[float, ...] = ()
    material: Ring | Panorama | None = None
    shown: tuple[Picture, ...] = ()
    prompt: str = ""
    scores: dict[str, float] | None = None

    @property
    def references(self) -> tuple[Picture, ...]:
        return self.shown[:-1]

    @property
    def picture(self) -> Picture:
        return self.shown[-1]


def start(seed: int, index: int, attempt: int, bucket: str, options: Options) -> SpatialDraft:
    """An empty draft: which way, and with how many inputs of the bucket's, is the same for every attempt.

    Raises:
        ValueError: a bucket that is none of `BUCKETS`.
    """
    if bucket not in BUCKETS:
        raise ValueError(f"bucket {bucket!r} is none of {', '.join(BUCKETS)}")
    rng = SpatialDraft(seed, index, 0, "spatial", bucket).stream("count")
    way = "inside-out" if rng.random() < options.inside_out else "outside-in"
    low, high = map(int, bucket.split("-"))
    most = len(PLACE_VIEWS if way == "inside-out" else OBJECT_VIEWS) - 1
    count = int(rng.integers(low, min(high, most) + 1))
    return SpatialDraft(seed, index, attempt, "spatial", bucket, way=way, count=count)


# ---- steps ----


def _choose(drafts: list[SpatialDraft], stages: Stages, options: Options) -> list[SpatialDraft]:
    """Views at random, anew until they pass the filter of their kind; the last selection if none does."""
    del stages
    return [_chosen(draft, options) for draft in drafts]


def _chosen(draft: SpatialDraft, options: Options) -> SpatialDraft:
    rng = draft.stream("views")
    for _ in range(_DRAWS):
        draft = _selection(draft, rng, options)
        if _fits(draft, options):
            break
    return draft


def _selection(draft: SpatialDraft, rng: np.random.Generator, options: Options) -> SpatialDraft:
    names = list(OBJECT_VIEWS if draft.way == "outside-in" else PLACE_VIEWS)
    target, *inputs = (names[i] for i in rng.permutation(len(names))[: draft.count + 1])
    if draft.way == "outside-in":
        return draft.set(views=tuple(map(View, inputs)), target=View(target))
    asked, *given = (_direction(name, rng, options) for name in (target, *inputs))
    return draft.set(views=tuple(given), target=asked, overlaps=_overlaps(given, asked, options))


def _direction(name: str, rng: np.random.Generator, options: Options) -> View:
    """Where a named view of a panorama looks; near a pole it is off towards the front, never over the top."""
    off = float(rng.uniform(-options.base_pitch, options.base_pitch))
    if name in POLES:
        return View(name, 0.0, 90.0 - abs(off) if name == "top" else abs(off) - 90.0)
    return View(name, float(YAWS[name]), off)


def _overlaps(views: list[View], target: View, options: Options) -> tuple[float, ...]:
    fov = options.fov
    return tuple(
        float(geometry.view_overlap(view.yaw, view.pitch, target.yaw, target.pitch, fov, fov)) for view in views
    )


def _fits(draft: SpatialDraft, options: Options) -> bool:
    if draft.way == "outside-in":
        return geometry.has_neighbour(draft.target.name, [view.name for view in draft.views])
    return options.lowest <= geometry.summed_up(draft.overlaps, options.overlap) <= options.highest


def _filter_overlap(drafts: list[SpatialDraft], stages: Stages, options: Options) -> list[SpatialDraft]:
    """The filter of each kind, with its verdict."""
    del stages
    return [_filtered(draft, options) for draft in drafts]


def _filtered(draft: SpatialDraft, options: Options) -> SpatialDraft:
    kept = _fits(draft, options)
    if draft.way == "outside-in":
        return draft.passes("neighbour", kept, None, "" if kept else f"no view beside {draft.target.name}")
    value = float(geometry.summed_up(draft.overlaps, options.overlap))
    bounds = f"{options.lowest:g}..{options.highest:g}"
    reason = "" if kept else f"{options.overlap} overlap {value:.3f} not in {bounds}"
    return draft.passes("overlap", kept, value, reason)


def _draw(drafts: list[SpatialDraft], stages: Stages, options: Options) -> list[SpatialDraft]:
    """The pictures of all views and of the target."""

    def found(draft: SpatialDraft) -> Ring | Panorama:
        source = stages.sources.ring if draft.way == "outside-in" else stages.sources.panorama
        return source(draft.seed, draft.number("material"))

    def shown(draft: SpatialDraft) -> tuple[Picture, ...]:
        views = (*draft.views, draft.target)
        if draft.way == "outside-in":
            return tuple(_of_ring(draft.material, view) for view in views)
        return tuple(_of_panorama(draft.material, view, options) for view in views)

    supplied = gather(drafts, "draw", "material", found)
    return [d if d.dropped else gather([d], "draw", "shown", shown)[0] for d in supplied]


def _of_ring(ring: Ring, view: View) -> Picture:
    key = OBJECT_VIEWS[view.name]
    if key not in ring.views:
        raise SourceFault(f"{ring.name}: has no view {key!r}")
    return ring.views[key]


def _of_panorama(panorama: Panorama, view: View, options: Options) -> Picture:
    whole, scene = panorama.picture, panorama.picture.scene
    if whole.pixels.shape[1] != 2 * whole.pixels.shape[0]:
        raise SourceFault(f"{panorama.name}: not twice as wide as high, so no whole sphere")
    pixels = perspective_view(whole.pixels, view.yaw, view.pitch, options.fov, options.size)
    seen = None if scene is None else looking(scene, view.yaw, view.pitch, options.fov)
    return Picture(pixels, seen, whole.path)


# ---- words ----

_SHOWN = {
    "outside-in": (
        ("{n} shows an object from the {view}", "{n} from the {view}"),
        ("{n} is the {view} view of an object", "{n} its {view} view"),
        ("these pictures show one object: {n} is its {view} view", "{n} its {view} view"),
    ),
    "inside-out": (
        ("{n} shows a place, looking {view}", "{n} looking {view}"),
        ("{n} is the {view} view of a place from one standpoint", "{n} its {view} view"),
        ("these pictures were taken from one standpoint: {n} looks {view}", "{n} {view}"),
    ),
}
_ORDER = {
    "outside-in": "seen from above, the camera goes round it counter-clockwise in the order {ring}",
    "inside-out": "seen from above, the camera turns clockwise in the order {ring}",
}
_ASKED = {
    "outside-in": ("draw the same object from the {view}.", "now show its {view} view.", "draw its {view} view."),
    "inside-out": (
        "draw what is seen from there looking {view}.", "now show its {view} view.", "draw the {view} view from there."
    ),
}  # fmt: skip


def prompt_of(way: str, views: tuple[str, ...], target: str, rng: np.random.Generator) -> str:
    """Names every view with its picture, their order seen from above, and asks for one more."""
    style = int(rng.integers(3))
    first, others = _SHOWN[way][style]
    said = [(others if n > 1 else first).format(n=marker(n), view=view) for n, view in enumerate(views, 1)]
    listed = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    order = _ORDER[way].format(ring=", ".join(HORIZONTAL))
    low = " low views are taken from near the ground." if any(v.startswith("low_") for v in (*views, target)) else ""
    return f"{listed}. {order}.{low} {_ASKED[way][style].format(view=target)}"


def _word(drafts: list[SpatialDraft], stages: Stages, options: Options) -> list[SpatialDraft]:
    del stages, options
    return [
        draft.set(
            prompt=prompt_of(draft.way, tuple(v.name for v in draft.views), draft.target.name, draft.stream("words"))
        )
        for draft in drafts
    ]


# ---- judge, end ----


def _judge(drafts: list[SpatialDraft], stages: Stages, options: Options) -> list[SpatialDraft]:
    def scored(draft: SpatialDraft, scores: dict[str, float]) -> SpatialDraft:
        name = min(scores, key=scores.get)
        kept = scores[name] >= options.least
        reason = "" if kept else f"{name} is {scores[name]:.1f}, less than {options.least:g}"
        return draft.set(scores=scores).passes("judge", kept, float(scores[name]), reason)

    asked = [Judgement("spatial", d.prompt, d.references, d.picture, d.picture) for d in drafts]
    return use(drafts, "judge", stages.judge(asked), scored)


def finish(draft: SpatialDraft, options: Options) -> Sentence:
    """The prompt with its pictures, the target, the truth of a rendered one."""
    del options
    spans = in_sentence(draft.prompt, [Image(picture.pixels, picture.path) for picture in draft.references])
    truth = None if draft.picture.scene is None else truths([draft.picture])[0]
    notes = notes_of(
        draft, ENGINE, way=draft.way, material=draft.material.name, views=[_noted(draft, view) for view in draft.views],
        target=_noted(draft, draft.target), overlaps=list(draft.overlaps), scores=draft.scores,
    )  # fmt: skip
    return Sentence((*spans, Target(draft.picture.pixels)), "spatial", draft.index, truth, notes)


def _noted(draft: SpatialDraft, view: View) -> dict:
    if draft.way == "outside-in":
        return {"view": view.name, "ring": OBJECT_VIEWS[view.name]}
    return {"view": view.name, "yaw": view.yaw, "pitch": view.pitch}


STEPS = (
    Step("choose", _choose), Step("overlap", _filter_overlap), Step("draw", _draw), Step("word", _word),
    Step("judge", _judge),
)  # fmt: skip


def _start_any(seed: int, index: int, attempt: int, options: Options) -> SpatialDraft:
    """The buckets in turn."""
    return start(seed, index, attempt, BUCKETS[index % len(BUCKETS)], options)


ENGINE = Engine("macrodata spatial", "1.0.0", Options, _start_any, STEPS, finish)
