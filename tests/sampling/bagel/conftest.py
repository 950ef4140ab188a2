import pytest
from sampling.toy import picture


@pytest.fixture
def make_pixels():
    """Noise of a height and a width."""
    return lambda height, width: picture(0, height, width)
