"""Nested dicts of arrays, their leaves named by path: `llm/layers/q/kernel`.

Paths are how regexes in configs pick parameters (frozen ones, later their sharding) and how a run states what
it ended with: one hash over all leaves. Plain Python and numpy, so that a tree of shapes or of shardings
does as well as one of arrays.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np


def flatten(tree: Mapping) -> dict[str, Any]:
    """Leaves of nested dicts by path, sorted by path."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}/{path}": leaf for path, leaf in flatten(value).items()}
        else:
            flat[key] = value
    return dict(sorted(flat.items()))


def unflatten(flat: Mapping[str, Any]) -> dict:
    """The inverse of `flatten`."""
    tree = {}
    for path, leaf in flat.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def split(tree: Mapping, patterns: Iterable[str]) -> tuple[dict, dict]:
    """Two trees: the leaves whose path no pattern finds (`re.search`), and those that some pattern finds.

    Raises ValueError if a pattern finds nothing: a misspelt one would silently do nothing.
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
    """One tree out of several, the inverse of `split`; where two hold the same path the later one counts."""
    flat = {}
    for tree in trees:
        flat |= flatten(tree)
    return unflatten(flat)


def count(tree: Mapping) -> int:
    """How many numbers the leaves hold together."""
    return sum(math.prod(leaf.shape) for leaf in flatten(tree).values())


def sha256(tree: Mapping, whole: Callable[[Any], np.ndarray] = np.asarray) -> str:
    """Hash of the raw bytes of all leaves in the order of their paths; the names are not part of it.

    `whole` makes a leaf an array of numpy's; leaves that lie on several processes need one that fetches the rest.
    """
    digest = hashlib.sha256()
    for leaf in flatten(tree).values():
        digest.update(np.ascontiguousarray(whole(leaf)).tobytes())
    return digest.hexdigest()
