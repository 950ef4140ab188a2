"""Shared by all tests: shape checks of annotated signatures, one CPU device, and what keeps compiling cheap."""

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

# Compiled programs take memory maps, of which Linux grants a process 65,530; a whole suite's are too many.
_MANY_MAPS = 40_000
_MOST_WORKERS = 4  # each takes up to 3 GB
# Where XLA optimises what it compiles: programs that run for long, goldens of other libraries, and programs for chips
# that are not here; and where bytes are compared with those of other processes, which optimise. Everywhere else
# compiling takes longer than running.
_OPTIMISED = (
    "colabs", "data/test_beam.py", "engines", "evals", "parity", "scenes", "models/test_params.py",
    "kernels/test_attention_tpu.py", "parallel/test_chips.py", "parallel/cost_model", "test_compile.py",
)  # fmt: skip


def pytest_xdist_auto_num_workers(config):
    """How many processes `-n auto` (in setup.cfg) starts: one a core for the whole suite, none for a part of it."""
    here = config.invocation_params.dir
    if {(here / argument).resolve() for argument in config.args} != {Path(__file__).parent}:
        return 0
    return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)


def pytest_configure(config):
    gone = [name for name in _OPTIMISED if not (Path(__file__).parent / name).exists()]
    if gone:
        raise pytest.UsageError(f"tests/conftest.py: _OPTIMISED names {', '.join(gone)}, which is not there")


@pytest.fixture(scope="module", autouse=True)
def optimisation(request):
    """Sets how much XLA optimises what this module compiles."""
    import jax

    module = request.path.relative_to(Path(__file__).parent)
    quick = not any(module.is_relative_to(name) for name in _OPTIMISED)
    if quick != jax.config.read("jax_disable_most_optimizations"):
        jax.clear_caches()  # of what was compiled the other way
        jax.config.update("jax_disable_most_optimizations", quick)


@pytest.fixture(scope="module", autouse=True)
def programs_are_let_go():
    """Forgets all compiled programs where they come close to the limit on memory maps."""
    yield
    import jax

    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > _MANY_MAPS:
        jax.clear_caches()
