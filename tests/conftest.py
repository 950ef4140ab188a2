"""Shared by all tests: shape checking of every annotated signature, and a quiet single-device JAX."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many modules, and the command lines that tests start, need the same programs: compiled once for all of them.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

from jaxtyping import install_import_hook

install_import_hook("macro", "beartype.beartype")


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """Every compiled program takes memory maps, of which Linux grants a process 65,530: a suite's are too many."""
    yield
    import jax

    jax.clear_caches()
