"""Config keys of earlier versions: a config that still has one is refused with the name that is due now.

`load`, `section` and the command line of `macro/utils/config.py` look here.
"""

from collections.abc import Mapping

# Dotted path of the old key -> that of the new one, both without the leading "config.". An entry for a section also
# covers the keys inside it. Where nothing took the key's place the value is "removed: " and what to do instead.
RENAMED_KEYS: dict[str, str] = {
    "select": "token_selection",
    "select.floor": "token_selection.min_tokens",
    "select.weight": "token_selection.cross_image_weight",
    "sampling.steps": "sampling.num_timesteps",
    "sampling.shift": "sampling.timestep_shift",
    "sampling.guidance": "removed: scales are sampling.cfg_text_scale, cfg_img_scale and cfg_overall_scale",
    "sampling.guidance.text": "sampling.cfg_text_scale",
    "sampling.guidance.image": "sampling.cfg_img_scale",
    "sampling.guidance.balance": "sampling.cfg_overall_scale",
    "sampling.guidance.interval": "sampling.cfg_interval",
    "sampling.guidance.renorm": "sampling.cfg_renorm_type",
    "sampling.guidance.minimum": "sampling.cfg_renorm_min",
    "sampling.mode": "removed: sampling.policy is joint or bagel, and sampling.use_planner or think writes plans",
    "sampling.parity": "removed: sampling.policy='bagel' does what the released code does",
    "sampling.planned": "sampling.use_planner",
    "sampling.reuse": "sampling.step_cache",
    "sampling.seed": "removed: the seed is --seed, or an argument of compose",
    "sampling.select": "sampling.token_selection",
    "sampling.select.floor": "sampling.token_selection.min_tokens",
    "sampling.select.weight": "sampling.token_selection.cross_image_weight",
    "sampling.vae_transform": "removed: packing says how images are sized (macro/inputs/image_spec.py)",
    "sampling.vit_transform": "removed: packing says how images are sized (macro/inputs/image_spec.py)",
    "sampling.writing": "sampling.plan",
    "sampling.writing.words": "sampling.plan.cot_temperature",
    "sampling.writing.words_top_p": "sampling.plan.cot_top_p",
    "sampling.writing.cells": "sampling.plan.layout_temperature",
    "sampling.writing.cells_top_p": "sampling.plan.layout_top_p",
    "sampling.writing.limit": "sampling.plan.max_cot_tokens",
}


def explain(path: str) -> str | None:
    """What became of the old key `path`, such as "is now 'optim.grad_clip_norm'"; None if the table lacks it."""
    names = path.split(".")
    for i in range(len(names), 0, -1):
        new = RENAMED_KEYS.get(".".join(names[:i]))
        if new is not None:
            return f"was {new}" if new.startswith("removed: ") else f"is now {'.'.join([new, *names[i:]])!r}"
    return None


def up_to_date(stored: Mapping) -> dict:
    """The config in the notes of a weights file, with the keys of earlier versions under their names of now.

    What was removed is left out.
    """
    if "steps" in stored.get("sampling", {}):  # before `use_planner`, plans were written unless it said otherwise
        stored = dict(stored) | {"sampling": {"planned": True} | dict(stored["sampling"])}
    found: dict = {}

    def take(values: Mapping, path: tuple[str, ...]) -> None:
        for key, value in values.items():
            names = (*path, key)
            if isinstance(value, Mapping) and value:
                take(value, names)
                continue
            new = next((n for i in range(len(names), 0, -1) if (n := RENAMED_KEYS.get(".".join(names[:i])))), None)
            if new is not None and new.startswith("removed: "):
                continue
            if new is not None:
                depth = next(i for i in range(len(names), 0, -1) if ".".join(names[:i]) in RENAMED_KEYS)
                names = (*new.split("."), *names[depth:])
            part = found
            for name in names[:-1]:
                part = part.setdefault(name, {})
            part[names[-1]] = value

    take(stored, ())
    return found
