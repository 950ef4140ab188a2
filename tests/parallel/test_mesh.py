"""Devices as a mesh: what divides them, what does not, who makes which rows."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from parallel.processes import start

from macro.parallel import mesh as mesh_lib
from macro.parallel.mesh import ParallelConfig, axis_sizes, check_batch_size, make_mesh
from macro.utils.errors import UserError


@pytest.mark.parametrize(
    ("n", "fields", "sizes"),
    [
        (1, {}, (1, 1, 1, 1, 1)),
        (8, {}, (1, 4, 2, 1, 1)),
        (256, {}, (1, 16, 16, 1, 1)),
        (7, {}, (1, 7, 1, 1, 1)),
        (64, {"preset": "fsdp+tensor", "tensor": 4}, (1, 4, 4, 4, 1)),
        (64, {"preset": "fsdp+sequence", "sequence": 8}, (1, 4, 2, 1, 8)),
        (16, {"slices": 2}, (2, 4, 2, 1, 1)),
    ],
)
def test_presets(n, fields, sizes):
    assert axis_sizes(ParallelConfig(**fields), n, sizes[0]) == sizes


def test_slices_are_asked_of_the_devices():
    devices = [SimpleNamespace(slice_index=i // 4) for i in range(16)]
    assert mesh_lib._slices(devices) == 4 and mesh_lib._slices([SimpleNamespace()]) == 1


@pytest.mark.parametrize(
    ("n", "fields", "line"),
    [
        (6, {"preset": "fsdp+tensor", "tensor": 4}, "tensor=4 does not divide the 6 devices of a slice; take 3"),
        (8, {"preset": "fsdp+sequence", "sequence": 16}, "config.parallel.sequence=16 .* take 8"),
        (8, {"slices": 3}, "config.parallel.slices=3 does not divide the 8 devices; take 2"),
    ],
)  # fmt: skip
def test_what_does_not_divide_is_named_with_the_nearest(n, fields, line):
    config = ParallelConfig(**fields)
    with pytest.raises(UserError, match=line):
        axis_sizes(config, n, config.slices or 1)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"preset": "fdsp"}, "config.parallel.preset='fdsp': choose one of fsdp, fsdp.tensor"),
        ({"tensor": 2}, "config.parallel.tensor=2: the preset 'fsdp' has no such axis"),
        ({"preset": "fsdp+tensor", "tensor": 0}, "config.parallel.tensor=0: must be at least 1"),
        ({"slices": -1}, "config.parallel.slices=-1"),
    ],
)
def test_mistakes_are_named(fields, line):
    with pytest.raises(UserError, match=line):
        ParallelConfig(**fields)


def test_batches_keep_values_and_nesting():
    mesh = make_mesh(ParallelConfig())
    b = 2 * len(jax.devices())
    batch = {"text": {"ids": np.arange(3 * b).reshape(b, 3)}, "examples": np.zeros((b, 1), np.int32)}
    rows = mesh_lib.my_rows(b, mesh)
    assert rows == tuple(range(b))
    placed = mesh_lib.shard_batch(batch, rows, b, mesh)
    assert np.array_equal(placed["text"]["ids"], batch["text"]["ids"])


@pytest.mark.parametrize(
    ("size", "accumulate", "line"),
    [(6, 1, "batch_size=6 .* 4 devices; take 4 or 8"), (2, 1, "take 4"), (12, 2, "4 devices in 2 .*; take 8 or 16")],
)
def test_batch_sizes(monkeypatch, size, accumulate, line):
    monkeypatch.setattr(mesh_lib, "row_parts", lambda mesh: 4)
    mesh = make_mesh(ParallelConfig())
    check_batch_size(8, mesh, accumulate)
    with pytest.raises(UserError, match=line):
        check_batch_size(size, mesh, accumulate)


FORCED = """
import jax, json, numpy as np
from macro.parallel import mesh, sharding
from macro.parallel.mesh import ParallelConfig

laid = mesh.make_mesh(ParallelConfig("fsdp+sequence", sequence=2))
batch = {"x": np.arange(4 * 6).reshape(4, 6)}
placed = mesh.shard_batch(batch, mesh.my_rows(4, laid), 4, laid)["x"]
with jax.set_mesh(laid):
    constrained = jax.jit(lambda x: sharding.constrain(x * 2, "batch", "tokens"))(placed)
    parts = [np.arange(8.0).reshape(1, 8, 1), 100 + np.arange(4.0).reshape(1, 4, 1)]
    join = jax.jit(lambda a, b: sharding.join_tokens([a, b]))
    lie = sharding.activation_sharding(laid, (1, 8, 1), None, "tokens", None)
    whole = join(*(jax.device_put(part, lie) for part in parts))
    again = jax.jit(lambda x: sharding.split_tokens(x, [8, 4]))(whole)
    program = join.lower(*(jax.device_put(part, lie) for part in parts)).compile().as_text()
print(json.dumps({
    "shape": list(laid.shape.values()), "equal": bool((np.asarray(placed) == batch["x"]).all()),
    "shards": sorted(map(list, {s.data.shape for s in constrained.addressable_shards})),
    "whole": np.asarray(whole)[0, :, 0].tolist(),
    "again": [bool((np.asarray(a) == p).all()) for a, p in zip(again, parts)],
    "sends": [kind for kind in ("all-gather", "all-to-all", "collective-permute") if kind in program],
}))
"""


def test_on_eight_devices():
    """Rows over four, tokens over two; tokens joined without anything being sent."""
    with start([["-c", FORCED]], devices=8) as (running,):
        done = running.finish(120)
    assert done.code == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    assert found["shape"] == [1, 2, 2, 1, 2] and found["equal"] and found["shards"] == [[1, 3]]
    assert found["whole"] == [0, 1, 2, 3, 100, 101, 4, 5, 6, 7, 102, 103]
    assert found["again"] == [True, True] and found["sends"] == []
