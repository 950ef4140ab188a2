"""Tiny encoders, made once."""

import pytest
import tiny_vision


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small are slower on several, much slower where other processes want the cores too."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> str:
    return tiny_vision.clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory) -> str:
    return tiny_vision.dinov2(tmp_path_factory.mktemp("dinov2"))
