"""Packs sentences into sequences of three streams of fixed length: text, vision, latent.

A packed sequence holds several samples side by side, which `segment_ids` and the attention mask
(`macro/sentence/attention_mask.py`) keep apart. It is a nested dict of arrays:

    text    ids[n] labels[n] (token to predict, -1 none) weights[n] task_id[n]
    vision  patches[n, p*p*3] in -1..1, position[n], subject[n] (0 unbound), image[n]
    latent  source[n] position[n] copy[n] image[n] (-1: noised) t_raw[n] (-inf: clean) loss[n] subjects[n, 13]
            task_id[n]
    each    segment_ids (-1 padding), token_index, block_id, mask_mode, position_ids
    pixels  {"128x128": uint8[m, 128, 128, 3], ...} one entry per size bucket
    examples[r]  the data set's index of each sample, -1 padding

`image` numbers the images of a packed sequence: the ViT and the clean VAE copy of one have the same number.
`source` is an index into its table of latent tokens, ordered by bucket name, image, token (row-major). Workers cannot
run a VAE, so the train step encodes `pixels` and gathers from that table; the noised and clean copies of one image
share its pixels.

`assign_window` decides which samples are packed together. It takes W consecutive global indices at a time and is a
pure function of (seed, window); every sample of the window is in exactly one of its packed sequences.
Read next: `macro/inputs/tokenize_example.py` (a sentence to tokens), `macro/inputs/loader.py` (batches).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache

import numpy as np

from macro.inputs.bin_packing import pack
from macro.inputs.collate import collate
from macro.inputs.conditioning import CfgDropout, context_mask
from macro.inputs.image_spec import ImageSpec, ResizeRule
from macro.inputs.tokenize_example import (
    PositionState,
    TokenizedExample,
    grid_positions,
    subject_weights,
    to_segments,
    to_tokens,
    token_counts,
)
from macro.sentence.attention_mask import NOISE
from macro.sentence.layout import NUM_CLASSES
from macro.sentence.plan import Plan
from macro.sentence.prompt import ARRANGEMENTS, AS_GIVEN, arrange
from macro.sentence.spans import Sentence
from macro.utils.errors import UserError


@dataclass(frozen=True)
class PackingConfig:
    """How sentences are packed. Sides are in pixels unless stated otherwise.

    Attributes:
        text, vision, latent: capacity of each stream of a packed sequence, in tokens.
        samples: the most samples a packed sequence may hold.
        buckets: (height, width, slots): sizes to which VAE copies and targets are cropped, and slots of each per
            packed sequence. None: free sizes by BAGEL's rule (`ImageSpec.bagel`), for sampling only.
        noise_draws: noised copies of each target.
        window: samples that are packed together, W.
        patch, vision_side: side of a ViT patch, and patches along a side of the position table.
        latent_stride, latent_side: pixels per latent token along a side (VAE stride times latent patch), and
            latent tokens along a side of the position table.
        reference_max_side, reference_min_side: longest and shortest side of an image as the ViT sees it, with
            buckets.
        reference_pixels, max_upscale: see `ImageSpec`.
        reference_vae: references have a clean VAE copy too (sources always have one).
        binding: whether tokens get the embedding of the subject they show.
        cfg_dropout: condition dropout, for guidance.
        arrangement: order of a prompt's images and text in training and sampling, one of `prompt.ARRANGEMENTS`;
            "as_given" leaves training samples as they are and samples in-sentence.
        length_normalized_ce: a supervised text of n tokens has a total weight of n^(1/2), not n, so that long texts
            dominate less (BAGEL's ce_loss_reweighting).
        max_images: the most images of a sentence (more is an error); 0: no limit.
        tasks: names of the tasks, in the order of `task_id`.
    """

    text: int = 832
    vision: int = 336
    latent: int = 1024
    samples: int = 4
    buckets: Sequence | None = ((128, 128, 4),)
    noise_draws: int = 4
    window: int = 512
    patch: int = 16
    vision_side: int = 70
    latent_stride: int = 16
    latent_side: int = 64
    reference_max_side: int = 64
    reference_min_side: int = 0
    max_upscale: float = 2.0
    reference_pixels: Sequence | None = None
    reference_vae: bool = False
    binding: bool = True
    cfg_dropout: CfgDropout = field(default_factory=CfgDropout)
    arrangement: str = "as_given"
    length_normalized_ce: bool = False
    max_images: int = 0
    tasks: Sequence = ("compose", "edit", "text", "customization", "illustration", "spatial", "temporal")

    def __post_init__(self):
        for each in fields(self):  # config files hold lists, but a config must be hashable as a key of caches
            if isinstance(getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(getattr(self, each.name)))
        for name in ("buckets", "reference_pixels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(tuple(part) for part in getattr(self, name)))
        if self.arrangement not in (*ARRANGEMENTS, AS_GIVEN):
            raise UserError(
                f"config.data.arrangement={self.arrangement!r}: choose one of {', '.join(ARRANGEMENTS)}, {AS_GIVEN}"
            )
        if self.reference_max_side < self.patch:
            raise UserError(
                f"config.packing.reference_max_side: {self.reference_max_side} is less than one patch ({self.patch})"
            )
        self.images  # noqa: B018 - raises an error in it here

    @cached_property
    def images(self) -> ImageSpec:
        """The rule for image sizes."""
        limits = self.latent_side * self.latent_stride, self.vision_side * self.patch
        if self.buckets is None:
            return ImageSpec.bagel(limits[0], self.latent_stride, limits[1], self.patch, self.reference_pixels)
        return ImageSpec(
            ResizeRule(limits[0], 0, self.latent_stride),
            ResizeRule(self.reference_max_side, self.reference_min_side, self.patch),
            *limits,
            buckets=tuple((height, width) for height, width, _ in self.buckets),
            reference_pixels=self.reference_pixels,
            max_upscale=self.max_upscale,
        )

    @property
    def capacities(self) -> np.ndarray:
        """Capacities of a packed sequence, in the order of `tokenize_example.token_counts`."""
        return np.array([self.text, self.vision, self.latent, self.samples, *(m for *_, m in self.buckets or ())])

    @property
    def kinds(self) -> list[str]:
        """Names of the entries of `capacities`."""
        slots = [f"buckets ({height}x{width} image slots)" for height, width, _ in self.buckets or ()]
        return ["text tokens", "vision tokens", "latent tokens", "samples", *slots]


def pack_sentence(
    sentence: Sentence,
    tokenizer,
    config: PackingConfig,
    rng: np.random.Generator | None = None,
    context: str = "full",
) -> TokenizedExample:
    """The tokens of one sentence.

    Args:
        rng: in training, draws the context (condition dropout) and the times of the noised targets. None in
            sampling: no noised copies, nothing from the last target on, and the context is `context`.
        context: one of conditioning.CONTEXTS.

    Returns:
        The sample, unpadded (`collate` pads it); its `cursor` is where a continuation starts.
    """
    return to_tokens(example_segments(sentence, tokenizer, config, rng, context), tokenizer, config)


def example_segments(sentence, tokenizer, config, rng, context="full") -> list:
    sentence = arrange(sentence, config.arrangement)
    mask = context_mask(context, sentence) if rng is None else config.cfg_dropout.sample(rng, sentence)
    return to_segments(sentence, tokenizer, config, mask, rng)


def pack_target(
    cursor: PositionState, size: tuple[int, int], tokenizer, config: PackingConfig, plan: Plan | None = None
) -> dict:
    """The tokens of an image to generate after a context that ends at `cursor`.

    Args:
        size: (height, width) in pixels, multiples of `latent_stride`.
        plan: its grid, if any, is bound to the latents; None in contexts without text.

    Returns:
        {"text": the 2 framing tokens, "latent": position, subjects and metadata of the tokens between}.
    """
    rows, columns = size[0] // config.latent_stride, size[1] // config.latent_stride
    position = grid_positions(rows, columns, config.latent_side)
    text, latent = image_frame_tokens(cursor, position, NOISE, tokenizer)
    shares = subject_weights(plan, rows, columns, config)
    latent["subjects"] = np.zeros((rows * columns, NUM_CLASSES), np.float32) if shares is None else shares
    return {"text": text, "latent": latent}


def image_frame_tokens(cursor: PositionState, position: np.ndarray, mode: int, tokenizer) -> tuple[dict, dict]:
    """One image copy at `cursor`, as a block of its own: [start] one token per position [end].

    Returns:
        (the two framing tokens: `ids`; the tokens between them: `position`), each with metadata.
    """
    n = len(position)
    text = {"ids": np.array([tokenizer.image_start, tokenizer.image_end], np.int32)}
    inner = {"position": position}
    orders = np.array([0, n + 1], np.int32), np.arange(1, n + 1, dtype=np.int32)
    for stream, order in zip((text, inner), orders, strict=True):
        constant = {"segment_ids": 0, "block_id": cursor.block_id, "mask_mode": mode}
        constant["position_ids"] = cursor.position_id
        stream["token_index"] = cursor.token_index + order
        stream |= {name: np.full(len(order), value, np.int32) for name, value in constant.items()}
    return text, inner


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def epoch_and_index(seed: int, number: int, size: int) -> tuple[int, int]:
    """(epoch, index in the data set) of a global index; every epoch has its own order."""
    epoch, place = divmod(number, size)
    return epoch, int(_permutation(seed, epoch, size)[place])


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random generator of a sample in an epoch, for all that is random about it."""
    return np.random.default_rng((seed, epoch, index, 1))


def assign_window(
    source: Sequence, tokenizer, config: PackingConfig, seed: int, window: int
) -> list[list[int]]:
    """Which samples are packed together.

    Args:
        source: sentences by index. If it has `outline(index)`, that is used instead: the same sentence with black
            images of the right shape, which needs no decoding.
        window: covers the global indices window * W ... window * W + W - 1.

    Returns:
        The global indices of each packed sequence, in the order of training.
    """
    outline = getattr(source, "outline", source.__getitem__)
    numbers = range(window * config.window, (window + 1) * config.window)
    counts, names = [], []
    for number in numbers:
        epoch, index = epoch_and_index(seed, number, len(source))
        sentence = outline(index)
        segments = example_segments(sentence, tokenizer, config, sample_rng(seed, epoch, index))
        counts.append(token_counts(segments, config))
        names.append(f"sample {index} (task {sentence.task})")
    rows = pack(np.array(counts), config.capacities, names, config.kinds)
    # The packer groups samples of similar size; shuffled, batches are alike.
    order = np.random.default_rng((seed, window, 2)).permutation(len(rows))
    return [[numbers[i] for i in rows[k]] for k in order]


def pack_sequence(source: Sequence, tokenizer, config: PackingConfig, seed: int, numbers: Sequence[int]) -> dict:
    """The packed sequence of the samples with these global indices."""
    samples, examples, tasks = [], [], []
    for number in numbers:
        epoch, index = epoch_and_index(seed, number, len(source))
        sentence = source[index]
        samples.append(pack_sentence(sentence, tokenizer, config, sample_rng(seed, epoch, index)))
        examples.append(index)
        tasks.append(task_id(sentence.task, config))
    return collate(samples, config, examples, tasks)


def task_id(task: str, config: PackingConfig) -> int:
    """The task's number. Raises UserError for a task that the config does not list."""
    if task not in config.tasks:
        raise UserError(f"task {task!r}: not among config.tasks ({', '.join(config.tasks)}); add it there")
    return config.tasks.index(task)
