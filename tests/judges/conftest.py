"""Tiny encoders, made once."""

import pytest
import tiny_vision
from tiny_vision import one_thread  # noqa: F401  a fixture of every module here


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    return tiny_vision.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory) -> str:
    return tiny_vision.dinov2(tmp_path_factory.mktemp("dinov2"))
