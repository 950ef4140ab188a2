"""LoRA: large kernels are frozen, and a pair of small matrices is trained for each (arXiv 2106.09685).

    y = x W + alpha / rank * (x A) B        A [in, rank] random, B [rank, out] zero: training starts from W

Adapters are stored in the parameter tree under "lora", by the path of their kernel; the dense layer applies them
(`macro/nn/layers.py`), so a gradient of a kernel's shape is never computed:

    {"composer": {... "q": {"kernel": W}}, "lora": {"composer": {... "q": {"kernel": {"a": A, "b": B}}}}}

Kernels of stacked layers [layers, in, out] have stacked adapters. Only the adapters and the parameters of
`modules_to_save` have gradients, optimizer state and an average, and only they are in checkpoints. The rest is frozen
and stored in the compute dtype (`config.model.dtype`).

    config.lora = {"preset": "music"}                                       the settings of a paper, by name
    config.lora = {"preset": "music", "rank": 16, "alpha": 16.0}            the same, two fields changed
    config.lora = {"rank": 8, "alpha": 16.0, "target_modules": (".*/gen/(q|v)/kernel$",)}

Read next: `macro/models/checkpoints/lora.py`, adapters merged and read from disk.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from macro.models.checkpoints.lora import merge, pairs
from macro.models.checkpoints.weights import ADAPTERS
from macro.parallel.sharding import logical_axes
from macro.training.state import shapes
from macro.utils import config as config_lib
from macro.utils import tree
from macro.utils.errors import UserError

# Layers of both experts; the language model's norms; its input and output layers.
_LAYERS = r"^composer/mot/blocks/(und|gen)/(q|k|v|o|gate|up|down)/kernel$"
_NORMS = r"^composer/mot/.*norm/scale$"
_ENDS = r"^composer/(binding$|planner/(embed|head|connector/)|diffusion_head/)"

# Name -> fields of LoRAConfig.
PRESETS: dict[str, dict[str, Any]] = {
    # MUSIC, on SEED-X. Rank and alpha: its paper, section on training (spec/papers.md, 1); its learning rate is
    # 1e-4. Targets, modules to save and dropout it leaves to SEED-X, whose code says .05, these seven matrices, and
    # norms, embeddings, language head and both resamplers in full, vision encoder frozen (spec/bagel.md, 5). To BAGEL
    # carried over by us: both experts; connector and diffusion head for the resamplers; the norms of queries and keys,
    # which SEED-X has not, and the binding, which starts at zero, belong to what is trained in full.
    "music": {
        "rank": 64,
        "alpha": 64.0,
        "dropout": 0.05,
        "target_modules": (_LAYERS,),
        "modules_to_save": (_NORMS, _ENDS),
    },
}


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """`config.lora`. Rank 0: no LoRA, all of the objective's parameters are trained.

    `target_modules` are regular expressions (`re.search`) of the paths of kernels that get adapters; `modules_to_save`
    are those of parameters that are trained in full. `dropout` is the share of A's input features that are dropped in a
    step.
    """

    rank: int = 0
    alpha: float = 0.0
    dropout: float = 0.0
    target_modules: tuple = ()
    modules_to_save: tuple = ()

    def __post_init__(self):
        if self.rank < 0:
            raise UserError(f"config.lora.rank={self.rank}: must be at least 1, or 0 for no LoRA")
        if self.rank == 0:
            given = [name for name in ("alpha", "dropout", "target_modules", "modules_to_save") if getattr(self, name)]
            if given:
                raise UserError(f"config.lora.{given[0]} is set, but config.lora.rank is 0 (no LoRA); set both or none")
            return
        if self.alpha <= 0:
            raise UserError(f"config.lora.alpha={self.alpha}: must be above 0; as large as the rank is usual")
        if not 0 <= self.dropout < 1:
            raise UserError(f"config.lora.dropout={self.dropout}: must be at least 0 and below 1")
        if not self.target_modules:
            raise UserError(
                "config.lora.target_modules: is empty; name the kernels to adapt, or set config.lora.rank to 0"
            )
        for name in ("target_modules", "modules_to_save"):
            for pattern in getattr(self, name):
                _check_pattern(name, pattern)

    @property
    def on(self) -> bool:
        """Whether there are adapters at all."""
        return self.rank > 0

    @property
    def scale(self) -> float:
        """The factor alpha / rank of the product A B."""
        return self.alpha / self.rank


def _check_pattern(name: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        raise UserError(f"config.lora.{name}: {pattern!r} is no string; give a tuple of regular expressions")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"config.lora.{name}: {pattern!r} is no regular expression ({error})") from error


def lora_config(config) -> LoRAConfig:
    """Reads and checks `config.lora`: the preset's fields, overridden by those that are given and not None."""
    values = dict(config.get("lora", {}))
    preset = values.pop("preset", "")
    if preset and preset not in PRESETS:
        raise UserError(f"config.lora.preset={preset!r}: choose one of {', '.join(PRESETS)}, or '' for none")
    given = {name: value for name, value in values.items() if value is not None}
    return config_lib.from_config(LoRAConfig, PRESETS.get(preset, {}) | given, "lora")


def chosen(params: Mapping, config: LoRAConfig) -> tuple[list[str], list[str]]:
    """Paths of the kernels to adapt, and of the parameters trained in full, among `params`.

    Raises:
        UserError: a pattern that matches nothing, a target that is not a matrix, or a path in both lists.
    """
    flat = tree.flatten(params)
    targets, full = (_found(flat, name, getattr(config, name)) for name in ("target_modules", "modules_to_save"))
    for path in targets:
        if not _is_kernel(path, flat[path]):
            raise UserError(
                f"config.lora.target_modules: {path} {flat[path].shape} is no matrix kernel; let the patterns end on "
                "/kernel$, or name it in config.lora.modules_to_save"
            )
    both = sorted(set(targets) & set(full))
    if both:
        raise UserError(
            f"config.lora: {', '.join(both)} is in target_modules and in modules_to_save; leave it to one of them"
        )
    return targets, full


def _found(flat: Mapping, name: str, patterns: tuple) -> list[str]:
    found = set()
    for pattern in patterns:
        hits = {path for path in flat if re.search(pattern, path)}
        if not hits:
            there = [path for path, leaf in flat.items() if name == "modules_to_save" or _is_kernel(path, leaf)]
            raise UserError(
                f"config.lora.{name}: {pattern!r} matches nothing that this objective trains; there are "
                f"{', '.join(there)}"
            )
        found |= hits
    return sorted(found)


def _is_kernel(path: str, leaf) -> bool:
    """Whether it is a matrix [in, out], or one per layer; kernels with four axes are convolutions."""
    return path.endswith("kernel") and leaf.ndim in (2, 3)


def init(key: Array, params: Mapping, config: LoRAConfig) -> dict:
    """Adapters for the targets among `params`, float32: A uniform within 1 / sqrt(in), as PEFT makes it, B zero."""
    flat, adapters = tree.flatten(params), {}
    for path in chosen(params, config)[0]:
        *layers, inputs, outputs = flat[path].shape
        bound = inputs**-0.5
        shape = (*layers, inputs, config.rank)
        adapters[f"{path}/a"] = jax.random.uniform(_key_of(key, path), shape, jnp.float32, -bound, bound)
        adapters[f"{path}/b"] = jnp.zeros((*layers, config.rank, outputs), jnp.float32)
    return tree.unflatten(adapters)


def scaled(adapters: Mapping, config: LoRAConfig, key: Array | None = None) -> dict:
    """The adapters as the dense layer applies them: B times alpha / rank; with a `key`, A with dropout.

    A layer's A is the same for all tokens, so dropout drops an input feature for all tokens of the step: rows of A are
    zeroed, the others scaled by 1 / (1 - dropout). PEFT draws anew for every token. The expected output is the same,
    but here the noise is shared by the batch.
    """
    flat = {}
    for path, (a, b) in pairs(adapters).items():
        if key is not None and config.dropout:
            kept = jax.random.bernoulli(_key_of(key, path), 1 - config.dropout, (*a.shape[:-1], 1))
            a = jnp.where(kept, a / (1 - config.dropout), 0)
        flat |= {f"{path}/a": a, f"{path}/b": config.scale * b}
    return tree.unflatten(flat)


def _key_of(key: Array, path: str) -> Array:
    """A key derived from the path, so that adding targets does not change the other adapters."""
    return jax.random.fold_in(key, zlib.crc32(path.encode()))


class Adapted:
    """An objective with adapters: the protocol of `macro/objectives/__init__.py` around another of its kind."""

    def __init__(self, objective, config):
        """Raises UserError if `config.lora` does not fit the objective's parameters."""
        if not hasattr(objective, "cast_frozen"):
            raise UserError("config.lora: only the objective joint trains layers that take adapters; set its rank to 0")
        self.objective, self.settings = objective, lora_config(config)
        trained, _ = tree.split(shapes(objective, config), objective.FROZEN)
        full = chosen(trained, self.settings)[1]
        base = [path for path in tree.flatten(trained) if path not in full]
        self.FROZEN = (*objective.FROZEN, *(f"^{re.escape(path)}$" for path in base))
        self.AXES = (*_axes(trained, self.settings, objective.AXES), *objective.AXES)
        self.totals, self.report = objective.totals, objective.report

    def init(self, key: Array, config) -> dict:
        """The objective's own parameters, the frozen ones in the compute dtype, and the adapters."""
        params = self.objective.init(key, config)
        trained, _ = tree.split(params, self.objective.FROZEN)
        adapters = {ADAPTERS: init(_key_of(key, ADAPTERS), trained, self.settings)}
        full, _ = tree.split(params, self.FROZEN)
        return tree.merge(self.objective.cast_frozen(params, config), full) | adapters

    def loss(self, params: Mapping, batch: Mapping, key: Array, config, totals: Mapping):
        """The objective's loss with the adapters applied to their kernels."""
        adapters = scaled(params[ADAPTERS], self.settings, _key_of(key, ADAPTERS))
        return self.objective.loss({**params, ADAPTERS: adapters}, batch, key, config, totals)


def _axes(params: Mapping, config: LoRAConfig, own) -> list[tuple[str, tuple]]:
    """Rules that lay A and B as the kernel they belong to, the rank undivided."""
    axes, rules = logical_axes(params, own), []
    for path in chosen(params, config)[0]:
        *layers, inputs, outputs = axes[path]
        for name, pair in (("a", (*layers, inputs, None)), ("b", (*layers, None, outputs))):
            rules.append((f"^{ADAPTERS}/{re.escape(path)}/{name}$", pair))
    return rules


def adapted(objective, config):
    """The objective to train: unchanged where `config.lora` is off or it already has adapters."""
    if isinstance(objective, Adapted) or not lora_config(config).on:
        return objective
    return Adapted(objective, config)


def base_of(objective) -> tuple[str, ...]:
    """Patterns of the parameters that LoRA freezes; none without LoRA."""
    return objective.FROZEN if isinstance(objective, Adapted) else ()


def without_adapters(params: Mapping, config) -> Mapping:
    """Trained parameters with the adapters merged in: the tree that the bare objective and sampling expect."""
    if ADAPTERS not in params:
        return params
    base = {name: part for name, part in params.items() if name != ADAPTERS}
    return merge(base, params[ADAPTERS], lora_config(config).scale)
