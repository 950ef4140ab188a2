"""Where parameters lie: rules (regex, logical axes) over the paths of a tree, and all that follows parameters.

    (r"mot/blocks/(und|gen)/(q|gate|up)/kernel$", ("layers", "width", "mlp"))
    (r"/(bias|scale)$", ())                                                      whole on every device

The first rule whose regex finds the path counts, those of the config before the model's. A parameter that none covers
is an error, as is a rule of the config that finds nothing, and a layout that leaves more than `MOST_UNSHARDED` of the
bytes on more devices than need be.
Optimizer state, averages and gradients lie as the parameters they belong to.
Read next: `macro/parallel/rules.py` (what a name means on the mesh), `macro/models/axes.py` (the model's own rules).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from macro.parallel.rules import PARAMETERS, check_axes
from macro.utils import tree
from macro.utils.errors import UserError

Rules = Sequence  # of (regex, axes), in tuples or lists
AnyMesh = Mesh | AbstractMesh

MOST_UNSHARDED = 0.02
FEW = 16  # numbers in an array of optimizer state that need not belong to a parameter


def axes_of(shapes: Mapping, own: Rules, given: Rules = ()) -> dict[str, tuple[str | None, ...]]:
    """The logical axes of every parameter by path, one name a dimension; nothing but None where it stays whole.

    Args:
        own: rules of the model, which may name parameters that this one does not have.
        given: rules of the config, which go before.

    Raises:
        UserError: a rule that is none, an unknown axis, a given rule that finds nothing, a rule with another number of
            axes than the parameter, a parameter that no rule covers.
    """
    flat = tree.flatten(shapes)
    for rule in given:
        _check(rule, flat)
    found = {}
    for path, leaf in flat.items():
        rule = next((rule for rule in (*given, *own) if re.search(rule[0], path)), None)
        if rule is None:
            raise UserError(f"config.parallel.rules: none covers {path} {leaf.shape}; add (regex, axes) for it")
        axes = tuple(rule[1]) or (None,) * leaf.ndim
        if len(axes) != leaf.ndim:
            raise UserError(
                f"config.parallel.rules: {rule[0]!r} has {len(axes)} axes, but {path} has shape {leaf.shape}; "
                "name one a dimension, or () to keep it whole"
            )
        found[path] = axes
    return found


def _check(rule: Any, flat: Mapping) -> None:
    if not (isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)):
        raise UserError(f"config.parallel.rules: {rule!r} must be (regex, axes)")
    try:
        check_axes(rule[1])
        hit = any(re.search(rule[0], path) for path in flat)
    except (ValueError, re.error) as error:
        raise UserError(f"config.parallel.rules: {rule[0]!r}: {error}") from None
    if not hit:
        raise UserError(f"config.parallel.rules: {rule[0]!r} matches none of the parameters {', '.join(flat)}")


def spec(shape: Sequence[int], axes: Sequence[str | None], sizes: Mapping[str, int]) -> PartitionSpec:
    """How a parameter lies: each axis of the mesh divides the first dimension that may have it and is a multiple."""
    taken: list[tuple[str, ...]] = [() for _ in shape]
    for name in ("tensor", "fsdp", "fsdp_inner", "sequence"):
        for dim, axis in enumerate(axes):
            ways = math.prod(sizes[n] for n in (*taken[dim], name))
            if sizes[name] > 1 and axis and name in PARAMETERS[axis] and shape[dim] % ways == 0:
                taken[dim] = (*taken[dim], name)
                break
    return PartitionSpec(*(names if len(names) > 1 else names[0] if names else None for names in taken))


def shardings(shapes: Mapping, mesh: AnyMesh, own: Rules, given: Rules = ()) -> dict:
    """A sharding for every parameter, in a tree like `shapes`; rules as in `axes_of`.

    Raises:
        UserError: see `axes_of`; or too much of the parameters stays whole.
    """
    axes, flat = axes_of(shapes, own, given), tree.flatten(shapes)
    laid = {path: NamedSharding(mesh, spec(leaf.shape, axes[path], mesh.shape)) for path, leaf in flat.items()}
    share, worst = unsharded(flat, laid, mesh)
    if share > MOST_UNSHARDED:
        raise UserError(
            f"config.parallel: {share:.1%} of the parameters' bytes are not divided over the devices (at most "
            f"{MOST_UNSHARDED:.0%}), most of them in {', '.join(worst)}; give rules for these whose axes divide"
        )
    return tree.unflatten(laid)


def described(shapes: Any, laid: Any) -> Any:
    """Shapes and types with their shardings: what stands for arrays in restoring a checkpoint or lowering a program."""
    return jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, laid)


def unsharded(shapes: Mapping, laid: Mapping, mesh: AnyMesh) -> tuple[float, list[str]]:
    """The share of the parameters' bytes that lie on more devices than need be, and the three parameters with most.

    A parameter on d of the n devices of a slice that could share it counts with (1/d - 1/n) / (1 - 1/n) of its bytes: 0
    where every device has its own part, 1 where every device has all of it. Small models (below a mebibyte a device)
    count as divided: nobody gains by cutting up kilobytes.
    """
    n = mesh.size // mesh.shape["data"]
    total = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes.values())
    if n == 1 or total < n * 2**20:
        return 0.0, []
    wasted = {}
    for path, leaf in shapes.items():
        kept = math.prod(laid[path].shard_shape(leaf.shape)) / max(math.prod(leaf.shape), 1)
        wasted[path] = (kept - 1 / n) / (1 - 1 / n) * math.prod(leaf.shape) * leaf.dtype.itemsize
    return sum(wasted.values()) / total, sorted(wasted, key=wasted.get, reverse=True)[:3]


def following(state: Any, params: Mapping, laid: Mapping, mesh: AnyMesh) -> Any:
    """Shardings for a tree that holds copies of parameters in places of its own, such as optimizer state.

    A leaf whose path ends with a parameter's path, and that has its shape, lies as the parameter; counts and
    coefficients lie whole.

    Raises:
        ValueError: an array of more than a few numbers that belongs to no parameter.
    """
    shapes, flat = tree.flatten(params), tree.flatten(laid)

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = name.split("/")
        owner = next((p for i in range(len(parts)) if (p := "/".join(parts[i:])) in shapes), None)
        if owner is not None and shapes[owner].shape == leaf.shape:
            return flat[owner]
        if math.prod(leaf.shape) > FEW:
            raise ValueError(f"{name} {leaf.shape} belongs to no parameter, so nothing says how it lies on the mesh")
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)
