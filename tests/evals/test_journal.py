import json

import pytest

from macro.evals.journal import FILE, Journal
from macro.utils.errors import UserError

SETTINGS = {"seed": 0, "plans": "own"}


def test_goes_on_where_it_was(tmp_path):
    first = Journal(tmp_path, SETTINGS)
    first.add({"bucket": "1-3", "index": 0, "model": {"subject_recall": [1, 2]}})
    first.add({"bucket": "4-5", "index": 0})
    with (tmp_path / FILE).open("a") as file:
        file.write('{"bucket": "4-5", "ind')  # a kill in the middle of a line
    again = Journal(tmp_path, SETTINGS)
    assert again.records == first.records
    assert again.bucket("1-3", 5) == [first.records["1-3", 0]]
    again.add({"bucket": "4-5", "index": 1})
    assert [json.loads(line).get("index") for line in (tmp_path / FILE).read_text().splitlines()] == [None, 0, 0, 1]


def test_only_what_was_asked_for(tmp_path):
    journal = Journal(tmp_path, SETTINGS)
    for index in (2, 0, 1):
        journal.add({"bucket": "1-3", "index": index})
    assert [record["index"] for record in journal.bucket("1-3", 2)] == [0, 1]


def test_other_settings_are_refused(tmp_path):
    Journal(tmp_path, SETTINGS).add({"bucket": "1-3", "index": 0})
    with pytest.raises(UserError, match=r"another seed \(0, now 1\)"):
        Journal(tmp_path, SETTINGS | {"seed": 1})


def test_a_file_of_something_else(tmp_path):
    (tmp_path / FILE).write_text("not json\n")
    with pytest.raises(UserError, match="cannot be read"):
        Journal(tmp_path, SETTINGS)
