"""Config keys of earlier versions: a config that still has one is refused with an error that names the current key.

`load`, `section` and the command line of `macro/utils/config.py` use the table. The config inside a weights file is
converted instead (`with_current_keys`), so that shipped weights still load.
"""

from collections.abc import Mapping
from typing import Any

# Dotted path of the old key -> that of the new one, both without the leading "config.". An entry for a section also
# covers the keys inside it, and comes after theirs. Where nothing replaces the key the value is "removed: " and
# what to do instead.
RENAMED_KEYS: dict[str, str] = {
    "select.floor": "token_selection.min_tokens",
    "select.weight": "token_selection.cross_image_weight",
    "select": "token_selection",
    "sampling.steps": "sampling.num_timesteps",
    "sampling.shift": "sampling.timestep_shift",
    "sampling.guidance.text": "sampling.cfg_text_scale",
    "sampling.guidance.image": "sampling.cfg_img_scale",
    "sampling.guidance.balance": "sampling.cfg_overall_scale",
    "sampling.guidance.interval": "sampling.cfg_interval",
    "sampling.guidance.renorm": "sampling.cfg_renorm_type",
    "sampling.guidance.minimum": "sampling.cfg_renorm_min",
    "sampling.guidance": "removed: scales are sampling.cfg_text_scale, cfg_img_scale and cfg_overall_scale",
    "sampling.mode": "removed: sampling.policy is joint or bagel, and sampling.use_planner or think writes plans",
    "sampling.parity": "removed: sampling.policy='bagel' does what the released code does",
    "sampling.planned": "sampling.use_planner",
    "sampling.reuse": "sampling.step_cache",
    "sampling.seed": "removed: the seed is --seed, or an argument of compose",
    "sampling.select.floor": "sampling.token_selection.min_tokens",
    "sampling.select.weight": "sampling.token_selection.cross_image_weight",
    "sampling.select": "sampling.token_selection",
    "sampling.vae_transform": "removed: packing says how images are sized (macro/inputs/image_spec.py)",
    "sampling.vit_transform": "removed: packing says how images are sized (macro/inputs/image_spec.py)",
    "sampling.writing.words": "sampling.plan.cot_temperature",
    "sampling.writing.words_top_p": "sampling.plan.cot_top_p",
    "sampling.writing.cells": "sampling.plan.layout_temperature",
    "sampling.writing.cells_top_p": "sampling.plan.layout_top_p",
    "sampling.writing.limit": "sampling.plan.max_cot_tokens",
    "sampling.writing": "sampling.plan",
    "loss.plan": "loss.ce_weight",
    "loss.draw": "loss.mse_weight",
    "packing.draws": "packing.noise_draws",
    "packing.reweighting": "packing.length_normalized_ce",
    "dropout": "cfg_dropout",
    "packing.item_dropout": "removed: set cfg_dropout.mode='per_item', its shares are cfg_dropout.per_item",
    "keep.latest": "checkpoint.keep_latest",
    "keep.every_steps": "checkpoint.keep_every_steps",
    "keep.best": "checkpoint.keep_best",
    "accumulate": "grad_accum_steps",
    "optim.clip": "optim.grad_clip_norm",
    "optim.ema": "optim.ema_decay",
    "lora.targets": "lora.target_modules",
    "lora.full": "lora.modules_to_save",
}


def explain(path: str) -> str | None:
    """What replaces the old key `path`, such as "is now 'optim.grad_clip_norm'"; None if it is not in the table."""
    names = path.split(".")
    for i in range(len(names), 0, -1):
        new = RENAMED_KEYS.get(".".join(names[:i]))
        if new is not None:
            return f"was {new}" if new.startswith("removed: ") else f"is now {'.'.join([new, *names[i:]])!r}"
    return None


def with_current_keys(values: Mapping) -> dict[str, Any]:
    """A copy of nested dicts whose old keys have their new names; a key that was removed is left out."""
    tree = _copy(values)
    for old, new in RENAMED_KEYS.items():
        *above, last = old.split(".")
        node = _node(tree, above)
        if node is None or last not in node:
            continue
        value = node.pop(last)
        if not new.startswith("removed: "):
            *above, last = new.split(".")
            node = _node(tree, above, create=True)
            if isinstance(value, dict) and isinstance(node.get(last), dict):  # keys inside it were moved before
                node[last] = value | node[last]
            else:
                node.setdefault(last, value)
    return tree


def _copy(values: Mapping) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _node(tree: dict, path: list[str], create: bool = False) -> dict | None:
    for name in path:
        tree = tree.setdefault(name, {}) if create else tree.get(name)
        if not isinstance(tree, dict):
            return None
    return tree
