"""Tiny vision models, made once."""

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
def tiny(tmp_path_factory):
    """name of a function of `tiny_vision` -> the folder of its model."""
    made = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = getattr(tiny_vision, name)(tmp_path_factory.mktemp(name))
        return made[name]

    return folder
