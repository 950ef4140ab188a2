"""Files appear complete or not at all. Read next: `macro/utils/image.py`."""

import contextlib
import os
from pathlib import Path

from macro.utils.errors import UserError


def write_whole(path: str | os.PathLike, data: bytes | str) -> None:
    """Writes a file (text as UTF-8) under another name and renames it; makes missing folders.

    Raises:
        UserError: the place cannot be written; nothing is left there.
    """
    path = Path(path)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(data.encode() if isinstance(data, str) else data)
        half.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the reason for the first error may well hold for this one
            half.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
