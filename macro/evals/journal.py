"""Records of an evaluation, one JSON line per sample, so that a killed run can be resumed.

    {"settings": {...}}                                 first line: the settings of all records
    {"bucket": "4-5", "index": 17, "model": {...}, ...}

A truncated last line is left out, and its sample evaluated again. Read next: `benches/scenes.py`, `report.py`.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from macro.utils.errors import UserError
from macro.utils.files import atomic_write
from macro.utils.log import read_lines

FILE = "evaluation.jsonl"


class Journal:
    """The records of one workdir."""

    def __init__(self, workdir: str | os.PathLike, settings: Mapping[str, Any]):
        """Reads the existing records.

        Raises:
            UserError: they were made with other settings; the folder cannot be written.
        """
        self.path = Path(workdir) / FILE
        lines = self._whole_lines()
        if lines and (other := _difference(lines[0].get("settings", {}), settings)):
            raise UserError(f"{self.path}: was made with another {other}; name another workdir, or remove the file")
        self.records = {(record["bucket"], record["index"]): record for record in lines[1:]}
        kept = [{"settings": dict(settings)}, *self.records.values()]
        atomic_write(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def _whole_lines(self) -> list[dict]:
        try:
            return [json.loads(line) for line in read_lines(self.path)]
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be read ({error}); name another workdir") from None

    def add(self, record: dict) -> None:
        """Writes a record; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records[record["bucket"], record["index"]] = record

    def bucket(self, name: str, count: int) -> list[dict]:
        """The existing records of samples 0 .. count - 1 of a bucket."""
        return [self.records[name, n] for n in range(count) if (name, n) in self.records]


def _difference(old: Mapping, new: Mapping) -> str | None:
    """The first setting in which the two differ, as `seed (0, now 1)`."""
    new = json.loads(json.dumps(dict(new)))
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            return f"{key} ({old.get(key)}, now {new.get(key)})"
    return None
