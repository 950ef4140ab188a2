"""The checks hold for models of other sizes, and what they compare is not decided by the golden ones."""

import pytest
from parity import resized
from parity.checks import CHECKS
from parity.golden import Golden

KINDS = {"larger": resized.resize, "key_heads": resized.double_key_heads}
# Checks that take long, or look at nothing that is of another size.
LEFT_OUT = {
    "larger": ("contexts.guided", "images.several", "images.interleaved", "images.image_last"),
    "key_heads": ("contexts.guided", "images.several", "images.interleaved", "images.image_last")
    + ("images.edit", "images.thought", "vae.", "vision.", "packing.", "training.gradients_are_of"),
}
CASES = [
    (kind, name) for kind, left_out in LEFT_OUT.items() for name in CHECKS if not name.startswith(left_out)
]


@pytest.fixture(scope="module")
def other(golden, tmp_path_factory):
    """The folder in another size, by kind."""
    made = {}

    def get(kind: str) -> Golden:
        if kind not in made:
            folder = tmp_path_factory.mktemp("resized") / kind
            KINDS[kind](golden.folder, folder)
            made[kind] = Golden(folder, partial=golden.partial)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_are_others(golden, other, kind):
    assert other(kind).model != golden.model


@pytest.mark.slow
@pytest.mark.parametrize("kind, check", CASES, ids=[f"{kind}-{name}" for kind, name in CASES])
def test_parity(other, kind, check):
    CHECKS[check](other(kind))
