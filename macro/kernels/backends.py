"""Which implementation of a kernel runs: the first in order that can, and what is passed over is said once."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Backend(NamedTuple):
    """An implementation, and why it cannot run what it would be given (None: it can; without it: it runs anything)."""

    run: Callable
    why_not: Callable[..., str | None] = lambda *given: None


def first_able(op: str, backends: Sequence[Backend], otherwise: Callable, *given) -> Callable:
    """The implementation of `op` to call: that of the first backend that can run `given`, or `otherwise`."""
    for backend in backends:
        reason = backend.why_not(*given)
        if reason is None:
            return backend.run
        say_once(f"{op}: {backend.run.__name__} cannot run this, the next in order does: {reason}")
    return otherwise


@functools.cache
def say_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
