"""Checkpoints: whole or not at all, on any mesh, the right ones kept, and what is damaged is seen and survived."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

from macro.training.checkpoint import CheckpointPolicy, Checkpoints, checkpoint_policy
from macro.training.state import TrainState
from macro.utils.errors import UserError

KEEP = CheckpointPolicy()


def make_state(step, width=24):
    """A state that follows from its step; a few types and shapes, one array that does not compress."""
    rng = np.random.default_rng(step)
    params = {
        "noise": jnp.asarray(rng.normal(size=(64, width)), jnp.float32),
        "half": jnp.asarray(rng.normal(size=300), jnp.bfloat16),
        "zero": jnp.zeros((8, 4)),
    }
    ema = jax.tree.map(jnp.copy, params)
    opt_state = {"count": jnp.int32(step), "seen": jnp.asarray([True, False])}
    return TrainState(jnp.int32(step), jnp.int32(3 * step), params, ema, opt_state)


def make_place(step):
    return {"window": step, "row": 1}


def shapes(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def same(found, wanted):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return all(x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


def save_all(workdir, steps, keep=KEEP, scores=None):
    with Checkpoints(str(workdir), keep) as checkpoints:
        for step in steps:
            checkpoints.save(make_state(step), make_place(step), None if scores is None else scores[step])


def kept(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def restored_step(workdir):
    """The step that `restore` goes on from, found to be as it was saved."""
    with Checkpoints(str(workdir), KEEP) as checkpoints:
        state, place = checkpoints.restore(shapes(make_state(0)))
        step = int(state.step)
        assert same(state, make_state(step))
        assert place == make_place(step)
        assert checkpoints.latest() == step
    return step


def test_saved_and_restored(tmp_path):
    with Checkpoints(str(tmp_path), KEEP) as checkpoints:
        assert checkpoints.latest() is None
    save_all(tmp_path, [3, 5])
    assert restored_step(tmp_path) == 5


def test_a_save_returns_before_it_is_written_and_its_state_may_be_used_up(tmp_path, monkeypatch):
    let_go, write = threading.Event(), ocp.JsonCheckpointHandler._save_fn

    async def waits(self, record, folder):
        assert let_go.wait(60)
        await write(self, record, folder)

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", waits)
    step = jax.jit(lambda state: jax.tree.map(lambda x: x if x.dtype == bool else x + 1, state), donate_argnums=0)
    state = make_state(1, width=50_000)  # 13 MB of noise, twice: still being written when the steps below run
    before = jax.tree.map(lambda x: np.array(x), state)
    with Checkpoints(str(tmp_path), KEEP) as checkpoints:
        checkpoints.save(state, make_place(1))
        assert not (tmp_path / "checkpoints" / "1").exists()
        for _ in range(5):
            state = step(state)
        jax.block_until_ready(state)
        let_go.set()
    with Checkpoints(str(tmp_path), KEEP) as checkpoints:
        assert same(checkpoints.restore(shapes(state))[0], before)


def test_what_a_killed_save_left_is_cleared_away(tmp_path):
    save_all(tmp_path, [4])
    shutil.copytree(tmp_path / "checkpoints" / "4", tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp")
    save_all(tmp_path, [8])
    assert kept(tmp_path) == [4, 8]


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (CheckpointPolicy(1), [12]),
        (CheckpointPolicy(2), [10, 12]),
        (CheckpointPolicy(1, keep_every_steps=4), [4, 8, 12]),
        (CheckpointPolicy(1, keep_best=2), [2, 6, 12]),
        (CheckpointPolicy(2, keep_every_steps=8, keep_best=1), [2, 8, 10, 12]),
    ],
)
def test_which_are_kept(tmp_path, keep, left):
    # The best comes first: a later process must know its score.
    scores = {2: 0.1, 4: 0.5, 6: 0.2, 8: 0.9, 10: 0.3, 12: 0.4}
    for part in ([2, 4, 6], [8, 10], [12]):
        save_all(tmp_path, part, keep, scores)
    assert kept(tmp_path) == left


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"keep_latest": 0}, "config.checkpoint.keep_latest=0: must be at least 1"),
        ({"keep_best": -1}, "config.checkpoint.keep_best=-1: must be at least 0"),
        ({"keep_every": 4}, "config.checkpoint: unknown key 'keep_every'; did you mean 'keep_every_steps'?"),
        (
            {"keep_every_steps": 6},
            "config.checkpoint.keep_every_steps=6: must be a multiple of config.save_every_steps=4",
        ),
    ],
)
def test_mistakes_about_keeping_are_named(values, line):
    with pytest.raises(UserError, match=re.escape(line)):
        checkpoint_policy(ConfigDict({"save_every_steps": 4, "checkpoint": values}))


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


DAMAGES = {
    "numbers": lambda folder: flip(largest(folder), largest(folder).stat().st_size // 2),
    "cut short": lambda folder: os.truncate(largest(folder), largest(folder).stat().st_size // 2),
    "missing": lambda folder: largest(folder).unlink(),
    "garbage": lambda folder: largest(folder).write_bytes(random.Random(0).randbytes(largest(folder).stat().st_size)),
    "place": lambda folder: (folder / "data" / "metadata").write_text(
        (folder / "data" / "metadata").read_text().replace('"window": 8', '"window": 9')
    ),
    "record": lambda folder: (folder / "data" / "metadata").write_text("{"),
    "names": lambda folder: flip(folder / "state" / "_METADATA", 300),
    "no state": lambda folder: shutil.rmtree(folder / "state"),
    "empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_named_moved_aside_and_the_one_before_is_used(tmp_path, capfd, damage):
    save_all(tmp_path, [4, 8])
    DAMAGES[damage](tmp_path / "checkpoints" / "8")
    capfd.readouterr()
    assert restored_step(tmp_path) == 4
    said = capfd.readouterr().err.splitlines()
    aside = tmp_path / "checkpoints.damaged" / "8"
    assert len(said) == 1
    assert said[0].startswith(f"{tmp_path}/checkpoints/8 is damaged (")
    assert said[0].endswith(f") and was moved to {aside}; going on from step 4")
    assert aside.is_dir()
    # The step can be saved again, and damaged again.
    save_all(tmp_path, [8])
    assert kept(tmp_path) == [4, 8]
    DAMAGES[damage](tmp_path / "checkpoints" / "8")
    assert restored_step(tmp_path) == 4
    assert sorted(path.name for path in aside.parent.iterdir()) == ["8", "8.1"]


@pytest.mark.slow
def test_a_flipped_bit_never_goes_unseen(tmp_path):
    """Orbax has checksums over its indices, none over the numbers: most of these are found by the sums alone. A few
    bits of a file mean nothing; `restored_step` compares all that was restored.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    save_all(whole, [4, 8])
    found, rng = [], random.Random(0)
    for _ in range(12):
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(whole, broken)
        path = largest(broken / "checkpoints" / "8")
        flip(path, rng.randrange(path.stat().st_size))
        found.append(restored_step(broken))
    assert found.count(4) >= 10


def test_where_all_are_damaged_nothing_is_moved_and_nothing_begins_anew(tmp_path):
    save_all(tmp_path, [4, 8])
    for step in (4, 8):
        DAMAGES["numbers"](tmp_path / "checkpoints" / str(step))
    for _ in range(2):  # as often as it is tried
        with pytest.raises(UserError, match=r"no checkpoint there can be read \(8: .*; 4: .*other numbers than were"):
            restored_step(tmp_path)
        assert kept(tmp_path) == [4, 8]


def test_another_model_is_no_damage(tmp_path):
    save_all(tmp_path, [4, 8])
    other = shapes(make_state(0))
    other.params["noise"] = jax.ShapeDtypeStruct((64, 25), jnp.float32)
    with (
        Checkpoints(str(tmp_path), KEEP) as checkpoints,
        pytest.raises(UserError, match=r"/8: params/noise has shape \(64, 24\), but the config asks for \(64, 25\)"),
    ):
        checkpoints.restore(other)
    other.params["noise"] = jax.ShapeDtypeStruct((64, 24), jnp.bfloat16)
    with (
        Checkpoints(str(tmp_path), KEEP) as checkpoints,
        pytest.raises(UserError, match=r"/8: params/noise has type float32, but the config asks for bfloat16"),
    ):
        checkpoints.restore(other)
    assert kept(tmp_path) == [4, 8]


# Run as `python -c PROGRAM workdir [address index count]`: saves or restores under a mesh of all devices there are.
PROGRAM = """
import sys
import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from training.test_checkpoint import *

workdir, todo, *place = sys.argv[1:]
if place:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(place[0], num_processes=int(place[2]), process_id=int(place[1]))
mesh = jax.make_mesh((jax.device_count(),), ("fsdp",), axis_types=(AxisType.Auto,))

def laid(x):
    split = x.ndim > 0 and x.shape[0] % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec("fsdp") if split else PartitionSpec())

with jax.set_mesh(mesh), Checkpoints(workdir, KEEP) as checkpoints:
    if todo == "save":
        for step in (4, 8):
            state = make_state(step)
            state = jax.jit(lambda x: x, out_shardings=jax.tree.map(laid, state))(state)
            checkpoints.save(state, make_place(step))
    else:
        plain = make_state(0)
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=laid(x)), plain)
        state, found = checkpoints.restore(like)
        step = int(state.step)
        wanted = make_state(step)
        assert found == make_place(step)
        for x, y, z in zip(*map(jax.tree.leaves, (state, wanted, like)), strict=True):
            assert x.sharding == z.sharding
            for shard in x.addressable_shards:
                assert np.asarray(shard.data).tobytes() == np.asarray(y[shard.index]).tobytes()
        assert state.params["noise"].addressable_shards[0].data.shape[0] == 64 // mesh.size
        print("step", step)
"""


def start(workdir, todo, devices, *place):
    root = Path(__file__).resolve().parents[2]
    settings = {
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", PROGRAM, str(workdir), todo, *map(str, place)]
    return subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(*processes):
    """(stdout, stderr) of each; all must have ended well."""
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said[0][1] + said[-1][1]
    return said


def last_line(out):
    return out.splitlines()[-1]  # gloo has its say before


@pytest.mark.slow
def test_restored_onto_other_meshes(tmp_path):
    finish(start(tmp_path, "save", 4))
    for devices in (4, 2, 1):
        [(out, _)] = finish(start(tmp_path, "restore", devices))
        assert last_line(out) == "step 8"


def together(workdir, todo):
    """Two processes with a device each, joined."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return finish(*(start(workdir, todo, 1, address, index, 2) for index in range(2)))


@pytest.mark.slow
def test_two_processes_save_and_restore_and_agree_on_damage(tmp_path):
    together(tmp_path, "save")
    assert kept(tmp_path) == [4, 8]
    assert [last_line(out) for out, _ in together(tmp_path, "restore")] == ["step 8"] * 2
    [(out, _)] = finish(start(tmp_path, "restore", 1))
    assert last_line(out) == "step 8"
    # Damage in what one process alone reads: the other must not wait for it.
    for path in (tmp_path / "checkpoints" / "8" / "state" / "ocdbt.process_1").rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)
    said = together(tmp_path, "restore")
    assert [last_line(out) for out, _ in said] == ["step 4"] * 2
    assert [err.count("checkpoints/8 is damaged (") for _, err in said] == [1, 0]
    assert kept(tmp_path) == [4]
