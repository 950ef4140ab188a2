"""Files appear complete or not at all. Read next: `macro/utils/images.py`."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from macro.utils.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Another name to write a file under, which is renamed to `path` if the block ends well; makes missing folders.

    Raises:
        UserError: the place cannot be written; nothing is left there.
    """
    path = Path(path)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield half
        half.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        with contextlib.suppress(OSError):  # the reason for a first error may well hold for this one
            half.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes a file, text as UTF-8; see `atomic_path`."""
    with atomic_path(path) as half:
        half.write_bytes(data.encode() if isinstance(data, str) else data)
