"""Atomic file writes: a file appears complete or not at all. Read next: `macro/utils/images.py`."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from macro.utils.errors import UserError


def local(path: str | os.PathLike) -> Path:
    """The path as a Path. Raises UserError for a URL such as gs://bucket/run, which would make a folder `gs:`."""
    if re.match(r"[a-z]\w+:/", os.fspath(path)):  # also as pathlib writes it, with one slash
        raise UserError(f"{path}: not a path on this machine's disks; name a mounted folder (gcsfuse, NFS) or a copy")
    return Path(path)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` if the block raises nothing; makes missing folders.

    Raises:
        UserError: `path` cannot be written; no file is left there.
    """
    path = local(path)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield half
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        with contextlib.suppress(OSError):  # the reason for the first error may hold here too
            half.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes a file, text as UTF-8; see `atomic_path`."""
    with atomic_path(path) as half:
        half.write_bytes(data.encode() if isinstance(data, str) else data)
