"""Shared by all tests: shape checking of every annotated signature, and a quiet single-device JAX."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("macro", "beartype.beartype")
