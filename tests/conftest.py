"""Shared by all tests: shape checking of every annotated signature, and a quiet single-device JAX."""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("macro", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """Every compiled program takes memory maps, of which Linux grants a process 65,530: a suite's are too many."""
    yield
    import jax

    jax.clear_caches()
