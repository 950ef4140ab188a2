"""Batches of rows, forever, from wherever one left off.

    window w  --grain workers-->  which samples share its rows        (texts and sizes only)
    rows of all windows, one after the other: the global stream of rows
    batch k = the next `batch_rows` of them; each process makes those that its devices hold    (pixels, threads)

The stream of rows follows from (data, config, seed) alone, so the iterator's whole state is the place
{window, row} where the next batch starts, the same on every process: another number of processes goes on with
exactly the same batches. Epochs have their own orders, and an epoch may end inside a window.
Read next: `macro/inputs/packing.py`.
"""

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grain
import numpy as np
from absl import flags

from macro.inputs.packing import PackingConfig, assign_window, pack_sequence
from macro.utils.errors import UserError

_ENDLESS = 2**40  # windows
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PREFETCH = 2  # batches made before they are asked for


class _AssignWindows(grain.transforms.Map):
    """Window number -> its rows as lists of global indices; runs in worker processes."""

    def __init__(self, *arguments):
        self._arguments = arguments

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_parent": os.getpid()}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if sys.platform == "linux" and os.getpid() != self._parent:
            # In a worker process. It must not outlive a parent that is killed with SIGKILL, or was before this line.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._parent:
                os._exit(1)

    def map(self, window: int) -> list[list[int]]:
        return assign_window(*self._arguments, int(window))


class DataLoader(Iterator):
    """An endless iterator of batches, nested dicts of arrays [b, ...] with b = len(rows).

    Attributes:
        state of the next batch: `get_state()` / `set_state(state)`, a dict of three integers.
    """

    def __init__(
        self,
        source: Sequence,
        tokenizer,
        config: PackingConfig,
        seed: int,
        batch_rows: int,
        rows: Sequence[int] | None = None,
        workers: int = 1,
    ):
        """
        Args:
            source: sentences by index, with `outline` (`macro/inputs/dataset_builder.py`).
            batch_rows: rows of a batch over all processes.
            rows: numbers of those that this process makes; None: all.
            workers: processes that read ahead; 0 reads in this one.

        Raises:
            UserError: no samples.
        """
        if not len(source):
            raise UserError("data: the data set is empty; build it with data.num of at least 1")
        self._source, self._tokenizer, self._config, self._seed = source, tokenizer, config, seed
        self._batch_rows, self._workers = batch_rows, workers
        self._mine = tuple(range(batch_rows)) if rows is None else tuple(rows)
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="rows")
        self.set_state({"window": 0, "row": 0, "examples_seen": 0})

    def get_state(self) -> dict[str, int]:
        """The window and the row in it where the next batch starts, and the samples seen before it."""
        return dict(self._state)

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to a state that `get_state` gave, of any process of any number of them."""
        self._state = {name: int(state[name]) for name in ("window", "row", "examples_seen")}
        self._ahead = deque()
        self._batches = self._assignments(**self._state)

    def __next__(self) -> dict:
        while len(self._ahead) < _PREFETCH:
            rows, after = next(self._batches)
            futures = [self._pool.submit(self._make, rows[i]) for i in self._mine]
            self._ahead.append((futures, after))
        futures, after = self._ahead.popleft()
        rows = [future.result() for future in futures]
        self._state = after
        return stack(rows)

    def _make(self, numbers: list[int]) -> dict:
        return pack_sequence(self._source, self._tokenizer, self._config, self._seed, numbers)

    def _assignments(self, window: int, row: int, examples_seen: int) -> Iterator:
        """(the next batch's rows over all processes, the state after it), from the given state on."""
        batch = []
        for number, rows in enumerate(self._windows(window), window):
            for place in range(row, len(rows)):
                batch.append(rows[place])
                examples_seen += len(rows[place])
                if len(batch) == self._batch_rows:
                    last = place + 1 == len(rows)
                    after = {"window": number + last, "row": 0 if last else place + 1}
                    yield batch, after | {"examples_seen": examples_seen}
                    batch = []
            row = 0

    def _windows(self, start: int) -> Iterator[list[list[int]]]:
        work = _AssignWindows(self._source, self._tokenizer, self._config, self._seed)
        windows = grain.MapDataset.range(start, _ENDLESS).map(work)
        # One window at a time is all that anybody waits for; grain's default reads 500 ahead.
        options = grain.ReadOptions(num_threads=0 if self._workers else 1, prefetch_buffer_size=2)
        dataset = windows.to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain reads absl's flags, and not every program has parsed any
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=1)
            )
        return iter(dataset)


def stack(rows: Sequence[dict]) -> dict:
    """Rows to a batch: every array gets a leading axis."""
    first = rows[0]
    return {
        name: stack([row[name] for row in rows])
        if isinstance(value, dict)
        else np.stack([row[name] for row in rows])
        for name, value in first.items()
    }
