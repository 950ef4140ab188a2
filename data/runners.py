"""Who makes the shards on one machine: this process, or several.

A runner is `runner(recipe, missing, workers) -> the number of each shard once it is there`; which makes which, and in
what order, changes no byte. Read next: `shards.py`, `beam.py` (many machines).
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
    """Makes the shards on this machine."""
    return side_by_side(functools.partial(make_shard, recipe), missing, workers)


def side_by_side(function: Callable[[Any], Any], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """What the function gives for each item, as it comes: in this process, or with `workers` above 1 in others.

    Raises:
        UserError: the function's own; a worker that died. What others have begun is ended first.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    # Not forked: JAX's threads would not come along.
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


def _leave_when_told() -> None:
    """Ctrl-C ends a worker without a word; one whose parent was killed would wait for work for ever, and leaves too.

    What it was writing has no name yet.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)  # what a thread raises ends no process

    threading.Thread(target=watch, daemon=True).start()
