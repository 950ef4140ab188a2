"""Figures of TPU chips against one another and against libtpu, and the roofline."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from parallel.aot import mesh_of, spec_of

from macro.parallel.chips import CHIPS, chip, roofline
from macro.parallel.costs import Costs
from macro.utils.errors import UserError

NOTHING = Costs(0, 0, 0, {}, {}, {}, ())


def test_chips_are_found_by_name_or_topology():
    assert chip("v5e") is CHIPS["v5e"] and chip("v5p:4x4x4").name == "v5p"
    assert chip("v5e").link_bandwidth == 50e9


@pytest.mark.parametrize("name, pod_all_reduce", [("v5e", 51.2e12), ("v6e", 102.4e12)])
def test_interconnect_agrees_with_what_is_published_of_a_pod(name, pod_all_reduce):
    assert 256 * chip(name).ici_bandwidth == pod_all_reduce


@pytest.mark.parametrize("name, hint", [("v5x", "did you mean"), ("tpu", "there are v5e, v5p, v6e")])
def test_unknown_chips_are_named(name, hint):
    with pytest.raises(UserError, match=f"unknown TPU chip '{name}'; {hint}"):
        chip(name)


@pytest.mark.parametrize(
    "change, seconds, bound_by",
    [
        ({"flops": 197 * 10**12}, 1.0, "compute"),
        ({"flops": 197 * 10**12, "hbm_bytes": 2 * 819 * 10**9}, 2.0, "memory"),
        ({"hbm_bytes": 819 * 10**9, "collective_bytes": {"all-gather": 4 * 10**11, "all-reduce": 2 * 10**11}}, 3.0,
         "interconnect"),
    ],
)
def test_roofline(change, seconds, bound_by):
    found = roofline(dataclasses.replace(NOTHING, **change), chip("v5e"))
    assert found == (pytest.approx(seconds), bound_by)


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
