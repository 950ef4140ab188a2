"""Several processes as one run: they connect, stop together, and the primary one writes the files.

    main:    with initialize(coordinator, process, processes): ...     before any use of a device
               rendezvous, then `jax.distributed.initialize`
    loop:    with preemption_guard() as preempted:  if preempted(): save and leave
    files:   if is_primary(): ...          with primary_first("data"): ...

With a single process these functions do nothing.
Read next: `macro/parallel/rendezvous.py`, `macro/parallel/mesh.py`.
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

from macro.parallel import rendezvous
from macro.utils.errors import UserError

# Help texts for the parameters that a command line passes to `initialize`.
HELPS = {
    "coordinator": "host:port of process 0, where several processes make one run; `none`: this one is alone; left out: "
    "as the cluster says (TPU pod, Slurm, Open MPI, Kubernetes), alone if there is no cluster",
    "process": "number of this process, 0 to processes - 1; left out: the cluster's",
    "processes": "how many processes take part; left out: the cluster's",
    "join_seconds": "how long the processes wait for one another at the start",
}
_WAIT_SECONDS = 7 * 24 * 3600  # while one works, such as on data; if it dies, JAX notices and ends the others
_LEAVE_SECONDS = 30  # for all to leave once one does, after they have waited for one another
# Process 0 exits later than others with the same error: JAX's service ends with it, and kills them noisily.
_LAST_SECONDS = 3


@contextlib.contextmanager
def initialize(coordinator: str = "", process: int = -1, processes: int = 0, join_seconds: int = 300) -> Iterator[None]:
    """Inside the block this process is part of a run: `jax.devices()` are those of all processes. All leave together.

    If the block raises, this process exits without waiting, and the others then exit too: at once if it was process 0,
    else when its heartbeat is missed, within two minutes.

    Args:
      coordinator: see `HELPS`.
      process: -1: taken from the cluster's environment.
      processes: 0: taken from the cluster's environment; otherwise it must agree with that.
      join_seconds: how long to wait for processes that start late.

    Raises:
      UserError: flags that contradict each other or the cluster; or processes missing after that time, by number.
    """
    number = _join(coordinator, process, processes, join_seconds)
    try:
        yield
    except BaseException as error:
        if number is not None:
            # After the error has been printed, and before JAX's own handler, which would wait for the others.
            atexit.register(_leave, 2 if isinstance(error, UserError) else 1, number)
        raise
    barrier("end")


def is_primary() -> bool:
    """Whether this is process 0, which writes the run's files."""
    import jax

    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Returns once every process has called it with this name. All must call their barriers in the same order."""
    import jax

    if jax.process_count() > 1:
        # Private, but the public `sync_global_devices` waits on the devices, which times out after 30 s on CPUs.
        from jax._src import distributed

        distributed.global_state.client.wait_at_barrier(name, _WAIT_SECONDS * 1000)


@contextlib.contextmanager
def primary_first(name: str) -> Iterator[None]:
    """Process 0 runs the block first, then the others, which find its files on a shared disk. All leave together.

    `name` names the barriers.
    """
    if not is_primary():
        barrier(f"{name} by the first")
    yield
    if is_primary():
        barrier(f"{name} by the first")
    barrier(name)


def process_allgather(x) -> np.ndarray:
    """The full array in this process's memory, gathered from all processes. Every process must call it."""
    from jax.experimental import multihost_utils

    return np.asarray(x) if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True)


def gather_to_primary(tree: Mapping) -> Mapping | None:
    """A tree of full arrays in process 0's memory, None in the others. Every process must call it."""
    import jax

    if jax.process_count() == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    first, kept = is_primary(), []
    for leaf in leaves:
        array = process_allgather(leaf)
        if first:
            kept.append(array)
    return jax.tree.unflatten(structure, kept) if first else None


@contextlib.contextmanager
def preemption_guard() -> Iterator[Callable[[], bool]]:
    """Yields `preempted()`: whether to save and exit before this step, because a process of the run got SIGTERM.

    Every process calls it once before each of its steps; it is true for the same step in all, the second after the
    signal (the first, with a single process). Only a main thread can handle signals: in another thread it stays false.
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
    """Whether any process's event was set at its last call, the same in all; with one process, its event.

    JAX's `reached_preemption_sync_point` cannot be used: after a signal before the first step of a resumed run it
    waits for a step number that has already passed.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    if jax.process_count() == 1:
        return stopped.is_set
    # Not `jax.make_mesh`, which orders devices by their coordinates, which repeat over several slices.
    mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec("all"))
    flags = [
        jax.make_array_from_process_local_data(place, np.full(jax.local_device_count(), flag)) for flag in (False, True)
    ]
    any_of = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))
    pending = [any_of(flags[False])]

    def preempted() -> bool:
        # Reads the result of the previous call: this one's is queued on the device behind the running step.
        pending.append(any_of(flags[stopped.is_set()]))
        return bool(pending.pop(0))

    return preempted


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
    rendezvous.check(coordinator, process, processes)
    if processes == 1:
        return None
    if process == 0:
        rendezvous.serve(coordinator, processes, seconds)
    else:
        rendezvous.connect(coordinator, process, processes, seconds)
    # Imported only now: missing processes are reported before JAX, which takes seconds to import.
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
    # JAX has installed its own handler, which would keep the signal from ending this process.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return process


def _leave(code: int, process: int) -> None:
    """Exits at once with this exit code."""
    if process == 0:
        time.sleep(_LAST_SECONDS)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _cluster(seconds: int) -> tuple[str, int, int, Any] | None:
    """(coordinator, processes, process, local devices) as JAX finds them in the environment, or None."""
    # Private, but the public `initialize` aborts the process with a C++ stack trace if another one is missing.
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
