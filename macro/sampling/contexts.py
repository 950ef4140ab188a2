"""The contexts of guidance: the ordered spans of each, and how they are grouped into model calls.

    policy   context    text                      images                       plan or thought
    joint    full       reads                     reads                        reads
             no_text    skips; position ids +0    reads                        skips
             no_image   reads                     skips; position ids +1 per   reads
                                                  ViT and VAE copy
             null       skips                     skips, as no_image           skips
    bagel    full       reads                     reads                        reads
             no_text    what `full` has read before its last text, or up to its last image if that is later
             no_image   reads                     skips; position ids +0       skips

`joint` drops spans before the sentence is tokenized, exactly as condition dropout does in training
(`macro/inputs/conditioning.py`), so the model has seen each of these contexts. `bagel` takes snapshots of the full
context, as the released BAGEL code does. Every context reads the system prompt.

A `Prompt` is a tree of `Chunk`s. Each chunk is read in one call of the model, with the sentences of a batch as rows.
Contexts that begin with the same images share the chunk that holds them; identical contexts are computed once.
Nothing here runs a model. Read next: `macro/sampling/prefill.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array

from macro.inputs.conditioning import context_mask
from macro.inputs.packing import PackingConfig, pack_target
from macro.inputs.tokenize_example import (
    PositionState,
    TextSegment,
    TokenizedExample,
    VaeSegment,
    VitSegment,
    to_segments,
    to_tokens,
)
from macro.sentence.attention_mask import CAUSAL
from macro.sentence.plan import Plan
from macro.sentence.prompt import arrange
from macro.sentence.spans import Sentence

POLICIES = ("joint", "bagel")
# The smallest buffer, and the size from which buffers grow in finer steps: so a few compiled programs serve sentences
# of all lengths.
LEAST_CAPACITY, FINE_CAPACITY = 64, 1024
# A token's name is `image * IMAGE_TOKENS + token` over all copies of an image, the same in every context.
IMAGE_TOKENS = 1 << 20
TEXT, PADDING = -1, -2
_META = ("segment_ids", "token_index", "block_id", "mask_mode", "position_ids")
_FIELDS = {"text": ("ids",), "vision": ("index", "subject"), "latent": ("index", "position", "subjects")}


@dataclasses.dataclass(frozen=True, eq=False)
class Chunk:
    """Spans that are read in one call of the model, one row per sentence.

    Attributes:
        parent: index of the chunk that is read before this one; None for the first.
        streams: `text`, and `vision` and `latent` if any row has tokens of them: arrays [s, n, ...]. `index` selects
            among the sentence's encoded ViT or VAE tokens.
        names: of the tokens, by stream, int32[s, n].
    """

    parent: int | None
    streams: dict[str, dict[str, np.ndarray | Array]]
    names: dict[str, np.ndarray | Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """Everything read before the plan or the target, for a batch of s sentences.

    Attributes:
        chunks: each after its parent.
        contexts: context name -> index of the last chunk that it reads; None for a context without tokens.
        ends: context name -> where each sentence's continuation starts.
        plans: names of the contexts that read a plan or thought.
        vision: the packed ViT copies of the images, [s, n, ...]; None without images.
        latents: per sentence the images for the VAE, uint8[h, w, 3] (or float32 in -1..1).
    """

    chunks: tuple[Chunk, ...]
    contexts: Mapping[str, int | None]
    ends: Mapping[str, tuple[PositionState, ...]]
    plans: tuple[str, ...]
    vision: dict[str, np.ndarray | Array] | None
    latents: tuple[tuple[np.ndarray | Array, ...], ...]

    @property
    def sentences(self) -> int:
        return len(next(iter(self.ends.values())))

    @property
    def distinct(self) -> tuple[str, ...]:
        """Names of the contexts that differ from all earlier ones; `full` is the first."""
        return tuple(dict.fromkeys(self.same.values()))

    @property
    def same(self) -> dict[str, str]:
        """Context name -> name of the first context that is equal to it."""
        first: dict[Any, str] = {}
        return {name: first.setdefault(self._key(name), name) for name in self.contexts}

    def _key(self, name: str):
        return self.contexts[name], self.ends[name], name in self.plans

    def path(self, name: str) -> tuple[int, ...]:
        """Indices of the chunks that a context reads, in order."""
        found, number = [], self.contexts[name]
        while number is not None:
            found.append(number)
            number = self.chunks[number].parent
        return tuple(reversed(found))


@dataclasses.dataclass(frozen=True, eq=False)
class Continuation:
    """What follows the prompt in each of d x s x c rows (distinct contexts, sentences, candidates).

    Attributes:
        plan: text stream [kept x s x c, m] of the contexts that read the plan, padded; empty without plans.
        kept: indices of these contexts among the distinct ones; the full context is always 0.
        frame: text stream [rows, 2], the target's start and end tokens.
        latent: `position`, `subjects` and metadata [rows, n] of the target's tokens.
        ends: context name -> where the target starts for the first candidate of each sentence.
    """

    plan: dict
    kept: tuple[int, ...]
    frame: dict
    latent: dict
    ends: Mapping[str, tuple[PositionState, ...]]


def capacity(tokens: int) -> int:
    """The buffer size for this many tokens: the next of 64, 96, 128, 192, ... 1024, 1152, ... 2048, 2304, ..."""
    power = 1 << max(tokens - 1, 0).bit_length()
    if tokens > FINE_CAPACITY:
        step = power // 16
        return -(-tokens // step) * step
    return max(LEAST_CAPACITY, power * 3 // 4 if tokens <= power * 3 // 4 else power)


# ---- spans of each context ----


def context_spans(
    sentence: Sentence, names: Sequence[str], policy: str, tokenizer, packing: PackingConfig, system: Sequence[int] = ()
) -> dict[str, list]:
    """The spans of the sentence that each context reads before the plan and the last target, in order.

    Args:
        names: of the contexts, `full` first.
        policy: one of POLICIES.
        system: ids of a system prompt; empty for none.

    Returns:
        Lists of `TextSegment`, `VaeSegment`, `VitSegment` and `DroppedImage` (`macro/inputs/tokenize_example.py`).
    """
    bare = arrange(sentence.with_plan(None), packing.arrangement)
    head = [TextSegment([tokenizer.bos, *system, tokenizer.eos], False)] if system else []

    def read(context: str) -> list:
        return head + to_segments(bare, tokenizer, packing, context_mask(context, bare), None)

    if policy == "joint":
        return {name: read(name) for name in names}
    found = snapshots(read("full"), len(head))
    return {name: found[name] for name in names}


def snapshots(full: Sequence, head: int = 0) -> dict[str, list]:
    """The spans of BAGEL's three contexts from those of `full`; the first `head` of these are a system prompt."""
    texts = [n for n, piece in enumerate(full) if isinstance(piece, TextSegment) and n >= head]
    images = [n for n, piece in enumerate(full) if not isinstance(piece, TextSegment)]
    last = max([head, *texts, *(n + 1 for n in images)])
    text = [piece for piece in full if isinstance(piece, TextSegment)]
    return {"full": list(full), "no_text": list(full[:last]), "no_image": text}


def reading_plans(names: Sequence[str], policy: str) -> tuple[str, ...]:
    """Names of the contexts that read a plan or thought."""
    return tuple(name for name in names if name == "full" or name == "no_image" and policy == "joint")


def _key(piece):
    """A key that is equal for segments with the same tokens."""
    if isinstance(piece, TextSegment):
        return tuple(piece.ids)
    return type(piece).__name__, getattr(piece, "image", None), getattr(piece, "subject", None)


# ---- the tree of chunks ----


class _Builder:
    """Turns each context's spans into chunks."""

    def __init__(self, tokenizer, packing: PackingConfig, full: Sequence[Sequence]):
        self.tokenizer, self.packing, self.chunks = tokenizer, packing, []
        self.packed = [to_tokens(pieces, tokenizer, packing) for pieces in full]
        self.places = [{stream: _places(packed, stream) for stream in ("vision", "latent")} for packed in self.packed]
        self.chunk_of: dict[str, int | None] = {}
        self.ends: dict[str, tuple[PositionState, ...]] = {}

    def read(self, spans: dict[str, list[list]], chunk: int | None, ends: tuple, pending: list[list]) -> None:
        """Adds chunks after `chunk` for each context's remaining spans, per sentence; `pending` comes first."""
        lists = list(spans.values())
        for number in range(len(ends)):
            common = _common([each[number] for each in lists])
            pending[number] = pending[number] + lists[0][number][:common]
            for each in lists:
                each[number] = each[number][common:]
        if not any(any(each) for each in lists):
            chunk, ends = self._extend(chunk, ends, pending)
            self.chunk_of |= dict.fromkeys(spans, chunk)
            self.ends |= dict.fromkeys(spans, ends)
            return
        # Only images justify a call of their own.
        if any(isinstance(piece, VitSegment | VaeSegment) for pieces in pending for piece in pieces):
            chunk, ends = self._extend(chunk, ends, pending)
            pending = [[] for _ in ends]
        groups: dict[Any, dict] = {}
        for name, left in spans.items():
            nexts = tuple(_key(pieces[0]) if pieces else None for pieces in left)
            groups.setdefault(nexts, {})[name] = left
        for group in groups.values():
            self.read(group, chunk, ends, [list(pieces) for pieces in pending])

    def _extend(
        self, chunk: int | None, ends: tuple, pieces: list[list]
    ) -> tuple[int | None, tuple[PositionState, ...]]:
        given = self.tokenizer, self.packing
        packed = [to_tokens(each, *given, start, pixels=False) for each, start in zip(pieces, ends, strict=True)]
        if any(each.text for each in packed):
            self.chunks.append(self._chunk(chunk, packed))
            chunk = len(self.chunks) - 1
        return chunk, tuple(each.cursor for each in packed)

    def _chunk(self, parent: int | None, packed: Sequence[TokenizedExample]) -> Chunk:
        streams, names = {}, {}
        for stream in ("text", "vision", "latent"):
            rows = [getattr(each, stream) for each in packed]
            most = max(len(row.get("token_index", ())) for row in rows)
            if not most and stream != "text":
                continue
            streams[stream] = stack([self._row(n, stream, row) for n, row in enumerate(rows)], capacity(most))
            named = np.full((len(rows), capacity(most)), PADDING, np.int32)
            for number, row in enumerate(rows):
                tokens = self._names(number, stream, row)
                named[number, : len(tokens)] = tokens
            names[stream] = named
        return Chunk(parent, streams, names)

    def _names(self, number: int, stream: str, row: dict) -> np.ndarray:
        if stream == "text" or not row:
            return np.full(len(row.get("token_index", ())), TEXT, np.int32)
        # Token names count the VAE copy of an image first.
        offset = np.zeros(len(row["token_index"]), np.int32)
        if stream == "vision":
            clean = self.packed[number].latent.get("image", np.zeros(0, np.int32))
            offset = np.sum(row["image"][:, None] == clean[None], axis=1)
        return (row["image"] * IMAGE_TOKENS + offset + _counted(row["image"])).astype(np.int32)

    def _row(self, number: int, stream: str, row: dict) -> dict:
        if not row:
            return {}
        row = row | {"segment_ids": np.zeros(len(row["token_index"]), np.int32)}
        if stream != "text":
            starts = self.places[number][stream]
            first = np.array([starts[image] for image in row["image"]], np.int32)
            row["index"] = first + _counted(row["image"])
        return {name: row[name] for name in (*_FIELDS[stream], *_META)}


def prompt_of(
    sentences: Sequence[Sentence], names: Sequence[str], policy: str, tokenizer, packing, system: Sequence[int] = ()
) -> Prompt:
    """The `Prompt` of several sentences in the contexts `names`; arguments as in `context_spans`."""
    spans = [context_spans(sentence, names, policy, tokenizer, packing, system) for sentence in sentences]
    return make_prompt(spans, reading_plans(names, policy), tokenizer, packing)


def make_prompt(
    spans: Sequence[Mapping[str, list]],
    plans: Sequence[str],
    tokenizer,
    packing: PackingConfig,
    starts: Sequence[PositionState] | None = None,
) -> Prompt:
    """Divides the spans that the contexts of several sentences read into chunks.

    Args:
        spans: per sentence, from `context_spans`.
        plans: names of the contexts that will read a plan.
        starts: where each sentence continues; None: at its beginning.
    """
    builder = _Builder(tokenizer, packing, [each["full"] for each in spans])
    left = {name: [list(each[name]) for each in spans] for name in spans[0]}
    builder.read(left, None, tuple(starts or [PositionState()] * len(spans)), [[] for _ in spans])
    names = list(spans[0])
    return Prompt(
        tuple(builder.chunks),
        {name: builder.chunk_of[name] for name in names},
        {name: builder.ends[name] for name in names},
        tuple(plans),
        _vision(builder.packed),
        tuple(tuple(pixels for _, pixels in packed.pixels) for packed in builder.packed),
    )


def continue_prompt(
    sentences: Sequence[Sentence],
    size: tuple[int, int],
    plans: Sequence[Sequence[Plan | None]],
    texts: Sequence[Sequence[Sequence[int] | None]],
    prompt: Prompt,
    tokenizer,
    packing: PackingConfig,
) -> Continuation:
    """The tokens of each plan and of the target after it, for every distinct context of `prompt`.

    A context that does not read the plan has no layout binding either.

    Args:
        size: (height, width) of the targets in pixels.
        plans: of each sentence's candidates, the same number for all; all given or all None.
        texts: their ids, without bos and eos.
    """
    read, frames, latents, kept, ends = [], [], [], [], {}
    for number, context in enumerate(prompt.distinct):
        keeps = context in prompt.plans and texts[0][0] is not None
        kept += [number] if keeps else []
        for row in range(len(sentences)):
            start = prompt.ends[context][row]
            for plan, ids in zip(plans[row], texts[row], strict=True):
                end = start
                if keeps:
                    read.append(text_tokens([tokenizer.bos, *ids, tokenizer.eos], start))
                    moved = len(ids) + 2
                    end = PositionState(start.token_index + moved, start.block_id + 1, start.position_id + moved)
                target = pack_target(end, size, tokenizer, packing, plan if keeps else None)
                frames.append(target["text"])
                latents.append(target["latent"])
                ends.setdefault(context, {}).setdefault(row, end)
    plan = stack(read, capacity(max(len(text["ids"]) for text in read))) if read else {}
    first = {name: tuple(ends[same].values()) for name, same in prompt.same.items()}
    frame, latent = (stack(rows, len(rows[0]["token_index"])) for rows in (frames, latents))
    return Continuation(plan, tuple(kept), frame, latent, first)


def text_tokens(ids: Sequence[int], start: PositionState) -> dict[str, np.ndarray]:
    """A text with bos and eos as a text stream in which every token but the last predicts the next."""
    n = len(ids)
    counted = np.arange(n, dtype=np.int32)
    return {
        "ids": np.array(ids, np.int32),
        "labels": np.array([*ids[1:], -1], np.int32),
        "segment_ids": np.zeros(n, np.int32),
        "token_index": start.token_index + counted,
        "block_id": np.full(n, start.block_id, np.int32),
        "mask_mode": np.full(n, CAUSAL, np.int32),
        "position_ids": start.position_id + counted,
    }


def image_of(names: np.ndarray) -> np.ndarray:
    """The index of the image that each token belongs to, -1 for text and padding."""
    return np.where(names < 0, -1, names // IMAGE_TOKENS).astype(np.int32)


def stack(rows: Sequence[dict], size: int) -> dict[str, np.ndarray]:
    """Rows of a stream, `[n, ...]` by name, as padded arrays `[rows, size, ...]`; `{}` is a row without tokens."""
    like, filling = next(row for row in rows if row), dict.fromkeys(("segment_ids", "block_id", "labels"), -1)

    def padded(row: dict, name: str) -> np.ndarray:
        values = row[name] if row else like[name][:0]
        widths = [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1)
        return np.pad(values, widths, constant_values=filling.get(name, 0))

    return {name: np.stack([padded(row, name) for row in rows]) for name in like}


def _common(lists: Sequence[list]) -> int:
    """The number of leading segments that are equal in all lists."""
    keys = [tuple(map(_key, pieces)) for pieces in lists]
    shortest = min(map(len, keys))
    return next((n for n in range(shortest) if len({each[n] for each in keys}) > 1), shortest)


def _places(packed: TokenizedExample, stream: str) -> dict[int, int]:
    """Image index -> where its tokens start among the sentence's encoded ones."""
    images = getattr(packed, stream).get("image", ())
    return {int(image): n for n, image in reversed(list(enumerate(images)))}


def _counted(images: np.ndarray) -> np.ndarray:
    """The index of each token within its image; the tokens of an image must be contiguous."""
    starts = np.flatnonzero(np.diff(images, prepend=-1))
    return (np.arange(len(images)) - np.repeat(starts, np.diff([*starts, len(images)]))).astype(np.int32)


def _vision(packed: Sequence[TokenizedExample]) -> dict[str, np.ndarray] | None:
    most = max(len(each.vision.get("token_index", ())) for each in packed)
    if not most:
        return None
    rows = [{name: each.vision[name] for name in ("patches", "position", "block_id") if each.vision} for each in packed]
    rows = [row and row | {"segment_ids": np.zeros(len(row["block_id"]), np.int32)} for row in rows]
    return stack(rows, capacity(most))
