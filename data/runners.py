"""Builds the shards on one machine, in this process or in several.

A runner is `runner(recipe, missing, workers) -> the number of each shard once it is written`; neither the process
that builds a shard nor the order changes a byte. Read next: `shards.py`, `beam.py` (many machines).
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any

from data.shards import Recipe, make_shard
from macro.utils.errors import UserError

Runner = Callable[[Recipe, Sequence[int], int], Iterator[int]]


def local(recipe: Recipe, missing: Sequence[int], workers: int = 1) -> Iterator[int]:
    """Builds the shards on this machine."""
    return side_by_side(functools.partial(make_shard, recipe), missing, workers)


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yields the function's result for each item as it is ready: in this process, or in `workers` others if above 1.

    Raises:
        UserError: the function's own; a worker process died. The other workers are ended first.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from _in_turn(function, items)
        return
    # Not forked: JAX's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_when_told)
    try:
        futures = [pool.submit(function, item) for item in items]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker died, perhaps for want of memory; the same command goes on with what is left "
            "(with fewer --workers or a smaller --shard, if it comes again)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _in_turn(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """The results in this process. Python drops a Ctrl-C that meets a destructor or a callback: it counts after the
    item then."""
    told = threading.Event()

    def note(*_) -> None:
        told.set()
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    listens = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if listens:
        signal.signal(signal.SIGINT, note)
    try:
        for item in items:
            yield function(item)
            if told.is_set():
                raise KeyboardInterrupt
    finally:
        if listens:
            signal.signal(signal.SIGINT, before)


def _leave_when_told() -> None:
    """Ctrl-C ends a worker silently; a worker whose parent was killed exits instead of waiting for work for ever.

    The file it was writing has no final name yet.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)  # an exception in a thread would not end the process

    threading.Thread(target=watch, daemon=True).start()
