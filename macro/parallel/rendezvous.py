"""The rendezvous before a run of several processes: all connect, or each reports which ones are missing.

    process 0       listens at the coordinator's address      <- "macro-rendezvous 2 4", process 2 of 4
                    until all have connected or time is up    -> "macro-rendezvous", or that and the error

JAX then listens at the same address. If a process is missing, JAX's own client would end the others with a C++ stack
trace that does not name it. This module imports sockets only, so it loads instantly.
Read next: `macro/parallel/multihost.py`.
"""

import contextlib
import itertools
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterable

from macro.utils.errors import UserError

_WORD = b"macro-rendezvous"
_HELLO_SECONDS = 2  # for a process that has connected to say its number
_VERDICT_SECONDS = 30  # more than process 0 needs beyond its limit to answer all


def check(coordinator: str, process: int, processes: int) -> None:
    """Raises UserError for a malformed address or numbers out of range."""
    _host_and_port(coordinator)
    if processes < 1:
        raise UserError(f"--processes={processes}: with --coordinator, say how many processes take part")
    if not 0 <= process < processes:
        raise UserError(f"--process={process}: with --processes={processes} it must be {_span(0, processes - 1)}")


def serve(coordinator: str, processes: int, seconds: int) -> None:
    """Process 0: returns when all others have connected and been answered. Otherwise UserError, in all of them."""
    flag, (_, port) = f"--coordinator={coordinator}", _host_and_port(coordinator)
    try:
        listener = _listen(port, processes)
    except OSError as error:
        raise UserError(
            f"{flag}: process 0 cannot listen on port {port} ({os.strerror(error.errno)}); another process 0 or "
            "another program has it: end that, or name another port to every process"
        ) from error
    print(f"waiting for {_processes(range(1, processes))} at {coordinator}", file=sys.stderr, flush=True)
    with listener:
        fault, came = _collect(listener, processes, seconds)
    verdict = _WORD + (f" {flag}: {fault}".encode() if fault else b"") + b"\n"
    for connection in came:
        with contextlib.suppress(OSError):  # one that has just died; JAX waits for it, with a limit of its own
            connection.sendall(verdict)
    for connection in came:
        # The others close first, so that no connection is left on the port that JAX listens on next.
        with connection, contextlib.suppress(OSError):
            connection.recv(1)
    if fault:
        raise UserError(f"{flag}: {fault}")


def connect(coordinator: str, process: int, processes: int, seconds: int) -> None:
    """Any other process: returns when process 0 reports that all have connected. Otherwise UserError."""
    host, port = _host_and_port(coordinator)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as connection:
                connection.sendall(_WORD + f" {process} {processes}\n".encode())
                connection.settimeout(seconds + _VERDICT_SECONDS)
                line = _line(connection)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            if line == _WORD:
                return
            if line.startswith(_WORD):
                raise UserError(line.removeprefix(_WORD).decode().strip())
            reason = "it hung up" if not line else "something else answers there"
        time.sleep(0.2)
    raise UserError(
        f"--coordinator={coordinator}: process 0 did not answer there within {seconds} s ({reason}); start it on that "
        "machine with the same command, or see its log"
    )


def _host_and_port(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--coordinator={coordinator}: must be host:port, such as 10.0.0.1:7000, or none")
    return host.strip("[]"), int(port)


def _listen(port: int, processes: int) -> socket.socket:
    # JAX listens on all addresses too.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, backlog=processes, dualstack_ipv6=True)
    return socket.create_server(("", port), backlog=processes)


def _collect(listener: socket.socket, processes: int, seconds: int) -> tuple[str | None, list[socket.socket]]:
    """(error or None, all connections), once all others have connected, one is wrong, or time is up."""
    here: dict[int, socket.socket] = {}
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while len(here) < processes - 1 and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.data is not None:  # A connected process sends nothing more, so readable means closed.
                    selector.unregister(key.fileobj)
                    here.pop(key.data).close()
                    continue
                connection, peer = listener.accept()
                numbers = _hello(connection)
                if numbers is None:
                    connection.close()
                    continue
                number, told = numbers
                fault = None
                if told != processes:
                    fault = f"process {number} was started with --processes={told}, process 0 with {processes}"
                elif number in here:
                    places = f"{_address(here[number].getpeername())} and {_address(peer)}"
                    fault = f"process {number} came twice, from {places}; give each its own --process"
                if fault:
                    return fault, [*here.values(), connection]
                here[number] = connection
                selector.register(connection, selectors.EVENT_READ, number)
    missing = [number for number in range(1, processes) if number not in here]
    if not missing:
        return None, list(here.values())
    return (
        f"{_processes(missing)} of {processes} did not come within {seconds} s; start them with the same command, or "
        "see their logs",
        list(here.values()),
    )


def _hello(connection: socket.socket) -> tuple[int, int] | None:
    """(number, number of processes) that a connection announces, or None if it is not a process of a run."""
    try:
        connection.settimeout(_HELLO_SECONDS)
        word, number, processes = _line(connection).split()
        return (int(number), int(processes)) if word == _WORD and 0 < int(number) < int(processes) else None
    except (OSError, ValueError):
        return None


def _address(peer: tuple) -> str:
    return peer[0].removeprefix("::ffff:")  # the prefix of an IPv4 address on a dual-stack socket


def _line(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.readline(1000).rstrip(b"\n")


def _processes(numbers: Iterable[int]) -> str:
    """`process 3` or `processes 1-4, 7`."""
    numbers = sorted(numbers)
    # In a run of consecutive numbers, number minus index is constant.
    runs = [list(run) for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    spans = ", ".join(_span(run[0][1], run[-1][1], "-") for run in runs)
    return f"process{'es' if len(numbers) > 1 else ''} {spans}"


def _span(first: int, last: int, between: str = " to ") -> str:
    return f"{first}" if first == last else f"{first}{between}{last}"
