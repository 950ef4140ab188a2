"""The same steps and the same image on one device and on meshes of eight, whatever is divided."""

import json
from pathlib import Path

import pytest
from parallel.processes import start

CONFIG = Path(__file__).parents[2] / "configs" / "tiny.py"
SCRIPT = Path(__file__).with_name("sharded.py")


def run(program):
    with start([[str(SCRIPT), str(CONFIG), program]], devices=8) as (running,):
        done = running.finish(1500)
    assert done.code == 0, done.err[-3000:]
    return json.loads(done.out.splitlines()[-1])


@pytest.mark.slow
def test_every_mesh_takes_the_same_steps():
    found = run("train")
    one = found.pop("one")
    assert one["shard"] == [2, 64, 160]
    for name in ("fsdp", "slices", "tensor", "sequence"):
        assert found[name]["losses"] == pytest.approx(one["losses"], rel=2e-5), name
        # Adam's first steps divide small gradients by themselves, so rounding shows in a few parameters.
        assert found[name]["apart"] < 2e-3, name
        assert found[name]["follows"], name
    assert found["fsdp"]["shard"] == [2, 8, 160]
    assert found["slices"]["shard"] == [2, 16, 160]
    assert found["tensor"]["shard"] == [2, 16, 80]
    assert found["sequence"]["shard"] == [2, 8, 160]
    # Two parts with the totals of the whole; what differs is the noise that is drawn for each part.
    assert found["accumulated"]["losses"] == pytest.approx(one["losses"], rel=0.2)
    assert found["adapted"]["losses"][0] == pytest.approx(one["losses"][0], rel=2e-5) and found["adapted"]["follows"]


@pytest.mark.slow
def test_every_mesh_draws_the_same_image():
    found = run("draw")
    for name, drawn in found.items():
        assert drawn["same_plan"] and drawn["apart"] <= 2 and drawn["spread"] > 20, (name, drawn)
