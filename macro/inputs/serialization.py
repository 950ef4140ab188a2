"""A sentence as a record: text and numbers as JSON, images and masks as PNG.

    sentence  JSON of task, idx, spans and notes; a span refers to its image by its index in `images`
    images    one PNG each
    truth     JSON, or "" if unknown
    masks     visible and amodal masks of all subjects: two 16-bit PNGs whose bit s - 1 is subject s
    albedo    one PNG, or none where it is unknown

Spans also hold the size of their image, so the outline of a sentence (all but the content of its images) is read
without decoding any. A round trip is the identity; a field that an older record lacks gets its default.
Read next: `macro/inputs/dataset_builder.py`.
"""

import io
import json
from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage

from macro.sentence.plan import Plan
from macro.sentence.spans import Image, Sentence, Target, Text, Truth
from macro.utils.images import decode, encode_png

IMAGES = ("images", "masks", "albedo")  # keys of a record whose values are lists of PNGs
_IMAGE = ("path", "subject", "role", "number", "phrase")
_NUMBERS = ("palettes", "boxes", "visibility")
_TUPLES = ("kinds", "textures", "colours", "depth_order", "relations", "questions")


def encode_sentence(sentence: Sentence) -> dict:
    """The record of a sentence (see the module's head)."""
    images = []
    spans = [_encode_span(span, images) for span in sentence]
    truth, masks, albedo = _encode_truth(sentence.truth)
    about = {"task": sentence.task, "idx": sentence.idx, "spans": spans}
    about |= {"notes": sentence.notes} if sentence.notes else {}
    return {
        "sentence": json.dumps(about, ensure_ascii=False),
        "images": images,
        "truth": truth,
        "masks": masks,
        "albedo": albedo,
    }


def decode_sentence(record: dict, content: bool = True, truth: bool = True) -> Sentence:
    """The sentence of a record.

    Args:
        content: False gives black images, in arrays that take no memory.
        truth: False omits the ground truth.
    """
    about = json.loads(record["sentence"])
    spans = [_decode_span(span, record["images"], content) for span in about["spans"]]
    facts = _decode_truth(record["truth"], record["masks"], record["albedo"]) if truth else None
    return Sentence(tuple(spans), about["task"], about["idx"], facts, about.get("notes", {}))


def _encode_span(span, images: list[bytes]) -> dict:
    if isinstance(span, Text):
        return {"text": span.text, "learn": span.learn}
    if isinstance(span, Plan):
        return {"cot": span.cot, "grid": None if span.grid is None else span.grid.tolist()}
    if isinstance(span, Image):
        known = {name: getattr(span, name) for name in _IMAGE}
    else:
        known = {"path": span.path, "target": None if span.size is None else list(span.size)}
    if span.pixels is not None:
        known |= {"image": len(images), "size": list(span.pixels.shape[:2])}
        images.append(encode_png(span.pixels))
    return known


def _decode_span(span: dict, images: Sequence[bytes], content: bool):
    if "text" in span:
        return Text(span["text"], span["learn"])
    if "cot" in span:
        return Plan(span["cot"], None if span["grid"] is None else np.array(span["grid"], np.int8))
    pixels = None
    if "image" in span:
        black = np.broadcast_to(np.uint8(0), (*span["size"], 3))
        pixels = decode(images[span["image"]]) if content else black
    if "target" in span:
        return Target(pixels, None if span["target"] is None else tuple(span["target"]), span["path"])
    return Image(pixels, **{name: span[name] for name in _IMAGE if name in span})


def _encode_truth(truth: Truth | None) -> tuple[str, list[bytes], list[bytes]]:
    """The JSON of a truth, its masks and its albedo."""
    if truth is None:
        return "", [], []
    about = {name: getattr(truth, name) for name in _TUPLES}
    for name in _NUMBERS:
        array = getattr(truth, name)
        about[name] = {"type": str(array.dtype), "shape": array.shape, "values": array.ravel().tolist()}
    masks = [_encode_bits(truth.masks), _encode_bits(truth.amodal)]
    albedo = [] if truth.albedo is None else [encode_png(truth.albedo)]
    return json.dumps(about, ensure_ascii=False), masks, albedo


def _decode_truth(text: str, masks: Sequence[bytes], painted: Sequence[bytes]) -> Truth | None:
    if not text:
        return None
    about = json.loads(text)
    arrays = {
        name: np.array(about[name]["values"], about[name]["type"]).reshape(about[name]["shape"]) for name in _NUMBERS
    }
    tuples = {name: _as_tuple(about[name]) for name in _TUPLES}
    visible, amodal = (_decode_bits(png, len(tuples["kinds"])) for png in masks)
    albedo = decode(painted[0]) if painted else None
    return Truth(**tuples, **arrays, masks=visible, amodal=amodal, albedo=albedo)


def _as_tuple(value):
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _encode_bits(masks: np.ndarray) -> bytes:
    bits = (masks.astype(np.uint16) << np.arange(len(masks), dtype=np.uint16)[:, None, None]).sum(0)
    buffer = io.BytesIO()
    PILImage.fromarray(bits.astype(np.uint16)).save(buffer, format="PNG")
    return buffer.getvalue()


def _decode_bits(png: bytes, subjects: int) -> np.ndarray:
    bits = np.asarray(PILImage.open(io.BytesIO(png))).astype(np.uint16)
    return (bits >> np.arange(subjects, dtype=np.uint16)[:, None, None] & 1).astype(bool)
