"""How pictures are made: steps, shift of the times, guidance, freedom of the plan (`config.sampling`).

    sampling = dict(steps=25, shift=1.0, guidance=dict(name="inset", text=3.0), writing=dict(cells=0.5))
    sampling = dict(..., reuse=dict(name="taylor", interval=3, order=1))    or dict(name="threshold", limit=0.1)

Read next: `macro/diffusion/guidance.py`, `macro/diffusion/step_cache.py`, `macro/sampling/plan.py`.
"""

import dataclasses
import inspect
from collections.abc import Mapping

from ml_collections import ConfigDict

from macro.diffusion import step_cache as caching
from macro.diffusion.guidance import SPECS, Guidance, inset
from macro.models.selection import Selection, read_selection
from macro.sampling.plan import Writing
from macro.utils.config import from_config
from macro.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Attributes:
    steps: denoising steps, one evaluation of every context each.
    shift: of the sampling times; above 1 spends more steps near noise.
    guidance: which contexts, and how much of each.
    writing: temperatures of the plan.
    reuse: which steps do without the layers; None runs them in every step.
    planned: False draws from words and pictures alone, as models do that were trained without plans (INSET).
    select: which tokens of the pictures are kept for drawing; None: all.
    """

    steps: int = 25
    shift: float = 1.0
    guidance: Guidance = dataclasses.field(default_factory=inset)
    writing: Writing = dataclasses.field(default_factory=Writing)
    reuse: caching.StepCache | None = None
    planned: bool = True
    select: Selection | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"sampling.steps: {self.steps}, but a picture takes at least 1 step")
        if not isinstance(self.select, Selection | None):
            raise UserError(f"sampling.select: {self.select!r}, but it must be a Selection (macro/models/selection.py)")
        if self.shift <= 0:
            raise UserError(f"sampling.shift: {self.shift}, but it must be above 0 (1 shifts nothing)")
        if self.reuse is not None and self.steps <= self.reuse.order:
            raise UserError(
                f"sampling.steps: {self.steps}, but sampling.reuse warms up for {self.reuse.order + 1} (order + 1)"
            )


def read_settings(values: Mapping | ConfigDict) -> Settings:
    """Settings from a section of a config.

    Args:
        values: fields of `Settings`; `guidance` is a mapping with the `name` of one of `guidance.SPECS` and
            its arguments, `reuse` likewise (`read_reuse`), `writing` one with fields of `plan.Writing`, `select` one
            with those of `selection.Selection`.

    Raises:
        UserError: a key or a name that does not exist.
    """
    values = dict(values)
    if "guidance" in values:
        values["guidance"] = _guidance(dict(values["guidance"]))
    if "reuse" in values:
        values["reuse"] = read_reuse(values["reuse"])
    if "writing" in values:
        values["writing"] = from_config(Writing, values["writing"], "sampling.writing")
    if "select" in values:
        values["select"] = read_selection(values["select"], "sampling.select")
    return from_config(Settings, values, "sampling")


def read_reuse(options: Mapping | ConfigDict | None) -> caching.StepCache | None:
    """Step caching from its section of a config: the `name` of one of `reuse.SPECS` and its fields, or "none".

    Keys that are None count as left out, so that a config can name all of them for the command line.

    Raises:
        UserError: a key or a name that does not exist, or a value that makes no sense.
    """
    values = {key: value for key, value in (options or {}).items() if value is not None}
    name = values.pop("name", "none")
    if name in caching.SPECS:
        return from_config(caching.SPECS[name], values, "sampling.reuse")
    if name != "none":
        raise UserError(f"config.sampling.reuse.name: {name!r}; use one of none, {', '.join(caching.SPECS)}")
    for key in values:
        raise UserError(f"config.sampling.reuse.{key}: needs a name besides, one of {', '.join(caching.SPECS)}")
    return None


def _guidance(options: dict) -> Guidance:
    name = options.pop("name", None)
    if name not in SPECS:
        raise UserError(f"config.sampling.guidance.name: {name!r}; use one of {', '.join(SPECS)}")
    known = list(inspect.signature(SPECS[name]).parameters)
    for key in options:
        if key not in known:
            raise UserError(
                f"config.sampling.guidance.{key}: {name} has no such key; it has {', '.join(known)}"
            )
    return SPECS[name](**{key: tuple(v) if isinstance(v, list) else v for key, v in options.items()})
