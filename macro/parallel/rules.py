"""What each dimension of an array means, and over which axes of the mesh it is divided.

Arrays are described by logical axes from a closed set, one name per dimension (None: not divided, of no name). Two
tables say what a name means on the mesh (`macro/parallel/mesh.py` has its axes):

    ACTIVATIONS   what flows through the model: rows over `data` and `fsdp`, tokens over `sequence`, heads over `tensor`
    PARAMETERS    what is learnt: matrices over every axis but `data`, on whichever dimension divides

A mesh axis of size 1 divides nothing, so the presets differ in the mesh alone and the model is the same program.
Read next: `macro/parallel/layout.py` (parameters), `macro/kernels/attention/api.py` (the one place where tokens meet).
"""

import difflib
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import NamedSharding, PartitionSpec

# FSDP has two axes of the mesh, so that a dimension which is no multiple of all devices (SigLIP's 1152 on 256) is still
# divided by one of them, and another dimension by the other.
FSDP = ("fsdp", "fsdp_inner")
_WHOLE = ("tensor", *FSDP, "sequence")

# Logical axis -> axes of the mesh, outermost first; empty where it is kept whole.
ACTIVATIONS: dict[str, tuple[str, ...]] = {
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
PARAMETERS: dict[str, tuple[str, ...]] = {
    "batch": (),
    "tokens": (),
    "width": (*FSDP, "sequence"),
    "mlp": _WHOLE,
    "heads": _WHOLE,
    "kv_heads": _WHOLE,
    "head_dim": (),
    "vocab": _WHOLE,
    "layers": (),
    "channels": _WHOLE,
}


def check_axes(axes: Sequence[str | None]) -> None:
    """Raises ValueError for a name outside the closed set."""
    for axis in axes:
        if axis is not None and axis not in ACTIVATIONS:
            close = difflib.get_close_matches(axis, ACTIVATIONS, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(ACTIVATIONS)}"
            raise ValueError(f"unknown logical axis {axis!r}; {meant}")


def spec(sizes: Mapping[str, int], shape: Sequence[int], *axes: str | None) -> PartitionSpec:
    """How an activation of this shape with these logical axes lies on a mesh with these axis sizes.

    A dimension is divided over the longest run of its axes, from the outermost on, that divides it: the three contexts
    of a drawing stay whole on a mesh that eight rows of a training batch are dealt to.

    Raises:
        ValueError: a name outside the closed set, or not one name a dimension.
    """
    if len(axes) != len(shape):
        raise ValueError(f"{len(axes)} logical axes {axes} for an array with {len(shape)} dimensions")
    check_axes(axes)
    parts = []
    for size, axis in zip(shape, axes, strict=True):
        taken = []
        for name in ACTIVATIONS[axis] if axis else ():
            if size % math.prod(sizes[n] for n in (*taken, name)):
                break
            if sizes[name] > 1:
                taken.append(name)
        parts.append(tuple(taken) if len(taken) > 1 else taken[0] if taken else None)
    return PartitionSpec(*parts)


def sharding(mesh: jax.sharding.Mesh, shape: Sequence[int], *axes: str | None) -> NamedSharding:
    """The same as a sharding on a given mesh."""
    return NamedSharding(mesh, spec(mesh.shape, shape, *axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Tells the compiler, inside `jit`, how `x` lies on the mesh that `jax.set_mesh` has set; without one, nothing."""
    sizes = current()
    described = spec(sizes or dict.fromkeys(("data", *_WHOLE), 1), x.shape, *axes)
    return jax.lax.with_sharding_constraint(x, described) if sizes else x


def current() -> Mapping[str, int]:
    """Axis sizes of the mesh that is set, empty where none is or where it is a single device."""
    mesh = jax.sharding.get_abstract_mesh()
    return {} if mesh.empty or mesh.size == 1 else mesh.shape


def platform() -> str:
    """What the program that is being traced will run on: "cpu", "gpu" or "tpu", the devices of the mesh where one is
    set (they need not be here: `macro/parallel/topology.py`)."""
    mesh = jax.sharding.get_abstract_mesh()
    described = None if mesh.empty else mesh.abstract_device
    if described is not None and described.device_kind.startswith("TPU"):
        return "tpu"
    return jax.default_backend()


def join_tokens(parts: Sequence[jax.Array]) -> jax.Array:
    """Buffers of tokens `[b, n, ...]` as one.

    Where tokens are divided over devices each device puts its own shares together, so that nothing is sent: the order
    in memory is then not that of the parts, and need not be, for a token's place is in its metadata.
    """
    parts, ways = list(parts), _ways([part.shape[1] for part in parts])
    if ways == 1:
        return jnp.concatenate(parts, axis=1)
    shares = [rearrange(part, "b (ways n) ... -> b ways n ...", ways=ways) for part in parts]
    return rearrange(jnp.concatenate(shares, axis=2), "b ways n ... -> b (ways n) ...")


def split_tokens(whole: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """The inverse of `join_tokens` for parts of these sizes."""
    ways = _ways(sizes)
    ends = [sum(sizes[: i + 1]) // ways for i in range(len(sizes) - 1)]
    if ways == 1:
        return jnp.split(whole, ends, axis=1)
    shares = jnp.split(rearrange(whole, "b (ways n) ... -> b ways n ...", ways=ways), ends, axis=2)
    return [rearrange(share, "b ways n ... -> b (ways n) ...") for share in shares]


def _ways(sizes: Sequence[int]) -> int:
    """Over how many devices buffers of these sizes are all divided."""
    ways = current().get("sequence", 1)
    return ways if all(size % ways == 0 for size in sizes) else 1
