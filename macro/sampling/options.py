"""How images are drawn (`config.sampling`): one dataclass for every model, with BAGEL's names where there are any.

    config.sampling = {"num_timesteps": 50, "cfg_text_scale": 4.0, "cfg_img_scale": 2.0, "think": True}
    config.sampling = {"use_planner": True, "cfg_text_scale": 4.0, "cfg_overall_scale": 1.5, "plan": {"cot_top_p": 0.8}}
    config.sampling = {..., "step_cache": {"name": "taylor", "interval": 3}, "token_selection": {"keep": 0.3}}

    model    guidance                                          before the image
    BAGEL    cfg_text_scale, then cfg_img_scale                think: a system prompt, and a thought as free text
    INSET    cfg_text_scale (its s1), cfg_overall_scale (s2)   nothing
    MUSIC    INSET's                                           use_planner: a thought and a layout, in a fixed form

`policy="bagel"` (left) does what the released BAGEL code does; `policy="joint"`, the default, differs where that is
rarely wanted (right):

    1  text guidance off (cfg_text_scale <= 1) switches image guidance off too    each has its own switch
    2  the text baseline lacks only the last text, and is the whole prompt        it lacks all of the user's text
       if an image comes last: text guidance then does nothing
    3  a thought is read by the full context alone, so that image guidance        the image baseline reads it too
       pushes along the thought as well
    4  images dropped from the image baseline leave no gap in its position ids    +1 for each copy, as in training
    5  the size of the last image overrides a given size                          the given size is used
    6  num_timesteps counts points in time, one more than the steps               it counts steps
    7  clean latents of given images are sampled, without a seed                  their mean; sample_posterior draws
                                                                                  them, from the seed
    8  `global` renormalises the whole batch by one norm                          each image by its own
    9  pixels are truncated to integers: half a level too dark on average         rounded
    10 a thought is read with any text around its marks                           as <think>text</think>, so that a
                                                                                  plan.json passed in draws the same

Kept in both, since weights or recommended settings depend on it: the interval is open below and closed above, in times
after the shift; `text_channel` does not renormalise the image stage; the ViT sees the image resized for the VAE; a
thought is tokenized again from its text, and max_think_token_n counts its bos; every context reads the system prompt.
Not adopted: the renorm `local`, which the demo page offers but the model does not know; casts to bfloat16
(`ModelConfig.dtype` decides).

Read next: `macro/sampling/pipeline.py`, `macro/sampling/contexts.py` (the two policies).
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from macro.diffusion import step_cache as step_caching
from macro.diffusion.guidance import Guidance
from macro.models.token_selection import TokenSelection, read_selection
from macro.sampling.contexts import POLICIES
from macro.utils.config import from_config
from macro.utils.errors import UserError

RENORMS = ("none", "global", "channel", "text_channel")


@dataclasses.dataclass(frozen=True)
class PlanSamplingConfig:
    """How a plan is sampled (`use_planner`).

    Attributes:
        cot_temperature, cot_top_p: of the chain of thought; temperature 0 takes the likeliest token.
        layout_temperature, layout_top_p: of the layout's cells.
        max_cot_tokens: the most tokens of a chain of thought; after that it is closed.
    """

    cot_temperature: float = 0.7
    cot_top_p: float = 0.9
    layout_temperature: float = 0.7
    layout_top_p: float = 0.9
    max_cot_tokens: int = 160


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """All options of sampling except the seed. BAGEL's authors recommend, for text alone, scales 4 and 1, interval
    (0.4, 1), renorm global; for editing 4 and 2, (0, 1), text_channel; if images blur, global and a lower image scale.

    Attributes:
        policy: how the contexts of guidance are formed, `joint` or `bagel` (see above).
        num_timesteps: number of steps (but see 6).
        timestep_shift: above 1, more steps are near noise.
        cfg_text_scale: guidance away from the prompt without its text; 1 and below is off, 4 to 8 are usual.
        cfg_img_scale: guidance away from the prompt without its images; 1 and below is off, 1 to 2 are usual.
        cfg_overall_scale: guidance of the result away from the empty prompt (INSET's s2); 1 and below is off.
        cfg_interval: (low, high): guidance applies at times low < t <= high; 1 is noise.
        cfg_renorm_type: what scales the guided velocity back to the norm it had: `global` (over an image), `channel`
            (over each token), `text_channel` (over each token, before image guidance), `none`.
        cfg_renorm_min: the smallest factor of renorm; 1 is no renorm.
        use_planner: whether to generate a plan before the image, for models trained with plans.
        plan: how the plan is sampled.
        think: whether to generate a thought before the image, after a system prompt that asks for it.
        do_sample: whether thoughts and answers are sampled; otherwise decoding is greedy.
        text_temperature: of that sampling.
        max_think_token_n: the most tokens of a thought or answer, including bos.
        image_shapes: (height, width) in pixels.
        aspect: "width:height", such as "16:9", at the longest side that the model supports; instead of image_shapes.
            Without either the size follows from the images (`ImageSpec.output_size`).
        sample_posterior: whether clean latents are sampled, as upstream does, instead of using the mean.
        step_cache: decides which steps skip the layers (`macro/diffusion/step_cache.py`); None: none do.
        token_selection: which image tokens are kept for denoising; None: all.
    """

    policy: str = "joint"
    num_timesteps: int = 50
    timestep_shift: float = 3.0
    cfg_text_scale: float = 4.0
    cfg_img_scale: float = 1.0
    cfg_overall_scale: float = 1.0
    cfg_interval: Sequence = (0.0, 1.0)
    cfg_renorm_type: str = "none"
    cfg_renorm_min: float = 0.0
    use_planner: bool = False
    plan: PlanSamplingConfig = dataclasses.field(default_factory=PlanSamplingConfig)
    think: bool = False
    do_sample: bool = False
    text_temperature: float = 0.3
    max_think_token_n: int = 1000
    image_shapes: Sequence | None = None
    aspect: str = ""
    sample_posterior: bool = False
    step_cache: step_caching.StepCache | None = None
    token_selection: TokenSelection | None = None

    def __post_init__(self):
        if self.image_shapes is not None:
            object.__setattr__(self, "image_shapes", _numbers("image_shapes", self.image_shapes, int))
        object.__setattr__(self, "cfg_interval", _numbers("cfg_interval", self.cfg_interval, float))
        low, high = self.cfg_interval
        least = 2 if self.as_released else 1
        warm_up = 0 if self.step_cache is None else self.step_cache.order
        scale = "a number from 0 (1 and below is off)"
        for name, valid, wanted in (
            ("policy", self.policy in POLICIES, f"one of {', '.join(POLICIES)}"),
            ("cfg_text_scale", 0 <= self.cfg_text_scale < math.inf, scale),
            ("cfg_img_scale", 0 <= self.cfg_img_scale < math.inf, scale),
            ("cfg_overall_scale", 0 <= self.cfg_overall_scale < math.inf, scale),
            ("cfg_overall_scale", not self.as_released or self.cfg_overall_scale <= 1, "off with policy='bagel'"),
            ("cfg_interval", 0 <= low <= high <= 1, "(low, high) between 0 and 1"),
            ("cfg_renorm_type", self.cfg_renorm_type in RENORMS, f"one of {', '.join(RENORMS)}"),
            ("cfg_renorm_min", 0 <= self.cfg_renorm_min <= 1, "between 0 and 1"),
            ("timestep_shift", 0 < self.timestep_shift < math.inf, "above 0 (1 shifts nothing)"),
            ("num_timesteps", self.num_timesteps >= least, f"at least {least}"),
            ("num_timesteps", self.steps > warm_up, f"above {warm_up}, as sampling.step_cache warms up first"),
            ("use_planner", not (self.use_planner and self.think), "off where sampling.think is on"),
            ("use_planner", not (self.use_planner and self.as_released), "off with policy='bagel'"),
            ("text_temperature", 0 < self.text_temperature < math.inf, "above 0 (do_sample=False is greedy)"),
            ("max_think_token_n", self.max_think_token_n >= 2, "at least 2"),
            ("aspect", not self.aspect or self.ratio is not None, "width:height, such as 16:9"),
            ("aspect", not self.aspect or self.image_shapes is None, "left out where image_shapes is given"),
            ("image_shapes", min(self.image_shapes or (1,)) >= 1, "(height, width) in pixels"),
            ("step_cache", isinstance(self.step_cache, step_caching.StepCache | None), "made by read_step_cache"),
            ("token_selection", isinstance(self.token_selection, TokenSelection | None), "a TokenSelection"),
        ):
            if not valid:
                raise UserError(f"sampling.{name}={getattr(self, name)!r}: must be {wanted}")

    @property
    def as_released(self) -> bool:
        """Whether everything follows the released BAGEL code."""
        return self.policy == "bagel"

    @property
    def steps(self) -> int:
        """Number of steps from noise to image; each evaluates every context once."""
        return self.num_timesteps - 1 if self.as_released else self.num_timesteps

    @property
    def ratio(self) -> float | None:
        """Width over height from `aspect`; None if that is no valid aspect."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", self.aspect)
        if match is None or not float(match[1]) or not float(match[2]):
            return None
        return float(match[1]) / float(match[2])

    @property
    def temperature(self) -> float:
        """Temperature of thoughts and answers; 0 is greedy."""
        return self.text_temperature if self.do_sample else 0.0

    @property
    def guidance(self) -> Guidance:
        """The guidance that these options describe."""
        scales = self.cfg_text_scale, self.cfg_img_scale, self.cfg_overall_scale
        renorm = self.cfg_renorm_type, self.cfg_renorm_min
        return Guidance.from_scales(*scales, self.cfg_interval, *renorm, as_released=self.as_released)


def read_options(values: Mapping | ConfigDict) -> SamplingOptions:
    """Reads the options from a section of a config.

    Args:
        values: fields of `SamplingOptions`; `plan`, `step_cache` and `token_selection` are subsections.

    Raises:
        UserError: an unknown key or name, or an invalid value.
    """
    values = dict(values)
    if "plan" in values:
        values["plan"] = from_config(PlanSamplingConfig, values["plan"], "sampling.plan")
    if "step_cache" in values:
        values["step_cache"] = read_step_cache(values["step_cache"])
    if "token_selection" in values:
        values["token_selection"] = read_selection(values["token_selection"], "sampling.token_selection")
    return from_config(SamplingOptions, values, "sampling")


def read_step_cache(options: Mapping | ConfigDict | None) -> step_caching.StepCache | None:
    """Reads the step cache from its section of a config: a `name` of `step_cache.SPECS` and its fields, or "none".

    Keys that are None count as omitted, so that a config can list all of them for the command line.

    Raises:
        UserError: an unknown key or name, or an invalid value.
    """
    values = {key: value for key, value in (options or {}).items() if value is not None}
    name = values.pop("name", "none")
    if name in step_caching.SPECS:
        return from_config(step_caching.SPECS[name], values, "sampling.step_cache")
    if name != "none":
        raise UserError(f"config.sampling.step_cache.name: {name!r}; use one of none, {', '.join(step_caching.SPECS)}")
    for key in values:
        names = ", ".join(step_caching.SPECS)
        raise UserError(f"config.sampling.step_cache.{key}: needs a name as well, one of {names}")
    return None


def _numbers(name: str, value, kind: type) -> tuple:
    """`value` as a pair of numbers of type `kind`."""
    numbers = tuple(value) if isinstance(value, tuple | list) else ()
    if len(numbers) != 2 or not all(type(number) in (int, kind) for number in numbers):
        raise UserError(f"sampling.{name}={value!r}: must be 2 {'whole numbers' if kind is int else 'numbers'}")
    return tuple(map(kind, numbers))
