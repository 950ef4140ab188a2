"""Who makes the shards on one machine: this process, or several.

A runner is `runner(recipe, missing) -> the number of each shard once it is there`; which makes which, and in what
order, changes no byte. Read next: `shards.py`, `beam.py` (many machines).
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from data.shards import Recipe, make_shard
from macro.utils.errors import UserError

Runner = Callable[[Recipe, Sequence[int]], Iterator[int]]


def local(recipe: Recipe, missing: Sequence[int], workers: int = 1) -> Iterator[int]:
    """Makes the shards in this process, or with `workers` above 1 in that many others."""
    workers = min(workers, len(missing))
    if workers <= 1:
        yield from (make_shard(recipe, number) for number in missing)
        return
    # Not forked: JAX's threads would not come along.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_with_parent)
    try:
        futures = [pool.submit(make_shard, recipe, number) for number in missing]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker died, perhaps for want of memory; the same command goes on with the shards that are left "
            "(with fewer --workers or a smaller --shard, if it comes again)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch():
        connection.wait([parent.sentinel])
        os._exit(1)  # What a thread raises ends no process; a file that is half written has no name yet.

    threading.Thread(target=watch, daemon=True).start()
