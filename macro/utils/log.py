"""A run's progress line on the terminal, and its metrics as a file with one JSON record per line.

`metrics.jsonl` is the authoritative record. A resumed run removes the records of steps that it will repeat, so no step
is recorded twice. TensorBoard gets the same numbers if `clu` can write for it.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from macro.utils.files import atomic_write


class MetricsLog:
    """Appends records to `<workdir>/metrics.jsonl`, and to TensorBoard files where that is installed."""

    def __init__(self, workdir: str, resumed_step: int, writes: bool = True):
        """Keeps the records of steps up to `resumed_step` (0: a new run, none) and drops the others.

        `writes`: False in all processes of a run but one; then no file is written.
        """
        self._file = self._tensorboard = None
        if not writes:
            return
        path = Path(workdir) / "metrics.jsonl"
        kept = [line for line in read_lines(path) if json.loads(line)["step"] <= resumed_step]
        atomic_write(path, "".join(kept))
        self._file = path.open("a")
        self._tensorboard = _tensorboard(workdir)

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one record; it must hold `step`. Numbers that are not finite are left out: JSON has none."""
        if not self._file:
            return
        finite = {key: value for key, value in record.items() if _is_sayable(value)}
        # One system call writes a whole line: a killed process leaves no partial line.
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        if self._tensorboard:
            numbers = {key: value for key, value in finite.items() if isinstance(value, int | float)}
            self._tensorboard.write_scalars(finite["step"], numbers)

    def close(self) -> None:
        if self._file:
            self._file.close()
        if self._tensorboard:
            self._tensorboard.close()


def read_lines(path: Path) -> list[str]:
    """The complete lines of a JSONL file, none if there is no file; a truncated last line is left
    out.
    """
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class MeanMetrics:
    """Means over the steps since the last record, without NaNs, which mean `nothing of this kind in the batch`."""

    def __init__(self):
        self._values: dict[str, list[float]] = {}

    def add(self, metrics: Mapping[str, float]) -> None:
        for key, value in metrics.items():
            if not math.isnan(value):
                self._values.setdefault(key, []).append(value)

    def take(self) -> dict[str, float]:
        """Returns the means so far and resets them."""
        means = {key: sum(values) / len(values) for key, values in self._values.items()}
        self._values = {}
        return means


class Progress:
    """Steps done, speed and time left, on one line that a terminal overwrites; a file gets lines."""

    def __init__(self, first_step: int, total_steps: int, shows: bool = True):
        """`shows`: False in all processes of a run but one; those print nothing."""
        self._first, self._total = first_step, total_steps
        self._shows, self._stream = shows, sys.stdout
        self._start = time.monotonic()
        # The first step compiles: speed is counted from its end on.
        self._warm: tuple[int, float] | None = None

    def seconds(self) -> float:
        """Seconds since this process began to train."""
        return time.monotonic() - self._start

    def tick(self, step: int) -> None:
        """Call after each finished step."""
        if self._warm is None:
            self._warm = (step, time.monotonic())

    def skip(self, seconds: float) -> None:
        """Excludes time that was not spent on steps from the rate."""
        if self._warm is not None:
            self._warm = (self._warm[0], self._warm[1] + seconds)

    def rate(self, step: int) -> float:
        """Steps per second after the first one; NaN until there is a second."""
        if self._warm is None or step <= self._warm[0]:
            return math.nan
        return (step - self._warm[0]) / max(time.monotonic() - self._warm[1], 1e-9)

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints the line. `metrics`: shown after step, rate and ETA."""
        if not self._shows:
            return
        rate = self.rate(step)
        left = "-" if math.isnan(rate) else clock((self._total - step) / rate)
        speed = "" if math.isnan(rate) else f" | {rate:.2f} steps/s"
        numbers = " ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        line = f"step {step}/{self._total} ({step / self._total:.0%}) | {numbers}{speed} | ETA {left}"
        if self._stream.isatty():
            end = "\n" if step == self._total else ""
            self._stream.write(f"\r\x1b[K{line}{end}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def say(self, text: str) -> None:
        """Prints a line of its own without garbling the progress line."""
        if not self._shows:
            return
        self._stream.write(f"\r\x1b[K{text}\n" if self._stream.isatty() else text + "\n")
        self._stream.flush()


class ProgressBar:
    """Progress of work that may be resumed, with rate and time left, as lines on stderr."""

    def __init__(self, name: str, total: int, unit: str):
        """The task `name` consists of `total` items of `unit` ("sentences")."""
        self.name, self.total, self.unit = name, total, unit
        self.count = self.made = 0
        self._start, self._said = time.monotonic(), -math.inf

    def skip(self, number: int) -> None:
        """Counts items that existed before; the rate leaves them out."""
        self.count += number

    def done(self, number: int) -> None:
        """Counts more finished items; prints the line at most once a second."""
        self.count, self.made = self.count + number, self.made + number
        if self.count < self.total and time.monotonic() < self._said + 1:
            return
        self._said = time.monotonic()
        rate = self.made / max(self.seconds(), 1e-9)
        print(
            f"{self.name}: {self.count:,} of {self.total:,} {self.unit}, {rate:.3g} a second, "
            f"{clock((self.total - self.count) / rate)} left",
            file=sys.stderr,
            flush=True,
        )

    def seconds(self) -> float:
        """Seconds since the work began in this process."""
        return time.monotonic() - self._start


def clock(seconds: float) -> str:
    """`4:05` or `1:02:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _is_sayable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _tensorboard(workdir: str):
    """A writer of TensorBoard files, or None: `clu` needs TensorFlow, which nothing else here does."""
    try:
        from clu import metric_writers

        return metric_writers.SummaryWriter(workdir)
    except ImportError:
        return None
