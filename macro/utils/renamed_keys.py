"""Config keys of earlier versions: a config that still has one is refused with the name that is due now.

`load`, `section` and the command line of `macro/utils/config.py` look here. The config inside a weights file is brought
up to date instead (`with_current_keys`), so that shipped weights still load.
"""

from collections.abc import Mapping
from typing import Any

# Dotted path of the old key -> that of the new one, both without the leading "config.". An entry for a section also
# covers the keys inside it. Where nothing took the key's place the value is "removed: " and what to do instead.
RENAMED_KEYS: dict[str, str] = {
    "dropout": "cfg_dropout",
    "packing.item_dropout": "removed: set cfg_dropout.mode='per_item', its shares are cfg_dropout.per_item",
    "data.arrangement": "packing.arrangement",
    "keep.latest": "checkpoint.keep_latest",
    "keep.every_steps": "checkpoint.keep_every_steps",
    "keep.best": "checkpoint.keep_best",
    "accumulate": "grad_accum_steps",
    "optim.clip": "optim.grad_clip_norm",
    "optim.ema": "optim.ema_decay",
    "lora.targets": "lora.target_modules",
    "lora.full": "lora.modules_to_save",
    "sampling.guidance.text": "sampling.guidance.cfg_text_image_scale",  # of INSET
    "sampling.guidance.balance": "sampling.guidance.cfg_overall_scale",
    "sampling.guidance.image": "sampling.guidance.cfg_img_scale",  # of BAGEL
}


def explain(path: str) -> str | None:
    """What became of the old key `path`, such as "is now 'optim.grad_clip_norm'"; None if the table lacks it."""
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
            _node(tree, above, create=True).setdefault(last, value)
    return tree


def _copy(values: Mapping) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _node(tree: dict, path: list[str], create: bool = False) -> dict | None:
    for name in path:
        tree = tree.setdefault(name, {}) if create else tree.get(name)
        if not isinstance(tree, dict):
            return None
    return tree
