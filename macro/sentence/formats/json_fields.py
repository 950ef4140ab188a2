"""Reads JSON files field by field; an error in a file is a `UserError` that names the file and the field."""

import json
import os
from pathlib import Path

from macro.utils.errors import UserError

_MISSING = object()
_NAMES = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


def read_object(path: Path) -> dict:
    """The JSON object in a file."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested too deep
        raise UserError(f"{path}: not JSON ({error}); fix or replace the file") from None
    if not isinstance(record, dict):
        raise UserError(f"{path}: must hold one JSON object {{...}}")
    return record


def read_field(path: Path, record: dict, name: str, kind: type, default=_MISSING):
    """The field `name` of a file's object, checked to be of type `kind`."""
    value = record.get(name, default)
    if value is _MISSING:
        raise UserError(f"{path}: has no field {name!r}; add it ({_NAMES[kind]})")
    if type(value) is not kind:
        raise UserError(f"{path}: {name} must be {_NAMES[kind]}, not {value!r:.40}")
    return value


def read_files(path: Path, record: dict, name: str) -> list[str]:
    """A field that lists image files; their paths are taken relative to the folder of `path`."""
    files = read_field(path, record, name, list)
    if not all(isinstance(file, str) for file in files):
        raise UserError(f"{path}: {name} must be a list of file names")
    return [relative_to(path, file) for file in files]


def relative_to(path: Path, file: str) -> str:
    """The path of `file`, taken relative to the folder of `path`."""
    return os.path.join(path.parent, file)
