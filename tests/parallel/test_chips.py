"""Figures of TPU chips against one another and against libtpu."""

import re

import jax
import jax.numpy as jnp
import pytest
from parallel.aot import mesh_of, spec_of

from macro.parallel.chips import CHIPS, chip
from macro.utils.errors import UserError


def test_chips_are_found_by_name_or_topology():
    assert chip("v5e") is CHIPS["v5e"] and chip("v5p:4x4x4").name == "v5p"


def test_interconnect_agrees_with_what_is_published_of_a_pod():
    assert 256 * chip("v5e").ici_bandwidth == 51.2e12 and 256 * chip("v6e").ici_bandwidth == 102.4e12


def test_unknown_chips_are_named():
    for name, hint in (("v5x", "did you mean"), ("tpu", "there are v5e, v5p, v6e")):
        with pytest.raises(UserError, match=f"unknown TPU chip '{name}'; {hint}"):
            chip(name)


@pytest.mark.aot_tpu
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_libtpu_agrees(topology):
    mesh = mesh_of(topology, {"one": 1})
    ours = chip(topology)
    assert mesh.devices.flat[0].device_kind == ours.device_kind
    with pytest.raises(jax.errors.JaxRuntimeError, match="exceeds available HBM") as refusal:
        jax.jit(lambda x: x * 2).lower(spec_of(mesh, (1024, 1024, 65536), jnp.float32)).compile()
    printed = re.search(r"exceeds available HBM \(([\d.]+)G\)", str(refusal.value))[1]
    # Versions of libtpu differ by some megabytes in what they keep for themselves.
    assert ours.hbm_bytes / 2**30 == pytest.approx(float(printed), abs=0.05)
