import jax
import pytest
from parity.golden import Golden, folders


@pytest.fixture(scope="session", params=folders(), ids=lambda folder: folder.name)
def golden(request):
    """Each golden folder in turn."""
    return Golden(request.param)


@pytest.fixture(autouse=True)
def exact():
    """Products in full float32, whatever the machine would rather do."""
    with jax.default_matmul_precision("highest"):
        yield
