"""Tiny vision models, made once."""

import pytest
import tiny_vision
from tiny_vision import one_thread  # noqa: F401  a fixture of every module here


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """name of a function of `tiny_vision` -> the folder of its model."""
    made = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = getattr(tiny_vision, name)(tmp_path_factory.mktemp(name))
        return made[name]

    return folder
