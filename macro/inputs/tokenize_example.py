"""Converts a sentence to segments, then to tokens with mask fields and RoPE ids (BAGEL's training format).

    span of the sentence      segments                                                  RoPE
    Text                      [bos] BPE [eos]                              causal     +1 per token
    Plan                      [bos] plan tokens [eos], all supervised      causal     +1 per token
    Image                     (clean VAE copy,) ViT copy                   full       equal, then +1 per copy
    Target                    `noise_draws` noised copies                  noise      equal, +0
      with spans after it     ... then its clean VAE copy, its ViT copy    full       +1 each
    dropped text / image    nothing                                                 +0 / +1 per copy

Every image copy is framed by [start] ... [end], which are text-stream tokens in the copy's own block. Editing sources
always have a clean VAE copy, references if the config asks for it.
A segment only refers to its image; `to_tokens` resizes it and cuts it into patches, so counting tokens
(`token_counts`) touches no pixels. Read next: `macro/inputs/packing.py`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from macro.inputs.conditioning import ConditionMask
from macro.sentence.attention_mask import CAUSAL, FULL, NOISE
from macro.sentence.layout import NUM_CLASSES, layout_to_token_weights
from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text
from macro.utils.errors import UserError
from macro.utils.images import to_float


@dataclass(frozen=True)
class TextSegment:
    """[bos] ... [eos]; If `supervised`, each token but the last is trained to predict the next."""

    ids: list[int]
    supervised: bool


@dataclass(frozen=True)
class VitSegment:
    """An image's ViT copy, `rows` x `columns` patches of `pixels` uint8[h, w, 3].

    `image` is its index among the sentence's images, dropped ones included; `given` is the number of images that
    share the area (`ImageSpec.reference_area`).
    """

    pixels: np.ndarray
    rows: int
    columns: int
    image: int
    subject: int
    given: int


@dataclass(frozen=True)
class VaeSegment:
    """An image's clean or noised VAE copy; copies of one image share the pixel slot `slot`.

    image: as in `VitSegment`; -1 for a noised copy. t_raw: raw normal time of a noised copy, None for a clean one.
    shares: float32[n, 13] subject shares of each token; None: unbound.
    """

    pixels: np.ndarray
    bucket: int
    rows: int
    columns: int
    slot: int
    image: int
    t_raw: float | None
    shares: np.ndarray | None


@dataclass(frozen=True)
class DroppedImage:
    """A dropped image copy: no tokens, but the RoPE ids advance as if it were there."""


class PositionState(NamedTuple):
    """The mask and RoPE fields of the next token of a sentence."""

    token_index: int = 0
    block_id: int = 0
    position_id: int = 0


@dataclass(frozen=True)
class TokenizedExample:
    """One sample's tokens, unpadded.

    Attributes:
        text, vision, latent: arrays by name, each [n of that stream, ...]; latent has `slot` and `token`
            (the token's index in its image) instead of `source`, which only a packed sequence determines.
        pixels: (bucket, uint8[h, w, 3]) of each pixel slot.
        copies: number of latent copies. images: one more than the highest index of an image that has tokens.
            cursor: where a continuation would start.
    """

    text: dict
    vision: dict
    latent: dict
    pixels: list
    copies: int
    images: int
    cursor: PositionState


def to_segments(
    sentence: Sentence, tokenizer, config, mask: ConditionMask, rng: np.random.Generator | None
) -> list:
    """The segments of a sentence in order.

    Args:
        tokenizer: see `macro/inputs/tokenizer.py`. config: a PackingConfig.
        mask: the spans to drop.
        rng: draws the times of the noised copies. None in sampling: no noised copies, and nothing from the last
            target on.
    """
    last_target = max((i for i, s in enumerate(sentence) if isinstance(s, Target)), default=None)
    pieces, slots, images, plan = [], 0, 0, None
    for i, span in enumerate(sentence):
        if isinstance(span, Target) and rng is None and i == last_target:
            break
        if isinstance(span, Text | Plan):
            if i in mask.text:
                continue
            if isinstance(span, Plan):
                plan = span
                if rng is not None:
                    _check_decodable(span, sentence)
            body = span.tokens(tokenizer) if isinstance(span, Plan) else tokenizer.encode(span.text)
            supervised = mask.scored and (isinstance(span, Plan) or span.learn)
            pieces.append(TextSegment([tokenizer.bos, *body, tokenizer.eos], supervised))
            continue
        given = len(sentence.images) if isinstance(span, Image) else 1
        copies = _image_segments(i, span, config, mask, slots, images, given, followed=i + 1 < len(sentence))
        if isinstance(span, Target) and rng is not None:
            copies = _noised_segments(span, plan, config, slots, rng) + copies
        if isinstance(span, Image) and mask.bound and config.binding:
            copies = [_bound(copy, span.subject or 0) for copy in copies]
        if config.max_images and images == config.max_images:
            most = f"more than {images} images"
            raise UserError(f"sentence (task {sentence.task}): {most}; leave config.token_selection out")
        pieces += copies
        slots += any(isinstance(copy, VaeSegment) for copy in copies)
        images += 1
    return pieces


def _check_decodable(plan: Plan, sentence: Sentence) -> None:
    """Raises UserError for a chain of thought that the grammar of `sampling/plan_decoding.py` cannot write."""
    if "<" in plan.cot:
        at = plan.cot.index("<")
        raise UserError(
            f"sentence {sentence.idx} (task {sentence.task}): its chain of thought holds {plan.cot[at : at + 12]!r}, "
            "but a thought that is decoded has no '<'; take it out of the sample"
        )


def _image_segments(
    i: int, span, config, mask: ConditionMask, slot: int, number: int, given: int, followed: bool
) -> list:
    """The clean VAE copy (if the image has one) and the ViT copy of an image; `DroppedImage` for dropped copies."""
    if isinstance(span, Target) and not followed:
        return []
    pixels = _pixels(span)
    size, images, copies = pixels.shape[:2], config.images, []
    if isinstance(span, Target) or span.role == "source" or config.reference_vae:
        fitted = images.target_size(size) if isinstance(span, Target) else images.vae_size(size, given)
        clean = VaeSegment(pixels, *_latent_shape(fitted, config), slot, number, None, None)
        copies.append(DroppedImage() if i in mask.vae else clean)
    height, width = images.vit_size(size, given)
    seen = VitSegment(pixels, height // config.patch, width // config.patch, number, 0, given)
    return [*copies, DroppedImage() if i in mask.vit else seen]


def _noised_segments(
    target: Target, plan: Plan | None, config, slot: int, rng: np.random.Generator
) -> list[VaeSegment]:
    pixels = _pixels(target)
    bucket, rows, columns = _latent_shape(config.images.target_size(pixels.shape[:2]), config)
    shares = subject_weights(plan, rows, columns, config)
    times = rng.standard_normal(config.noise_draws)
    return [VaeSegment(pixels, bucket, rows, columns, slot, -1, float(t), shares) for t in times]


def subject_weights(plan: Plan | None, rows: int, columns: int, config) -> np.ndarray | None:
    """float32[rows * columns, 13]: the share of each latent token per subject; None where nothing is bound."""
    if not config.binding or plan is None or plan.grid is None:
        return None
    return layout_to_token_weights(plan.grid, rows, columns)


def _bound(copy, subject: int):
    return replace(copy, subject=subject) if isinstance(copy, VitSegment) else copy


def _pixels(span: Image | Target) -> np.ndarray:
    if span.pixels is None:
        raise UserError(f"image {span.path or 'of the target'}: its pixels are not loaded; load them first")
    return span.pixels


def _latent_shape(size: tuple[int, int], config) -> tuple[int, int, int]:
    """The index of a size bucket (-1 for free sizes), and its height and width in latent tokens."""
    bucket = config.images.buckets.index(size) if config.images.buckets else -1
    return bucket, size[0] // config.latent_stride, size[1] // config.latent_stride


def token_counts(pieces: list, config) -> np.ndarray:
    """int[4 + buckets]: text, vision and latent tokens, 1 sample, and pixel slots of each bucket."""
    need = np.zeros(4 + len(config.buckets or ()), np.int64)
    need[3] = 1
    slots = {}
    for piece in pieces:
        if isinstance(piece, TextSegment):
            need[0] += len(piece.ids)
        elif isinstance(piece, VitSegment):
            need[:2] += 2, piece.rows * piece.columns
        elif isinstance(piece, VaeSegment):
            need[[0, 2]] += 2, piece.rows * piece.columns
            slots[piece.slot] = piece.bucket
    for bucket in slots.values():
        need[4 + bucket] += 1
    return need


class _TokenBuilder:
    """Collects the tokens of one sample and tracks the index, block and RoPE id of the next token."""

    def __init__(self, tokenizer, config, start: PositionState, with_pixels: bool):
        self.tokenizer, self.config, self.with_pixels = tokenizer, config, with_pixels
        self.token_index, self.block_id, self.position_id = start
        self.copies = self.images = 0
        self.streams = {"text": [], "vision": [], "latent": []}
        self.pixels = {}

    def words(self, piece: TextSegment) -> None:
        n = len(piece.ids)
        labels = np.full(n, -1, np.int32)
        if piece.supervised:
            labels[:-1] = piece.ids[1:]
        weight = (n - 1) ** -0.5 if self.config.length_normalized_ce else 1.0
        rope = self.position_id + np.arange(n)
        self._add("text", n, CAUSAL, rope, self._text(piece.ids, labels, weight))
        self.position_id += n
        self.block_id += 1

    def seen(self, piece: VitSegment) -> None:
        n = piece.rows * piece.columns
        values = {
            "position": grid_positions(piece.rows, piece.columns, self.config.vision_side),
            "subject": np.full(n, piece.subject, np.int32),
            "image": np.full(n, piece.image, np.int32),
        }
        if self.with_pixels:
            values["patches"] = patchify(self.config.images.vit_pixels(piece.pixels, piece.given), self.config.patch)
        self.images = max(self.images, piece.image + 1)
        self._framed("vision", n, FULL, values)
        self.position_id += 1

    def latents(self, piece: VaeSegment) -> None:
        n, noised = piece.rows * piece.columns, piece.t_raw is not None
        values = {
            "token": np.arange(n, dtype=np.int32),
            "position": grid_positions(piece.rows, piece.columns, self.config.latent_side),
            "copy": np.full(n, self.copies, np.int32),
            "image": np.full(n, piece.image, np.int32),
            "t_raw": np.full(n, piece.t_raw if noised else -np.inf, np.float32),
            "loss": np.full(n, noised),
            "subjects": np.zeros((n, NUM_CLASSES), np.float32) if piece.shares is None else piece.shares,
        }
        if self.with_pixels:
            if piece.slot not in self.pixels:
                size = piece.rows * self.config.latent_stride, piece.columns * self.config.latent_stride
                self.pixels[piece.slot] = (piece.bucket, self.config.images.vae_pixels(piece.pixels, size))
            values["slot"] = np.full(n, list(self.pixels).index(piece.slot), np.int32)
        self._framed("latent", n, NOISE if noised else FULL, values)
        self.images = max(self.images, piece.image + 1)
        self.copies += 1
        self.position_id += 0 if noised else 1

    def _framed(self, stream: str, n: int, mode: int, values: dict) -> None:
        none = np.full(1, -1, np.int32)
        self._add("text", 1, mode, self.position_id, self._text([self.tokenizer.image_start], none))
        self._add(stream, n, mode, self.position_id, values)
        self._add("text", 1, mode, self.position_id, self._text([self.tokenizer.image_end], none))
        self.block_id += 1

    def _text(self, ids: list[int], labels: np.ndarray, weight: float = 1.0) -> dict:
        return {
            "ids": np.array(ids, np.int32),
            "labels": labels,
            "weights": np.where(labels >= 0, weight, 0).astype(np.float32),
        }

    def _add(self, stream: str, n: int, mode: int, rope, values: dict) -> None:
        meta = {
            "token_index": self.token_index + np.arange(n, dtype=np.int32),
            "block_id": np.full(n, self.block_id, np.int32),
            "mask_mode": np.full(n, mode, np.int32),
            "position_ids": np.broadcast_to(np.asarray(rope, np.int32), (n,)),
        }
        self.streams[stream].append(values | meta)
        self.token_index += n


def to_tokens(
    pieces: list, tokenizer, config, start: PositionState | None = None, pixels: bool = True
) -> TokenizedExample:
    """The tokens of the segments, continuing from `start`; images are resized and cut into patches here.

    Without `pixels`, images have no patches and no pixel slots: for segments that were already encoded.
    """
    builder = _TokenBuilder(tokenizer, config, start or PositionState(), pixels)
    for piece in pieces:
        if isinstance(piece, TextSegment):
            builder.words(piece)
        elif isinstance(piece, VitSegment):
            builder.seen(piece)
        elif isinstance(piece, VaeSegment):
            builder.latents(piece)
        else:
            builder.position_id += 1
    streams = {name: _join(parts) for name, parts in builder.streams.items()}
    cursor = PositionState(builder.token_index, builder.block_id, builder.position_id)
    counts = {"copies": builder.copies, "images": builder.images}
    return TokenizedExample(**streams, pixels=list(builder.pixels.values()), **counts, cursor=cursor)


def _join(parts: list[dict]) -> dict:
    """The parts of one stream concatenated; {} if the sample has no token of it."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def patchify(pixels: np.ndarray, patch: int) -> Float32[np.ndarray, "n d"]:
    """Patches in row-major order, each a vector in (ph, pw, c) order.

    Args:
        pixels: uint8[h, w, 3] (scaled to -1..1 here), or float32 already in -1..1; h and w are
            multiples of `patch`.
    """
    if pixels.dtype == np.uint8:
        pixels = to_float(pixels)
    h, w, c = pixels.shape
    patches = pixels.reshape(h // patch, patch, w // patch, patch, c).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(patches.reshape(-1, patch * patch * c), np.float32)


def grid_positions(rows: int, columns: int, side: int) -> np.ndarray:
    """int32[rows * columns] position ids row * side + column, in a table of `side` x `side` positions.

    Raises:
        UserError: more rows or columns than the position table.
    """
    if max(rows, columns) > side:
        raise UserError(
            f"image of {rows} x {columns} tokens: the model's position table reaches {side} a side; scale it down"
        )
    return (np.arange(rows)[:, None] * side + np.arange(columns)).reshape(-1).astype(np.int32)
