"""The options of BAGEL's own inference, by their usual names, and its traps (`config.sampling` with mode="bagel").

    config.sampling = {"mode": "bagel", "cfg_text_scale": 4.0, "cfg_img_scale": 2.0, "cfg_renorm_type": "text_channel"}

What the released code is known to do that a user would hardly want. `parity=True` does the same, the default mends it:

    1  text guidance off (cfg_text_scale <= 1) switches image guidance off too    each has its own switch
    2  the text baseline lacks only the last text, and is the whole prompt        it lacks every text of the user's
       where a picture stands last: text guidance then does nothing
    3  a thought is read by the full context alone, so that image guidance        the image baseline reads it too
       pushes along the thought as well
    4  pictures that the image baseline lacks leave no gap in its RoPE ids        +1 for each copy, as in training
    5  the size of the last picture stands over a size that was asked for         what is asked for stands
    6  num_timesteps counts points of time: one step less is made                 it counts steps
    7  clean latents of given pictures are sampled, without a seed                their mean; sample_posterior draws
                                                                                  them, from the seed
    8  `global` renormalises the whole batch by one norm                          each picture by its own
    9  pixels are cut off to whole numbers: half a level too dark                 rounded
    10 a thought is read with whatever stands around its marks                    as <think>words</think>, so that a
                                                                                  plan.json handed back draws the same

Decided to be kept in both, as weights or recommended settings count on it: the interval is open below and closed
above, in times after the shift; `text_channel` leaves the image stage without renorm; the ViT sees the picture that
was resized for the VAE; a thought is read from its text, tokenised again, and max_think_token_n counts its bos; the
system prompt stands in every context. A picture's area is held to 14*14*9*1024 by a factor that is not the root it
should be (`inputs/transforms.fit_size`), but sides of at most 1024 never get there. Not taken over in either: the
renorm `local`, offered by the demo page and unknown to its model; casts to bfloat16 (`ModelConfig.dtype` says).
Extrapolation over steps (TaylorSeer there) is `reuse`, with what sets it apart in `macro/diffusion/step_cache.py`.

No JAX here, so that mistakes are named before it starts. Read next: `macro/sampling/bagel/pipeline.py`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from macro.utils.config import from_config
from macro.utils.errors import UserError

RENORMS = ("global", "channel", "text_channel", "none")


@dataclasses.dataclass(frozen=True)
class BagelOptions:
    """How BAGEL draws. Upstream recommends for text alone scales 4 and 1, interval (.4, 1), renorm global; for
    editing 4 and 2, (0, 1), text_channel; if pictures blur, global and a lower image scale.

    Attributes:
        cfg_text_scale: how far from the prompt without its text; 1 and below is off, 4 to 8 are usual.
        cfg_img_scale: how far from the prompt without its pictures; 1 and below is off, 1 to 2 are usual.
        cfg_interval: (low, high), guidance only at times low < t <= high; 1 is noise.
        cfg_renorm_type: what brings the guided velocity back to the norm it had: `global` (over a picture),
            `channel` (over each token), `text_channel` (the same, before image guidance), `none`.
        cfg_renorm_min: the least factor that renorm may shrink by; 1 is no renorm.
        timestep_shift: above 1 spends more steps near noise.
        num_timesteps: how many steps (but see trap 6).
        think: whether a thought is written first, and drawn from.
        do_sample: whether the thought is sampled; else each token is the likeliest.
        text_temperature: of sampling.
        max_think_token_n: the most tokens of a thought, with its bos.
        image_shapes: (height, width) in pixels.
        aspect: "width:height", as "16:9", at the longest side the model has; instead of image_shapes. Without
            either a picture is as large as the last one given, else a square.
        vae_transform: (longest side, shortest side, stride): what given pictures are brought to for the VAE.
        vit_transform: the same for the ViT, after that. None: what the model has room for, at most BAGEL's
            (1024, 512, 16) and (980, 224, 14).
        sample_posterior: whether clean latents are drawn, as upstream does, and not the mean.
        seed: of noise, thought and posterior.
        reuse: which steps do without the layers, {"name": "taylor", "interval": 3, "order": 1} or {"name":
            "threshold", "limit": 0.1}; None runs them in every step.
        select: which tokens of the pictures are kept for drawing, fields of `Selection` (macro/models/selection.py),
            such as {"keep": 0.3}; None keeps all.
        parity: do what the released code does, traps and all.
    """

    cfg_text_scale: float = 4.0
    cfg_img_scale: float = 1.5
    cfg_interval: Sequence = (0.4, 1.0)
    cfg_renorm_type: str = "global"
    cfg_renorm_min: float = 0.0
    timestep_shift: float = 3.0
    num_timesteps: int = 50
    think: bool = False
    do_sample: bool = False
    text_temperature: float = 0.3
    max_think_token_n: int = 1000
    image_shapes: Sequence | None = None
    aspect: str = ""
    vae_transform: Sequence | None = None
    vit_transform: Sequence | None = None
    sample_posterior: bool = False
    seed: int = 0
    reuse: Mapping | ConfigDict | None = None
    select: Mapping | ConfigDict | None = None
    parity: bool = False

    def __post_init__(self):
        for name, count in (("image_shapes", 2), ("vae_transform", 3), ("vit_transform", 3)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _numbers(name, getattr(self, name), count, int))
        object.__setattr__(self, "cfg_interval", _numbers("cfg_interval", self.cfg_interval, 2, float))
        low, high = self.cfg_interval
        least = 2 if self.parity else 1
        for name, valid, wanted in (
            ("cfg_text_scale", 0 <= self.cfg_text_scale < math.inf, "a number from 0 (1 and below is off)"),
            ("cfg_img_scale", 0 <= self.cfg_img_scale < math.inf, "a number from 0 (1 and below is off)"),
            ("cfg_interval", 0 <= low <= high <= 1, "(low, high) between 0 and 1"),
            ("cfg_renorm_type", self.cfg_renorm_type in RENORMS, f"one of {', '.join(RENORMS)}"),
            ("cfg_renorm_min", 0 <= self.cfg_renorm_min <= 1, "between 0 and 1"),
            ("timestep_shift", 0 < self.timestep_shift < math.inf, "above 0 (1 shifts nothing)"),
            ("num_timesteps", self.num_timesteps >= least, f"at least {least}"),
            ("text_temperature", 0 < self.text_temperature < math.inf, "above 0 (do_sample=False is greedy)"),
            ("max_think_token_n", self.max_think_token_n >= 2, "at least 2"),
            ("aspect", not self.aspect or self.ratio is not None, "width:height, such as 16:9"),
            ("aspect", not self.aspect or self.image_shapes is None, "left out where image_shapes is given"),
            ("image_shapes", min(self.image_shapes or (1,)) >= 1, "(height, width) in pixels"),
            ("vae_transform", _is_rule(self.vae_transform), "(longest, shortest side, stride), falling"),
            ("vit_transform", _is_rule(self.vit_transform), "(longest, shortest side, stride), falling"),
            ("seed", 0 <= self.seed < 2**31, "a whole number from 0, below 2^31"),
        ):
            if not valid:
                raise UserError(f"sampling.{name}={getattr(self, name)!r}: must be {wanted}")

    @property
    def steps(self) -> int:
        """Steps from noise to picture, one evaluation of each context."""
        return self.num_timesteps - 1 if self.parity else self.num_timesteps

    @property
    def ratio(self) -> float | None:
        """Width over height, where `aspect` says one that a picture can have."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", self.aspect)
        if match is None or not float(match[1]) or not float(match[2]):
            return None
        return float(match[1]) / float(match[2])


def read_options(values: Mapping) -> BagelOptions:
    """Options from a section of a config (without its `mode`).

    Raises:
        UserError: a key that does not exist, or a value that makes no sense.
    """
    return from_config(BagelOptions, values, "sampling")


def _numbers(name: str, value, count: int, kind: type) -> tuple:
    """`value` as a tuple of so many numbers, whole ones where `kind` is int."""
    numbers = tuple(value) if isinstance(value, tuple | list) else ()
    if len(numbers) != count or not all(type(number) in (int, kind) for number in numbers):
        wanted = "whole numbers" if kind is int else "numbers"
        raise UserError(f"sampling.{name}={value!r}: must be {count} {wanted}")
    return tuple(map(kind, numbers))


def _is_rule(transform: tuple | None) -> bool:
    return transform is None or 1 <= transform[2] <= transform[1] <= transform[0]
