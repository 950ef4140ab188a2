"""How pictures are made: steps, shift of the times, guidance, freedom of the plan (`config.sampling`).

    sampling = dict(steps=25, shift=1.0, guidance=dict(name="inset", text=3.0), writing=dict(cells=0.5))

Read next: `macro/diffusion/guidance.py`, `macro/sampling/plan.py`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from macro.diffusion.guidance import SPECS, Guidance, inset
from macro.sampling.plan import Writing
from macro.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Attributes:
    steps: denoising steps, one evaluation of every context each.
    shift: of the sampling times; above 1 spends more steps near noise.
    guidance: which contexts, and how much of each.
    writing: temperatures of the plan.
    """

    steps: int = 25
    shift: float = 1.0
    guidance: Guidance = dataclasses.field(default_factory=inset)
    writing: Writing = dataclasses.field(default_factory=Writing)

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"sampling.steps: {self.steps}, but a picture takes at least 1 step")
        if self.shift <= 0:
            raise UserError(f"sampling.shift: {self.shift}, but it must be above 0 (1 shifts nothing)")


def read_settings(values: Mapping | ConfigDict) -> Settings:
    """Settings from a section of a config.

    Args:
        values: fields of `Settings`; `guidance` is a mapping with the `name` of one of `guidance.SPECS` and
            its arguments, `writing` one with fields of `plan.Writing`.

    Raises:
        UserError: a key or a name that does not exist.
    """
    values = dict(values)
    if "guidance" in values:
        options = dict(values["guidance"])
        name = options.pop("name", None)
        if name not in SPECS:
            raise UserError(f"sampling.guidance.name: {name!r}; use one of {', '.join(SPECS)}")
        values["guidance"] = _made(SPECS[name], options, "sampling.guidance")
    if "writing" in values:
        values["writing"] = _made(Writing, dict(values["writing"]), "sampling.writing")
    return _made(Settings, values, "sampling")


def _made(maker: Callable, options: dict, where: str) -> Any:
    known = list(inspect.signature(maker).parameters)
    for key in options:
        if key not in known:
            raise UserError(f"{where}.{key}: no such key; there are {', '.join(known)}")
    lists = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return maker(**options | lists)
