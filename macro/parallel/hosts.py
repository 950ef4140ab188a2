"""Several processes as one run: they find one another, stop together, and one of them writes.

    main:    with joined(coordinator, process, processes): ...     before anything touches a device
               roll call, then `jax.distributed.initialize`
    loop:    with stop_signal() as due:  if due(): save and leave
    files:   if is_first(): ...          with first_alone("data"): ...

A process that is the only one needs none of this: nothing waits, and everything is written by it.
Read next: `macro/parallel/roll_call.py`, `macro/parallel/mesh.py`.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from macro.parallel import roll_call
from macro.utils.errors import UserError

# What `macro.utils.config.run` says about the parameters that a command line hands to `joined`.
HELPS = {
    "coordinator": "host:port of process 0, where several processes make one run; `none`: this one is alone; left out: "
    "as the cluster says (TPU pod, Slurm, Open MPI, Kubernetes), alone if there is no cluster",
    "process": "number of this process, 0 to processes - 1; left out: the cluster's",
    "processes": "how many processes take part; left out: the cluster's",
    "join_seconds": "how long the processes wait for one another at the start",
}
_WAIT_SECONDS = 7 * 24 * 3600  # while one works, such as making data; if it dies, JAX notices and ends the others
_LEAVE_SECONDS = 30  # for all to leave once one does, after they have waited for one another
# Process 0 leaves later than others who make the same mistake: JAX's service goes with it, and ends them noisily.
_LAST_SECONDS = 3


@contextlib.contextmanager
def joined(coordinator: str = "", process: int = -1, processes: int = 0, join_seconds: int = 300) -> Iterator[None]:
    """This process is one of a run's in the block: `jax.devices()` are those of all of them. All end it together.

    If the block raises, this process leaves without the others, who cannot go on and end too: at once where it was
    process 0, else when its silence is noticed, within two minutes.

    Args:
      coordinator: see `HELPS`.
      process: -1 where the cluster says it.
      processes: 0 where the cluster says it; with a cluster, what it must be.
      join_seconds: of patience with processes that start late.

    Raises:
      UserError: flags that cannot be; or not all came in time, and who.
    """
    number = _join(coordinator, process, processes, join_seconds)
    try:
        yield
    except BaseException as error:
        if number is not None:
            # After the error has been printed, and before JAX's own handler, which would wait for the others.
            atexit.register(_leave, 2 if isinstance(error, UserError) else 1, number)
        raise
    wait_for_all("end")


def is_first() -> bool:
    """Whether this process writes what a run writes once."""
    import jax

    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process is at the place of this name. All must call it, in the same order."""
    import jax

    if jax.process_count() > 1:
        # Not public. The public way waits on the devices, and between CPUs that gives up after half a minute.
        from jax._src import distributed

        distributed.global_state.client.wait_at_barrier(name, _WAIT_SECONDS * 1000)


@contextlib.contextmanager
def first_alone(name: str) -> Iterator[None]:
    """The first process runs the block alone, then the others, who find what it made where they share a disk.

    All leave it together. They wait for one another at places of this name, as in `wait_for_all`.
    """
    if not is_first():
        wait_for_all(f"{name} by the first")
    yield
    if is_first():
        wait_for_all(f"{name} by the first")
    wait_for_all(name)


def whole(x) -> np.ndarray:
    """All of an array, in this process's memory, however it lies on the devices of all; every process calls it."""
    from jax.experimental import multihost_utils

    return np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)


def on_first(tree: Mapping) -> Mapping | None:
    """A tree of whole arrays in the first process's memory; None in the others, who call it too."""
    import jax

    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    first, kept = is_first(), []
    for leaf in leaves:
        array = whole(leaf)
        if first:
            kept.append(array)
    return jax.tree.unflatten(structure, kept) if first else None


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[], bool]]:
    """`due()`: whether to save and leave before this step, because SIGTERM came to this process or to another one.

    Every process asks once before each of its steps; the answer is yes for the same step in all, the second after the
    signal (the first, where there is one process). Only a main thread may handle signals: in another thread none come.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield _agreed(stopped)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        yield _agreed(stopped)
    finally:
        signal.signal(signal.SIGTERM, before)


def _agreed(stopped: threading.Event) -> Callable[[], bool]:
    """Whether any process's event was set when it asked last, the same answer in all; its own event if it is alone.

    JAX's `reached_preemption_sync_point` is no help: of a signal before the first step of a run that goes on it makes
    a step number that has long passed, and it is then never reached.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    if jax.process_count() == 1:
        return stopped.is_set
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("all"))
    flags = [
        jax.make_array_from_process_local_data(place, np.full(jax.local_device_count(), flag)) for flag in (False, True)
    ]
    any_of = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
    asked = [any_of(flags[False])]

    def due() -> bool:
        # The answer of the time before is read: this one's waits on the device behind the step under way.
        asked.append(any_of(flags[stopped.is_set()]))
        return bool(asked.pop(0))

    return due


def _join(coordinator: str, process: int, processes: int, seconds: int) -> int | None:
    """Waits for the others and starts JAX with them; returns this process's number, None if there are no others."""
    if seconds < 1:
        raise UserError(f"--join_seconds={seconds}: must be at least 1")
    local_devices = None
    if coordinator in ("", "none"):
        found = None if coordinator else _cluster(seconds)
        if found is None or found[1] == 1:
            _check_alone(coordinator, process, processes)
            return None
        if process >= 0 or processes not in (0, found[1]):
            given = f"--process={process}" if process >= 0 else f"--processes={processes}"
            raise UserError(
                f"{given}: the cluster has {found[1]} processes and this is number {found[2]}; leave the flag out, or "
                "name --coordinator=host:port as well"
            )
        coordinator, processes, process, local_devices = found
    roll_call.check(coordinator, process, processes)
    if processes == 1:
        return None
    if process == 0:
        roll_call.call(coordinator, processes, seconds)
    else:
        roll_call.answer(coordinator, process, processes, seconds)
    # Only now: who is missing is said before JAX, which takes seconds to import, has begun.
    import jax

    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=seconds,
        shutdown_timeout_seconds=_LEAVE_SECONDS,
    )
    # JAX has put a handler of its own beside Python's, which would keep the signal from ending this process.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return process


def _leave(code: int, process: int) -> None:
    """Ends this process here and now, with this exit code."""
    if process == 0:
        time.sleep(_LAST_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _cluster(seconds: int) -> tuple[str, int, int, Any] | None:
    """(coordinator, processes, process, local devices) as JAX finds them in the environment, or None."""
    # Not public. The public way is to let `initialize` detect them, and it would abort when one is missing.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, seconds)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"--coordinator: this is a cluster, but where its process 0 is cannot be told ({error}); name it as "
            "host:port with --process and --processes, or train on this machine alone with --coordinator=none"
        ) from error
    address, processes, process, local_devices = found
    return None if None in (address, processes, process) else (address, processes, process, local_devices)


def _check_alone(coordinator: str, process: int, processes: int) -> None:
    if process > 0 or processes > 1:
        given = f"--process={process}" if process > 0 else f"--processes={processes}"
        why = "this process is alone with --coordinator=none" if coordinator else "no cluster was found"
        raise UserError(f"{given}: {why}; name --coordinator=host:port, --process and --processes")
