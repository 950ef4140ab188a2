"""Collates several samples into one packed sequence, padded to fixed capacities.

Each latent token gets its index in the table of latents (ordered by bucket name, image, token), and each image its
pixel slot. The format of a packed sequence is described in `macro/inputs/packing.py`.
"""

from collections.abc import Sequence

import numpy as np

from macro.inputs.tokenize_example import TokenizedExample
from macro.sentence.layout import NUM_CLASSES
from macro.utils.errors import UserError

STREAMS = ("text", "vision", "latent")

# name -> (type, padding value); shapes beyond the token axis are in `_widths`.
_META = {
    "segment_ids": (np.int32, -1), "token_index": (np.int32, 0), "block_id": (np.int32, -1), "mask_mode": (np.int32, 0),
    "position_ids": (np.int32, 0),
}  # fmt: skip
_FIELDS = {
    "text": {
        "ids": (np.int32, 0), "labels": (np.int32, -1), "weights": (np.float32, 0), "task_id": (np.int32, 0),
    },
    "vision": {
        "patches": (np.float32, 0), "position": (np.int32, 0), "subject": (np.int32, 0), "image": (np.int32, -1),
    },
    "latent": {
        "source": (np.int32, 0), "position": (np.int32, 0), "copy": (np.int32, -1), "image": (np.int32, -1),
        "t_raw": (np.float32, -np.inf), "loss": (np.bool_, False), "subjects": (np.float32, 0),
        "task_id": (np.int32, 0),
    },
}  # fmt: skip


def collate(
    samples: Sequence[TokenizedExample], config, examples: Sequence[int] = (), tasks: Sequence[int] = ()
) -> dict:
    """One padded packed sequence of the given samples.

    Args:
        config: a PackingConfig; gives the capacities.
        examples: each sample's index in the data set. tasks: their task numbers (0 if omitted).

    Raises:
        UserError: the samples exceed a capacity.
    """
    starts, pixels = _pixel_table(samples, config)
    parts, copies, images = {stream: [] for stream in STREAMS}, 0, 0
    for k, sample in enumerate(samples):
        for stream in STREAMS:
            values = dict(getattr(sample, stream))
            if not values:
                continue
            marks = {"segment_ids": k}
            if stream == "latent":
                values["source"] = starts[k][values.pop("slot")] + values.pop("token")
                values["copy"] = values["copy"] + copies
            if stream != "text":
                values["image"] = np.where(values["image"] < 0, -1, values["image"] + images)
            if stream != "vision":
                marks["task_id"] = tasks[k] if len(tasks) else 0
            n = len(values["token_index"])
            parts[stream].append(values | {name: np.full(n, mark) for name, mark in marks.items()})
        copies += sample.copies
        images += sample.images
    row = {stream: _padded(stream, parts[stream], config) for stream in STREAMS}
    numbers = np.full(config.samples, -1, np.int32)
    numbers[: len(examples)] = examples
    return row | {"pixels": pixels, "examples": numbers}


def _pixel_table(samples: Sequence[TokenizedExample], config) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The first index of each slot of each sample in the table of latent tokens, and the pixels by bucket."""
    pixels, tokens, used = {}, [], [0] * len(config.buckets or ())
    for height, width, slots in config.buckets or ():
        pixels[f"{height}x{width}"] = np.zeros((slots, height, width, 3), np.uint8)
        tokens.append((height // config.latent_stride) * (width // config.latent_stride))
    # Sorted by name, because JAX sorts the keys of a dict.
    first, start = {}, 0
    for name, bucket in sorted((name, bucket) for bucket, name in enumerate(pixels)):
        first[bucket] = start
        start += len(pixels[name]) * tokens[bucket]
    starts = []
    for sample in samples:
        mine = []
        for bucket, image in sample.pixels:
            height, width, slots = config.buckets[bucket]
            if used[bucket] == slots:
                raise UserError(
                    f"packing.buckets: a row needs more than {slots} images of {height}x{width}; raise it"
                )
            pixels[f"{height}x{width}"][used[bucket]] = image
            mine.append(first[bucket] + used[bucket] * tokens[bucket])
            used[bucket] += 1
        starts.append(np.array(mine, np.int32))
    return starts, pixels


def _padded(stream: str, parts: list[dict], config) -> dict[str, np.ndarray]:
    capacity, total = getattr(config, stream), sum(len(part["token_index"]) for part in parts)
    if total > capacity:
        raise UserError(f"packing.{stream}: a row needs {total} tokens but holds {capacity}; raise it")
    widths = {"patches": (3 * config.patch**2,), "subjects": (NUM_CLASSES,)}
    padded = {}
    for name, (kind, padding) in (_FIELDS[stream] | _META).items():
        padded[name] = np.full((capacity, *widths.get(name, ())), padding, kind)
        if parts:
            padded[name][:total] = np.concatenate([part[name] for part in parts])
    return padded
