"""Nested dicts of arrays, their leaves named by path: `llm/layers/q/kernel`.

Regexes in configs select parameters by path, and a run records one hash over all of them. Leaves may be arrays, shapes
or shardings.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict


def flatten(tree: Mapping) -> dict[str, Any]:
    """Leaves of nested dicts by path, sorted by path."""
    return dict(sorted(flatten_dict(dict(tree), sep="/").items()))


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    return unflatten_dict(flat, sep="/")


def split(tree: Mapping, patterns: Iterable[str]) -> tuple[dict, dict]:
    """Two trees: the leaves whose path no pattern matches (`re.search`), and those that some pattern matches.

    Raises ValueError if a pattern matches nothing: a misspelt one would silently have no effect.
    """
    flat = flatten(tree)
    found = set()
    for pattern in patterns:
        hits = {path for path in flat if re.search(pattern, path)}
        if not hits:
            raise ValueError(f"the pattern {pattern!r} matches none of the parameters {', '.join(flat)}")
        found |= hits
    rest = {path: leaf for path, leaf in flat.items() if path not in found}
    return unflatten(rest), unflatten({path: flat[path] for path in flat if path in found})


def merge(*trees: Mapping) -> dict:
    """One tree from several, the inverse of `split`; if two have the same path, the later one wins."""
    return unflatten({path: leaf for tree in trees for path, leaf in flatten(tree).items()})


def count(tree: Mapping) -> int:
    """Total number of elements of all leaves."""
    return sum(math.prod(leaf.shape) for leaf in flatten(tree).values())


def sha256(tree: Mapping, whole: Callable[[Any], np.ndarray] = np.asarray) -> str:
    """Hash of the raw bytes of all leaves in the order of their paths; the names are not part of it.

    `whole` turns a leaf into a numpy array; leaves sharded over processes need one that gathers them.
    """
    digest = hashlib.sha256()
    for leaf in flatten(tree).values():
        digest.update(np.ascontiguousarray(whole(leaf)).tobytes())
    return digest.hexdigest()
