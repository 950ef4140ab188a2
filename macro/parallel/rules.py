"""What each dimension of an array means, and over which axis of the mesh it is divided.

Arrays are described by logical axes from a closed set, one name per dimension (None: not divided, of no
name); the rules map them to axes of the mesh. For now only the batch is divided and every parameter is
replicated; dividing parameters too means further entries in `RULES` and nothing elsewhere.
Read next: `macro/parallel/mesh.py`.
"""

import difflib

import jax
from jax.sharding import NamedSharding, PartitionSpec

# Logical axis -> axis of the mesh, or None where it is kept whole.
RULES: dict[str, str | None] = {
    "batch": "data",
    "tokens": None,
    "width": None,
    "mlp": None,
    "heads": None,
    "kv_heads": None,
    "head_dim": None,
    "vocab": None,
    "layers": None,
    "channels": None,
}


def spec(*axes: str | None) -> PartitionSpec:
    """How an array with these logical axes lies on the mesh.

    Raises ValueError for a name outside the closed set.
    """
    for axis in axes:
        if axis is not None and axis not in RULES:
            close = difflib.get_close_matches(axis, RULES, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(RULES)}"
            raise ValueError(f"unknown logical axis {axis!r}; {meant}")
    return PartitionSpec(*(None if axis is None else RULES[axis] for axis in axes))


def sharding(mesh: jax.sharding.Mesh, *axes: str | None) -> NamedSharding:
    """The same on a given mesh; without axes: replicated."""
    return NamedSharding(mesh, spec(*axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Tells the compiler, inside `jit`, how `x` lies on the mesh that `jax.set_mesh` has set."""
    if len(axes) != x.ndim:
        raise ValueError(f"{len(axes)} logical axes {axes} for an array with {x.ndim} dimensions")
    return jax.lax.with_sharding_constraint(x, spec(*axes))
