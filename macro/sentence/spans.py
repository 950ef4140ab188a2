"""A sample is a sentence: text, images, plan and target in one ordered tuple of spans.

Text-to-image, editing, MUSIC, INSET and MACRO's four tasks are all this one type:

    Sentence((Text("A "), Image(dog, subject=1, number=1), Text("dog leans on "),
              Image(lamp, subject=2, number=2), Text("a lamp."), Plan(cot, grid), Target(image)))

Subjects and images are numbered from 1. A subject is a thing in the scene; several images may show one
subject, and an image may show none (a style). Spans are immutable and compared by content.
Read next: `macro/sentence/prompt.py` (files <-> sentences), `macro/inputs/packing.py` (sentences -> tokens).
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from macro.sentence.layout import MAX_SUBJECTS
from macro.sentence.plan import Plan
from macro.utils.errors import UserError

MAX_REFERENCES = 12
ROLES = ("reference", "source", "context")


class _Value:
    """Equality by content, and a short repr, for dataclasses that hold arrays."""

    def __eq__(self, other) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))

    __hash__ = None

    def __repr__(self) -> str:
        shown = (f"{f.name}={_brief(getattr(self, f.name))}" for f in dataclasses.fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"


def _brief(value) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


def _same(a, b) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.array_equal(a, b)
    return a == b


@dataclass(frozen=True)
class Text:
    """Text. `learn`: whether it is supervised (a plan always is)."""

    text: str
    learn: bool = False


@dataclass(frozen=True, eq=False, repr=False)
class Image(_Value):
    """A given image.

    Attributes:
        pixels: uint8[h, w, 3], or None if only the file is known.
        path: the file it came from.
        subject: 1..12, the subject it shows; None for a style, a page, a source.
        role: 'reference', 'source' (the image to edit) or 'context' (an earlier page).
        number: the n of `<image n>`, from 1; None for an image that the text never mentions.
        phrase: the part of the text that it shows (INSET), if known.
    """

    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    path: str | None = None
    subject: int | None = None
    role: str = "reference"
    number: int | None = None
    phrase: str | None = None

    def __post_init__(self):
        if self.pixels is None and self.path is None:
            raise UserError("image: neither pixels nor a path; give one of them")
        if self.subject is not None and not 1 <= self.subject <= MAX_SUBJECTS:
            raise UserError(f"image: subject {self.subject}, but subjects go from 1 to {MAX_SUBJECTS}")
        if self.number is not None and self.number < 1:
            raise UserError(f"image: number {self.number}, but `<image n>` counts from 1")
        if self.role not in ROLES:
            raise UserError(f"image: role {self.role!r}, but it must be one of {', '.join(ROLES)}")


@dataclass(frozen=True, eq=False, repr=False)
class Target(_Value):
    """The image to draw: `pixels` uint8[h, w, 3] in training, `size` (h, w) in sampling.

    With pixels, `size` is derived from them. `path` is the file it came from.
    """

    pixels: UInt8[np.ndarray, "h w 3"] | None = None
    size: tuple[int, int] | None = None
    path: str | None = None

    def __post_init__(self):
        if self.pixels is not None:
            object.__setattr__(self, "size", tuple(self.pixels.shape[:2]))
        if self.size is None and self.path is None:
            raise UserError("target: give its pixels, its size (height, width), or its file")


@dataclass(frozen=True, eq=False, repr=False)
class Truth(_Value):
    """The ground truth of a rendered target, for judges and tests.

    Arrays and lists are indexed by subject, in order; subject numbers start at 1.

    Attributes:
        kinds, textures: names.
        colours: for each subject the name of the colour that at least half of its visible pixels have, else of its two
            largest; () for one that is not visible.
        palettes: [s, 3 colours, RGB] in 0..1.
        boxes: [s, 4] as x0, y0, x1, y1 in 0..1 of the image.
        masks, amodal: [s, h, w], the visible part, and the whole subject as if unoccluded.
        visibility: [s], visible area / whole area.
        depth_order: subject numbers, nearest first.
        relations: (i, name, j), or (i, 'between', (j, k)), in subject numbers.
        questions: (text, answer is yes).
        albedo: the image in the subjects' own paint, without light; black where no subject is. None if unknown.
    """

    kinds: tuple[str, ...]
    palettes: Float[np.ndarray, "s 3 3"]
    textures: tuple[str, ...]
    colours: tuple[tuple[str, ...], ...]
    boxes: Float[np.ndarray, "s 4"]
    masks: Bool[np.ndarray, "s h w"]
    amodal: Bool[np.ndarray, "s h w"]
    visibility: Float[np.ndarray, "s"]
    depth_order: tuple[int, ...]
    relations: tuple = ()
    questions: tuple = ()
    albedo: UInt8[np.ndarray, "h w 3"] | None = None


Span = Text | Image | Plan | Target


@dataclass(frozen=True, eq=False, repr=False)
class Sentence(_Value):
    """Spans in order, their task, the index in that task, and the ground truth if known.

    `notes` describe how an engine made it (JSON-like; `macro/engines/core.py`), for people who inspect the data.

    Raises:
        UserError: two plans, or more than 12 reference images.
    """

    spans: tuple[Span, ...]
    task: str = "compose"
    idx: int = 0
    truth: Truth | None = None
    notes: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "spans", tuple(self.spans))
        if sum(isinstance(span, Plan) for span in self.spans) > 1:
            raise UserError("sentence: more than one plan; keep one")
        references = sum(image.role == "reference" for image in self.images)
        if references > MAX_REFERENCES:
            raise UserError(
                f"sentence: {references} reference images, but at most {MAX_REFERENCES} fit; leave some out"
            )

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def images(self) -> tuple[Image, ...]:
        """The given images, in order."""
        return tuple(span for span in self.spans if isinstance(span, Image))

    @property
    def plan(self) -> Plan | None:
        return next((span for span in self.spans if isinstance(span, Plan)), None)

    @property
    def target(self) -> Target | None:
        """The (first) image to draw."""
        return next((span for span in self.spans if isinstance(span, Target)), None)

    @property
    def text(self) -> str:
        """The joined text of all text spans, without any sign of images (`prompt.prompt_of` marks them)."""
        return "".join(span.text for span in self.spans if isinstance(span, Text))

    @property
    def subjects(self) -> int:
        """The number of subjects that a plan may use: those that the images show, or 12 with an image to edit.

        The subjects in an image to edit are not numbered yet; their numbers follow those of the references.
        """
        if any(image.role == "source" for image in self.images):
            return MAX_SUBJECTS
        return len({image.subject for image in self.images} - {None})

    def replace(self, **changes) -> "Sentence":
        """A copy with other fields: `sentence.replace(spans=..., task=...)`."""
        return dataclasses.replace(self, **changes)

    def with_plan(self, plan: Plan | None) -> "Sentence":
        """A copy with this plan just before the target (or at the end); None removes the plan."""
        spans = [span for span in self.spans if not isinstance(span, Plan)]
        if plan is not None:
            at = next((i for i, span in enumerate(spans) if isinstance(span, Target)), len(spans))
            spans.insert(at, plan)
        return self.replace(spans=tuple(spans))
