"""Config keys of earlier versions: a config that still has one is refused with the name that is due now.

`load`, `section` and the command line of `macro/utils/config.py` look here.
"""

# Dotted path of the old key -> that of the new one, both without the leading "config.". An entry for a section also
# covers the keys inside it. Where nothing took the key's place the value is "removed: " and what to do instead.
RENAMED_KEYS: dict[str, str] = {}


def explain(path: str) -> str | None:
    """What became of the old key `path`, such as "is now 'optim.grad_clip_norm'"; None if the table lacks it."""
    names = path.split(".")
    for i in range(len(names), 0, -1):
        new = RENAMED_KEYS.get(".".join(names[:i]))
        if new is not None:
            return f"was {new}" if new.startswith("removed: ") else f"is now {'.'.join([new, *names[i:]])!r}"
    return None
