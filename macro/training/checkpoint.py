"""Checkpoints: the state and the data position of one step, in one folder, written atomically.

    <workdir>/checkpoints/<step>/state      the arrays, by orbax
    <workdir>/checkpoints/<step>/data       one JSON record: the data position; shape, dtype and checksum of every array
                                            (also of a LoRA's base, whose arrays are not in `state`)
    <workdir>/checkpoints.damaged/<step>    checkpoints that could not be read; never deleted

Orbax writes under a temporary name in the background and renames at the end, so a run that is killed at any time
can resume from its last complete checkpoint. Restored arrays are sharded over the mesh of `like`. Orbax detects only
some damage, not a flipped bit in an array. So the record holds a checksum over each array's bits, computed on the
devices before anything is written, and a checksum of itself.

With several processes (`jax.distributed`) all of them make the same calls and share one file system; only process 0
prints and moves folders.
Read next: `macro/training/state.py`.
"""

import contextlib
import dataclasses
import gc
import json
import logging
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from macro.parallel import multihost
from macro.training.state import TrainState
from macro.utils import tree
from macro.utils.config import from_config
from macro.utils.errors import UserError

_FAULT_BYTES = 240  # bytes of a message that the processes exchange


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """Which checkpoints stay: the newest `keep_latest`, every one whose step is a multiple of `keep_every_steps`, and
    the `keep_best` with the lowest scores; 0: none of that kind.
    """

    keep_latest: int = 2
    keep_every_steps: int = 0
    keep_best: int = 0

    def __post_init__(self):
        for name, least in (("keep_latest", 1), ("keep_every_steps", 0), ("keep_best", 0)):
            if getattr(self, name) < least:
                raise UserError(f"config.checkpoint.{name}={getattr(self, name)}: must be at least {least}")


def checkpoint_policy(config) -> CheckpointPolicy:
    """`config.checkpoint`, checked; UserError where no step that is saved would be a multiple of `keep_every_steps`."""
    policy = from_config(CheckpointPolicy, config.checkpoint, "checkpoint")
    if policy.keep_every_steps and (config.save_every_steps < 1 or policy.keep_every_steps % config.save_every_steps):
        raise UserError(
            f"config.checkpoint.keep_every_steps={policy.keep_every_steps}: must be a multiple of "
            f"config.save_every_steps={config.save_every_steps}"
        )
    return policy


class Checkpoints:
    """The checkpoints of one run. A context manager: closing it waits for the save that runs in the background."""

    def __init__(self, workdir: str, policy: CheckpointPolicy, base: Sequence[str] = ()):
        """Opens `<workdir>/checkpoints` and removes unfinished checkpoints.

        Args:
          base: patterns of parameters that never change; only their checksums are saved.
        """
        self._base, self._base_record = tuple(base), None
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._best = _Best(policy.keep_best)
        kinds = [policies.LatestN(policy.keep_latest), self._best]
        kinds += [policies.EveryNSteps(policy.keep_every_steps)] if policy.keep_every_steps else []
        options = ocp.CheckpointManagerOptions(
            create=True,
            cleanup_tmp_directories=True,
            preservation_policy=policies.AnyPreservationPolicy(kinds),
            lightweight_initialize=True,  # Reads nothing: a damaged checkpoint must not make the others unusable.
        )
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
        for step in self._manager.all_steps():
            record, _ = _try(_read_record, self.folder / str(step))
            if record is not None:
                self._best.scores[step] = record["score"]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._manager.close()

    def latest(self) -> int | None:
        """The newest step whose save is complete, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any], score: float | None = None) -> None:
        """Saves both under `state.step`; returns once the state may be overwritten, and writes in the background.

        Args:
          state: arrays, on any mesh.
          data_state: what the iterator's `get_state` returned, the same on every process.
          score: finite; lower is better. Only `CheckpointPolicy.keep_best` uses it.
        """
        step = int(state.step)
        params, base = tree.split(state.params, self._base)
        state = state.replace(params=params)
        if self._base_record is None:  # It never changes, and is large.
            self._base_record = _described(base)
        record = {
            "iterator": data_state,
            "examples_seen": int(state.examples),
            "score": score,
            "arrays": _described(state),
            "base": self._base_record,
        }
        self._best.scores[step] = score
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(_sealed(record)))
        self._manager.save(step, args=args, force=True)  # Forced: without it, a step that is not newest is passed over.

    def restore(
        self, like: TrainState, make_params: Callable[[], Mapping] | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Restores the newest undamaged checkpoint; newer damaged ones are named on stderr and moved aside.

        Args:
          like: a state of ShapeDtypeStructs with shardings of any mesh, such as `jax.eval_shape` gives.
          make_params: creates the run's initial parameters again; called only where there are `base` parameters.

        Returns:
          (state, what the iterator's `get_state` returned).

        Raises:
          UserError: the checkpoint has other parameters, shapes or base than `like`; or all checkpoints are damaged, in
            which case none is moved.
        """
        like = like.replace(params=tree.split(like.params, self._base)[0])
        found, faults = None, {}
        with _quietly():
            for step in sorted(self._manager.all_steps(), reverse=True):
                found, fault = self._read(step, like)
                if found is not None:
                    break
                faults[step] = fault
        if found is not None:
            self._set_aside(faults, step)
            state, record = found
            return self._with_base(step, state, record["base"], make_params), record["iterator"]
        named = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
        raise UserError(
            f"{self.folder}: no checkpoint there can be read ({named}); bring one back from a copy, or name another "
            "--workdir to train from the start"
        )

    def _read(self, step: int, like: TrainState) -> tuple[tuple[TrainState, dict] | None, str]:
        """((state, record), "") or (None, the fault of that step), the same on every process."""
        folder = self.folder / str(step)
        record, fault = _try(_read_record, folder)
        if fault := _agreed(fault):
            return None, fault
        self._check_fits(step, record["arrays"], like)
        # Not through the manager, which would wait for processes that found a fault.
        reader, args = ocp.StandardCheckpointHandler(), ocp.args.StandardRestore(like)
        state, fault = _try(reader.restore, folder / "state", args=args)
        if fault := _agreed(fault):
            return None, fault
        totals = zip(_kinds(state), _sums(state), strict=True)
        if wrong := [path for (path, _), total in totals if record["arrays"][path][-1] != total]:
            return None, f"{', '.join(wrong[:3])}{' and others' * (len(wrong) > 3)}: other numbers than were saved"
        return (state, record), ""

    def _with_base(self, step: int, state: TrainState, saved: dict, make_params) -> TrainState:
        """The restored state with the base added, if that is the base the run started from."""
        if not self._base:
            return state
        base = tree.split(make_params(), self._base)[1]
        found = self._base_record = _described(base)
        wrong = [path for path in sorted(saved.keys() | found.keys()) if saved.get(path) != found.get(path)]
        if wrong:
            raise UserError(
                f"{self.folder / str(step)}: {wrong[0]} of the base model is not what this run began with; let "
                "config.init_from name the same files, unchanged, or name another --workdir"
            )
        return state.replace(params=tree.merge(state.params, base))

    def _check_fits(self, step: int, saved: dict[str, list], like: TrainState) -> None:
        wanted = dict(_kinds(like))
        for path in sorted(saved.keys() | wanted.keys()):
            (shape, dtype), (wanted_shape, wanted_dtype) = _kind(saved.get(path)), _kind(wanted.get(path))
            for what, before, now in (("shape", shape, wanted_shape), ("type", dtype, wanted_dtype)):
                if before != now:
                    raise UserError(
                        f"{self.folder / str(step)}: {path} has {what} {before}, but the config asks for {now}; resume "
                        "with the config of that run or name another --workdir"
                    )

    def _set_aside(self, faults: dict[int, str], used: int) -> None:
        """Moves damaged checkpoints to `checkpoints.damaged` and reports it on stderr."""
        if not faults:
            return
        if multihost.is_primary():
            aside = self.folder.with_name("checkpoints.damaged")
            aside.mkdir(exist_ok=True)
            for step, fault in faults.items():
                number = sum(path.name.split(".")[0] == str(step) for path in aside.iterdir())
                place = aside / (f"{step}.{number}" if number else str(step))
                (self.folder / str(step)).rename(place)
                what = f"{self.folder / str(step)} is damaged ({fault})"
                print(f"{what} and was moved to {place}; going on from step {used}", file=sys.stderr)
        multihost.barrier("checkpoints.damaged")
        self._manager.reload()


class _Best(policies.PreservationPolicy):
    """Keeps the `number` steps of lowest score. Orbax's own policy reads all scores when it opens the folder, and fails
    if one checkpoint is damaged.
    """

    def __init__(self, number: int):
        self._number = number
        self.scores: dict[int, float | None] = {}

    def should_preserve(self, checkpoints: Sequence, *, context: policies.PreservationContext) -> list[bool]:
        scores = {info.step: self.scores.get(info.step) for info in checkpoints}
        ranked = sorted((score, step) for step, score in scores.items() if score is not None)
        best = {step for _, step in ranked[: self._number]}
        return [info.step in best for info in checkpoints]


def _kinds(arrays) -> list[tuple[str, list]]:
    """(path, [shape, type]) of every leaf, as JSON holds them."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    return [(name, [list(x.shape), str(x.dtype)]) for name, (_, x) in zip(names, leaves, strict=True)]


def _described(arrays) -> dict[str, list]:
    """{path: [shape, type, sum]} of every leaf."""
    return {path: [*kind, total] for (path, kind), total in zip(_kinds(arrays), _sums(arrays), strict=True)}


def _kind(found: list | None) -> tuple[tuple[int, ...] | None, str | None]:
    return (None, None) if found is None else (tuple(found[0]), found[1])


def _sums(arrays) -> list[int]:
    """A checksum of each leaf that depends on its bits and their positions, but not on its sharding."""
    return [int(total) for total in jax.device_get(_sum_all(jax.tree.leaves(arrays)))]


@jax.jit  # One program for all: JAX caches only slow compilations, and a restart should not compile this again.
def _sum_all(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(x: jax.Array) -> jax.Array:
    """Sum over bits * (2 * position + 1) modulo 2**32: a change of one element always changes it, as odd factors have
    inverses. With integers the order of summation does not matter.
    """
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * min(x.dtype.itemsize, 4)}").astype(jnp.uint32)
    position = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(bits.shape):
        position = position * np.uint32(size % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)


def _sealed(record: dict) -> dict:
    return record | {"crc32": _crc32(record)}


def _crc32(record: dict) -> int:
    # Through JSON once: what is read back has lists for tuples and keys that are strings.
    return zlib.crc32(json.dumps(json.loads(json.dumps(record)), sort_keys=True).encode())


def _read_record(folder: Path) -> dict:
    """The record of one checkpoint. Raises ValueError if it was changed since it was written, OSError if missing."""
    record = ocp.JsonCheckpointHandler().restore(folder / "data")
    seal = record.pop("crc32", None)
    if seal != _crc32(record):
        raise ValueError("data: not what was written there")
    return record


def _try(read, *args, **kwargs) -> tuple[Any, str]:
    """(result, "") or (None, the error): on damaged input readers raise any type of exception."""
    try:
        return read(*args, **kwargs), ""
    except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):  # Such an error is not about the files.
        raise
    except Exception as error:
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:_FAULT_BYTES]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences the tasks that a failed orbax call leaves behind, which print pages to stderr when collected."""
    logger, hook = logging.getLogger("asyncio"), sys.unraisablehook
    logger.disabled, sys.unraisablehook = True, lambda *_: None
    try:
        yield
    finally:
        gc.collect()
        logger.disabled, sys.unraisablehook = False, hook


def _agreed(fault: str) -> str:
    """The first fault of any process, or ""; every process gets the same."""
    text = np.zeros(_FAULT_BYTES, np.uint8)
    data = fault.encode()[:_FAULT_BYTES]
    text[: len(data)] = np.frombuffer(data, np.uint8)
    everyone = np.asarray(multihost_utils.process_allgather(text)).reshape(-1, _FAULT_BYTES)
    return next((bytes(row).rstrip(b"\0").decode(errors="ignore") for row in everyone if row.any()), "")
