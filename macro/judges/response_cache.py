"""Answers on disk: a request that was answered once, in any process, is not sent (nor paid) again.

One small JSON file per request, named by `chat.cache_key`; the request itself is not stored. Models are told apart by
their names only: two different ones behind one name need two folders. Read next: `endpoint.py`.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from macro.utils.errors import UserError
from macro.utils.files import atomic_write


class ResponseCache:
    """Answers by key in a folder; without a folder nothing is kept."""

    def __init__(self, folder: str | os.PathLike | None):
        self._folder = None if folder is None else Path(folder)

    def get(self, key: str) -> Any | None:
        """The answer, or None. A file that cannot be read as JSON counts as none."""
        if self._folder is None:
            return None
        try:
            return json.loads(self._file(key).read_text("utf-8"))["answer"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, answer: Any, model: str) -> None:
        if self._folder is not None:
            atomic_write(self._file(key), json.dumps({"model": model, "answer": answer}, ensure_ascii=False))

    @contextlib.contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """Other threads and processes that want to hold the same key wait until the block ends.

        The lock goes with its holder: a process that is killed blocks no one.
        """
        if self._folder is None:
            yield
            return
        path = self._file(key).with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
        except OSError as error:
            raise UserError(
                f"{self._folder}: answers cannot be kept there ({error.strerror}); choose another folder"
            ) from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(lock)

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def _lock(path: Path) -> int:
    """A descriptor of the file of this name, locked."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The previous holder has deleted the name, and another process may have created it anew.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        os.close(lock)
