"""Real processes of one run on this machine, each with devices of its own; used by the tests of many hosts."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Finished:
    """What a process left: its exit code (-9: killed by signal 9), and what it wrote."""

    code: int
    out: str
    err: str


@dataclass
class Running:
    """A process that was started by `start`; `popen` takes signals."""

    popen: subprocess.Popen
    out: IO[str]
    err: IO[str]

    def so_far(self) -> str:
        """What it has written to stdout."""
        self.out.seek(0)
        return self.out.read()

    def finish(self, seconds: float) -> Finished:
        """Waits for its end; subprocess.TimeoutExpired if that does not come."""
        code = self.popen.wait(seconds)
        self.err.seek(0)
        return Finished(code, self.so_far(), self.err.read())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def start(commands: Sequence[Sequence[str]], devices: int = 1, **environment: str) -> Iterator[list[Running]]:
    """Starts `python *command` for each command, in the tests' folder's surroundings; kills at the end who still runs.

    Args:
        devices: of each process, on its CPU.
        **environment: variables beside this process's own.
    """
    given = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    with contextlib.ExitStack() as stack:
        running = []
        for command in commands:
            out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2))
            popen = subprocess.Popen(
                [sys.executable, *command], env=os.environ | given | environment, stdout=out, stderr=err, cwd=ROOT
            )
            stack.callback(popen.wait)
            stack.callback(popen.kill)
            running.append(Running(popen, out, err))
        yield running


def finish(commands: Sequence[Sequence[str]], devices: int = 1, seconds: float = 120, **environment) -> list[Finished]:
    """Starts the commands side by side and waits for all."""
    with start(commands, devices, **environment) as running:
        return [process.finish(seconds) for process in running]


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for something that a process does; AssertionError if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
