"""The contexts that guidance compares, as token streams side by side on the batch axis.

A context is the sentence with spans left out *before* it is packed (`macro/inputs/transforms.py` says which),
so that its tokens, orders and RoPE ids are the very ones that condition dropout showed the model in training:

    full      words, pictures, plan, binding        no_image  words and plan; RoPE as if pictures were there
    no_text   pictures only                         null      nothing at all

A drawing reads three parts one after the other: the *prompt* (all spans before the plan; read once for all
candidates), the *plan*, and the *target* (two framing tokens and the latents between them). Each part starts
where the one before ends, per context. Several sentences can be drawn side by side. Rows of a prompt go context by
context, sentence by sentence; those of plan and target within each sentence candidate by candidate.
Read next: `macro/sampling/plan.py` (writing and reading plans), `macro/sampling/draw.py`.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from macro.inputs.packing import PackingConfig, pack_sentence, pack_target
from macro.inputs.pieces import Cursor, Packed
from macro.inputs.rows import make_row
from macro.sentence.plan import Plan
from macro.sentence.spans import Sentence

# The fewest places of a buffer; capacities grow in steps from here, so that a few compiled programs serve sentences of
# all lengths: by 1.3 to 1.5, and where attention to what is not there begins to cost by 1.07 to 1.13.
LEAST_CAPACITY, FINE_CAPACITY = 64, 1024


@dataclass(frozen=True)
class Prompt:
    """The prompts of one or several sentences in several contexts.

    Attributes:
        contexts: their names, in the order of the rows. sentences: how many rows each has.
        streams: `text`, and where any context has tokens of it `vision` and `latent` (clean copies of
            sources): arrays [contexts x sentences, n, ...] as `make_row` gives them.
        pixels: by size bucket uint8[contexts x sentences, m, h, w, 3], what `latent["source"]` points into.
        ends: where each row's continuation starts.
    """

    contexts: tuple[str, ...]
    sentences: int
    streams: dict
    pixels: dict
    ends: tuple[Cursor, ...]


@dataclass(frozen=True)
class Continuation:
    """What follows the prompt in each of contexts x sentences x candidates rows.

    Attributes:
        plan: text stream [kept x sentences x candidates, m] of the contexts that keep the plan, padded; empty without
            plans.
        kept: numbers of these contexts; the full context is always 0.
        frame: text stream [rows, 2], the target's start and end tokens.
        latent: `position`, `subjects` and metadata [rows, n] of the target's tokens.
    """

    plan: dict
    kept: tuple[int, ...]
    frame: dict
    latent: dict


def capacity(tokens: int) -> int:
    """Places of the buffer that holds `tokens`: the next of 64, 96, 128, 192, ... 1024, 1152, ... 2048, 2304, ..."""
    power = 1 << max(tokens - 1, 0).bit_length()
    if tokens > FINE_CAPACITY:
        step = power // 16
        return -(-tokens // step) * step
    return max(LEAST_CAPACITY, power * 3 // 4 if tokens <= power * 3 // 4 else power)


def read_prompt(sentences: Sequence[Sentence], contexts: Sequence[str], tokenizer, packing: PackingConfig) -> Prompt:
    """Packs what comes before the plan, once for every context, to common sizes."""
    bare = [sentence.with_plan(None) for sentence in sentences]
    packed = [pack_sentence(each, tokenizer, packing, context=context) for context in contexts for each in bare]
    rows = [make_row([sample], _row_config(packed, packing)) for sample in packed]
    streams = {"text": _stack([row["text"] for row in rows])}
    for name in ("vision", "latent"):
        if any(getattr(sample, name) for sample in packed):
            streams[name] = _stack([row[name] for row in rows])
    pixels = _stack([row["pixels"] for row in rows])
    return Prompt(tuple(contexts), len(bare), streams, pixels, tuple(sample.cursor for sample in packed))


def continue_prompt(
    sentences: Sequence[Sentence],
    plans: Sequence[Sequence[Plan | None]],
    prompt: Prompt,
    tokenizer,
    packing: PackingConfig,
) -> Continuation:
    """Packs each plan and the target after it, for every context of `prompt`; or, without plans, the target alone.

    A context without text has neither the plan's words nor its binding.

    Args:
        sentences: those of `prompt`, all with targets of one size.
        plans: candidates of each sentence, equally many; all there or all None.
    """
    texts, frames, latents, kept = [], [], [], []
    for number, context in enumerate(prompt.contexts):
        for row, sentence in enumerate(sentences, number * len(sentences)):
            for plan in plans[row % len(sentences)]:
                packed = pack_sentence(sentence.with_plan(plan), tokenizer, packing, context=context)
                keeps = packed.cursor != prompt.ends[row]
                bound, size = plan if keeps else None, sentence.target.size
                target = pack_target(packed.cursor, size, tokenizer, packing, bound)
                frames.append(target["text"])
                latents.append(target["latent"])
                if keeps:
                    texts.append(_from(packed, prompt.ends[row]))
        if keeps:
            kept.append(number)
    read = {}
    if texts:
        places = capacity(max(len(text["ids"]) for text in texts))
        read = _stack([_pad(text, places) for text in texts])
    return Continuation(read, tuple(kept), _stack(frames), _stack(latents))


def _row_config(packed: Sequence[Packed], packing: PackingConfig) -> PackingConfig:
    """Row capacities that hold the largest of these samples."""

    def most(stream: str) -> int:
        return capacity(max(len(getattr(sample, stream).get("order", ())) for sample in packed))

    slots = [
        max(sum(bucket == number for bucket, _ in sample.pixels) for sample in packed)
        for number in range(len(packing.buckets))
    ]
    buckets = tuple((h, w, m) for (h, w, _), m in zip(packing.buckets, slots, strict=True))
    sizes = {stream: most(stream) for stream in ("text", "vision", "latent")}
    return dataclasses.replace(packing, buckets=buckets, samples=1, **sizes)


def _from(packed: Packed, start: Cursor) -> dict:
    """The text tokens from `start` on."""
    new = packed.text["order"] >= start.order
    text = {name: values[new] for name, values in packed.text.items()}
    return text | {"sample": np.zeros(new.sum(), np.int32)}


def _pad(text: dict, places: int) -> dict:
    padding = {"sample": -1, "span": -1, "labels": -1}
    return {
        name: np.pad(values, (0, places - len(values)), constant_values=padding.get(name, 0))
        for name, values in text.items()
    }


def _stack(rows: Sequence[dict]) -> dict:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
