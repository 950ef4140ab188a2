"""How arrays are sharded: logical axis names, which mesh axes they map to, and rules that name parameters' axes.

Every dimension of an array has a logical axis from a closed set, or None (not sharded). Two tables map a logical axis
to axes of the mesh (`macro/parallel/mesh.py`):

    ACTIVATION_RULES   activations: the batch over `data` and `fsdp`, tokens over `sequence`, heads over `tensor`
    PARAMETER_RULES    parameters: over every mesh axis but `data`, on whichever dimension is a multiple

A mesh axis of size 1 shards nothing, so the presets differ only in the mesh and the program is the same.

A parameter's logical axes come from rules (regex on its path, logical axes):

    (r"mot/blocks/(und|gen)/(q|gate|up)/kernel$", ("layers", "width", "mlp"))
    (r"/(bias|scale)$", ())                                                      replicated

The first rule that matches counts, the config's before the model's (`macro/models/sharding_rules.py`). A parameter
without a rule is an error, as is a rule of the config that matches nothing, and shardings that leave more than
`MAX_UNSHARDED_SHARE` of the bytes replicated. Optimizer state, averages and gradients are sharded like their
parameters. Read next: `macro/kernels/attention/api.py`, the one place where tokens of all devices meet.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from macro.utils import tree
from macro.utils.config import suggestion
from macro.utils.errors import UserError

Rules = Sequence  # of (regex, axes), in tuples or lists
AnyMesh = Mesh | AbstractMesh

MAX_UNSHARDED_SHARE = 0.02
FEW = 16  # at most so many elements in an array of optimizer state that belongs to no parameter

# FSDP has two axes of the mesh, so that a dimension which is no multiple of all devices (SigLIP's 1152 on 256) is still
# sharded over one of them, and another dimension over the other.
FSDP = ("fsdp", "fsdp_inner")
_ALL_BUT_DATA = ("tensor", *FSDP, "sequence")

# Logical axis -> axes of the mesh, outermost first; empty: replicated.
ACTIVATION_RULES: dict[str, tuple[str, ...]] = {
    "batch": ("data", *FSDP),
    "tokens": ("sequence",),
    "width": (),
    "mlp": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "vocab": ("tensor",),
    "layers": (),
    "channels": (),
}
PARAMETER_RULES: dict[str, tuple[str, ...]] = {
    "batch": (),
    "tokens": (),
    "width": (*FSDP, "sequence"),
    "mlp": _ALL_BUT_DATA,
    "heads": _ALL_BUT_DATA,
    "kv_heads": _ALL_BUT_DATA,
    "head_dim": (),
    "vocab": _ALL_BUT_DATA,
    "layers": (),
    "channels": _ALL_BUT_DATA,
}


def check_axes(axes: Sequence[str | None]) -> None:
    """Raises ValueError for a name outside the closed set."""
    for axis in axes:
        if axis is not None and axis not in ACTIVATION_RULES:
            raise ValueError(f"unknown logical axis {axis!r}{suggestion(axis, list(ACTIVATION_RULES))}")


def activation_spec(sizes: Mapping[str, int], shape: Sequence[int], *axes: str | None) -> PartitionSpec:
    """The PartitionSpec of an activation with this shape and these logical axes on a mesh with these axis sizes.

    A dimension is sharded over as many of its mesh axes, from the outermost on, as it is a multiple of: the three
    contexts of a guided sample stay replicated on a mesh that shards a training batch of eight.

    Raises:
        ValueError: a name outside the closed set, or not one name a dimension.
    """
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} logical axes {axes} for an array with {len(shape)} dimensions")
    check_axes(axes)
    parts = []
    for size, axis in zip(shape, axes, strict=True):
        taken = []
        for name in ACTIVATION_RULES[axis] if axis else ():
            if size % math.prod(sizes[n] for n in (*taken, name)):
                break
            if sizes[name] > 1:
                taken.append(name)
        parts.append(tuple(taken) if len(taken) > 1 else taken[0] if taken else None)
    return PartitionSpec(*parts)


def activation_sharding(mesh: jax.sharding.Mesh, shape: Sequence[int], *axes: str | None) -> NamedSharding:
    """`activation_spec` as a sharding on a mesh."""
    return NamedSharding(mesh, activation_spec(mesh.shape, shape, *axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains, inside `jit`, how `x` is sharded over the mesh of `jax.set_mesh`; returns `x` if none is set."""
    sizes = current_mesh_shape()
    described = activation_spec(sizes or dict.fromkeys(("data", *_ALL_BUT_DATA), 1), x.shape, *axes)
    return jax.lax.with_sharding_constraint(x, described) if sizes else x


def current_mesh_shape() -> Mapping[str, int]:
    """Axis sizes of the mesh of `jax.set_mesh`; empty if none is set or it is a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return {} if mesh.empty or mesh.size == 1 else mesh.shape


def platform() -> str:
    """The platform of the program being traced: "cpu", "gpu" or "tpu".

    With a mesh set, that of its devices, which need not be attached (`macro/parallel/topology.py`).
    """
    mesh = jax.sharding.get_abstract_mesh()
    described = None if mesh.empty else mesh.abstract_device
    if described is not None and described.device_kind.startswith("TPU"):
        return "tpu"
    return jax.default_backend()


def join_tokens(parts: Sequence[jax.Array | np.ndarray]) -> jax.Array | np.ndarray:
    """Concatenates token buffers `[b, n, ...]` along n; numpy's with numpy, as for a mesh of absent devices.

    Where tokens are sharded, each device concatenates its own shards, so nothing is sent. The order in memory is then
    not that of the parts, and need not be: a token's position is in its metadata.
    """
    parts, ways = list(parts), _ways([part.shape[1] for part in parts])
    library = np if all(isinstance(part, np.ndarray) for part in parts) else jnp
    if ways == 1:
        return library.concatenate(parts, axis=1)
    shares = [rearrange(part, "b (ways n) ... -> b ways n ...", ways=ways) for part in parts]
    return rearrange(library.concatenate(shares, axis=2), "b ways n ... -> b (ways n) ...")


def join_streams(text: jax.Array | np.ndarray, *others: jax.Array | np.ndarray | None) -> jax.Array | np.ndarray:
    """Text, vision and latent buffers joined as by the model, each to all before it; None: no such stream."""
    for other in others:
        text = text if other is None else join_tokens([text, other])
    return text


def split_tokens(whole: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """The inverse of `join_tokens` for parts of these sizes."""
    ways = _ways(sizes)
    ends = [sum(sizes[: i + 1]) // ways for i in range(len(sizes) - 1)]
    if ways == 1:
        return jnp.split(whole, ends, axis=1)
    shares = jnp.split(rearrange(whole, "b (ways n) ... -> b ways n ...", ways=ways), ends, axis=2)
    return [rearrange(share, "b ways n ... -> b (ways n) ...") for share in shares]


def _ways(sizes: Sequence[int]) -> int:
    """The number of devices over which all buffers of these sizes are sharded."""
    ways = current_mesh_shape().get("sequence", 1)
    return ways if all(size % ways == 0 for size in sizes) else 1


def logical_axes(shapes: Mapping, own: Rules, given: Rules = ()) -> dict[str, tuple[str | None, ...]]:
    """The logical axes of every parameter by path, one per dimension; all None where it is replicated.

    Args:
        own: rules of the model, which may name parameters that this one does not have.
        given: rules of the config, which take precedence.

    Raises:
        UserError: a malformed rule, an unknown axis, a given rule that matches nothing, a rule with another number of
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


def parameter_spec(shape: Sequence[int], axes: Sequence[str | None], sizes: Mapping[str, int]) -> PartitionSpec:
    """Each mesh axis shards the first dimension whose logical axis allows it and whose size is a multiple."""
    taken: list[tuple[str, ...]] = [() for _ in shape]
    for name in ("tensor", "fsdp", "fsdp_inner", "sequence"):
        for dim, axis in enumerate(axes):
            ways = math.prod(sizes[n] for n in (*taken[dim], name))
            if sizes[name] > 1 and axis and name in PARAMETER_RULES[axis] and shape[dim] % ways == 0:
                taken[dim] = (*taken[dim], name)
                break
    return PartitionSpec(*(names if len(names) > 1 else names[0] if names else None for names in taken))


def parameter_shardings(shapes: Mapping, mesh: AnyMesh, own: Rules, given: Rules = ()) -> dict:
    """A sharding for every parameter, in a tree like `shapes`; rules as in `logical_axes`.

    Raises:
        UserError: see `logical_axes`; or too much of the parameters is replicated.
    """
    axes, flat = logical_axes(shapes, own, given), tree.flatten(shapes)
    specs = {path: parameter_spec(leaf.shape, axes[path], mesh.shape) for path, leaf in flat.items()}
    found = {path: NamedSharding(mesh, spec) for path, spec in specs.items()}
    share, worst = unsharded_share(flat, found, mesh)
    if share > MAX_UNSHARDED_SHARE:
        raise UserError(
            f"config.parallel: {share:.1%} of the parameters' bytes are not divided over the devices (at most "
            f"{MAX_UNSHARDED_SHARE:.0%}), most of them in {', '.join(worst)}; give rules for these whose axes divide"
        )
    return tree.unflatten(found)


def abstract_with_shardings(shapes: Any, shardings: Any) -> Any:
    """ShapeDtypeStructs with shardings, with which checkpoints are restored and programs are lowered."""
    return jax.tree.map(lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), shapes, shardings)


def unsharded_share(shapes: Mapping, laid: Mapping, mesh: AnyMesh) -> tuple[float, list[str]]:
    """The share of the parameters' bytes that are replicated needlessly, and the three parameters with most of them.

    A parameter on d of the n devices of a slice that could share it counts with (1/d - 1/n) / (1 - 1/n) of its bytes: 0
    where every device has its own shard, 1 where every device has all of it. Models below a mebibyte per device count
    as sharded: splitting kilobytes gains nothing.
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


def opt_state_shardings(state: Any, params: Mapping, shardings: Mapping, mesh: AnyMesh) -> Any:
    """Shardings for a tree with leaves per parameter, such as optimizer state.

    A leaf whose path ends with a parameter's path, and that has its shape, is sharded like the parameter; counts and
    coefficients are replicated.

    Raises:
        ValueError: an array of more than a few numbers that belongs to no parameter.
    """
    shapes, flat = tree.flatten(params), tree.flatten(shardings)

    def place(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = name.split("/")
        owner = next((p for i in range(len(parts)) if (p := "/".join(parts[i:])) in shapes), None)
        if owner is not None and shapes[owner].shape == leaf.shape:
            return flat[owner]
        if math.prod(leaf.shape) > FEW:
            raise ValueError(f"{name} {leaf.shape} belongs to no parameter, so nothing says how to shard it")
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(place, state)
