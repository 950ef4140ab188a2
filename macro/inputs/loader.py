"""An endless, resumable stream of batches of packed sequences.

    window w  --grain workers-->  which samples are packed together   (texts and sizes only)
    packed sequences ("rows" in this file) of all windows in order: the global stream
    batch k = the next `batch_rows` of it; each process makes the rows of its own devices      (pixels, threads)

The stream is a function of (data, config, seed) alone, so the iterator's whole state is the position {window, row} of
the next batch, the same on every process: a run that resumes with another number of processes sees exactly the same
batches. Every epoch has its own order, and an epoch may end inside a window.
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
_PREFETCH = 2  # batches made ahead


class _AssignWindows(grain.transforms.Map):
    """Window number -> the global sample indices of each of its rows; runs in worker processes."""

    def __init__(self, *arguments):
        self._arguments = arguments

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_parent": os.getpid()}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if sys.platform == "linux" and os.getpid() != self._parent:
            # A worker must not outlive a parent that is killed with SIGKILL, even one killed before this line.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != self._parent:
                os._exit(1)

    def map(self, window: int) -> list[list[int]]:
        return assign_window(*self._arguments, int(window))


class DataLoader(Iterator):
    """An endless iterator of batches, nested dicts of arrays [b, ...] with b = len(rows).

    `get_state()` returns the position of the next batch, a dict of three integers; `set_state(state)` resumes there, on
    any number of processes.
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
            batch_rows: rows per batch over all processes.
            rows: indices in the batch of those that this process makes; None: all.
            workers: processes that read ahead; 0: this process reads.

        Raises:
            UserError: the source is empty.
        """
        if not len(source):
            raise UserError("data: the data set is empty; build it with data.num of at least 1")
        self._source, self._tokenizer, self._config, self._seed = source, tokenizer, config, seed
        self._batch_rows, self._workers = batch_rows, workers
        self._mine = tuple(range(batch_rows)) if rows is None else tuple(rows)
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="rows")
        self.set_state({"window": 0, "row": 0, "examples_seen": 0})

    def get_state(self) -> dict[str, int]:
        """The window and row where the next batch starts, and the number of samples seen before it."""
        return dict(self._state)

    def set_state(self, state: dict[str, int]) -> None:
        """Resumes from a state of `get_state`, from any process and any number of processes."""
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
        """Yields (the rows of the next batch over all processes, the state after it), from the given state on."""
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
        # The consumer needs one window at a time; grain's default reads 500 ahead.
        options = grain.ReadOptions(num_threads=0 if self._workers else 1, prefetch_buffer_size=2)
        dataset = windows.to_iter_dataset(options)
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain reads absl's flags, which not every program parses
                flags.FLAGS.mark_as_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=1)
            )
        return iter(dataset)


def stack(rows: Sequence[dict]) -> dict:
    """Stacks rows into a batch: every array gets a leading axis."""
    first = rows[0]
    return {
        name: stack([row[name] for row in rows])
        if isinstance(value, dict)
        else np.stack([row[name] for row in rows])
        for name, value in first.items()
    }
