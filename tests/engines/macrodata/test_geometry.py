"""Overlap of views against recorded figures and by counting directions; names and neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from macro.engines.macrodata import geometry
from macro.engines.macrodata.geometry import HORIZONTAL, view_overlap

RECORDED = Path(__file__).resolve().parents[4] / "shared" / "parity" / "macro_view_overlap.json"

# yaw1, pitch1, yaw2, pitch2, fov1, fov2, overlap: worked out by hand or by quadrature of the two discs.
OURS = [
    (0, 0, 0, 0, 90, 90, 1.0),
    (0, 0, 91, 0, 90, 90, 0.0),
    (0, 0, 180, 0, 179, 179, 0.0),
    (10, 5, 350, 5, 60, 110, 1.0),
    (0, 0, 45, 0, 90, 90, 2 / 3 - np.sqrt(3) / (2 * np.pi)),  # equal discs at the distance of their radius
    (315, 0, 0, 0, 90, 90, 2 / 3 - np.sqrt(3) / (2 * np.pi)),
    (0, 90, 123, 90, 90, 90, 1.0),
    (0, 100, 180, 80, 60, 60, 1.0),
]


@pytest.mark.parametrize("row", OURS, ids=str)
def test_overlap_of_our_own_rows(row):
    assert view_overlap(*row[:6]) == pytest.approx(row[6], abs=1e-9)


@pytest.mark.skipif(not RECORDED.is_file(), reason="the recorded figures are not on this machine")
def test_overlap_agrees_with_the_recorded_figures():
    rows = json.loads(RECORDED.read_text())["rows"]
    assert len(rows) > 50
    for row in rows:
        assert view_overlap(*row[:6]) == pytest.approx(row[6], abs=1e-9), row


ANGLES = st.tuples(
    st.floats(0, 360), st.floats(-100, 100), st.floats(0, 360), st.floats(-100, 100), st.floats(20, 120),
    st.floats(20, 120),
)  # fmt: skip


@given(ANGLES)
def test_overlap_is_a_share_whoever_comes_first(angles):
    yaw1, pitch1, yaw2, pitch2, fov1, fov2 = angles
    one = view_overlap(*angles)
    assert 0 <= one <= 1 + 1e-12
    assert one == pytest.approx(view_overlap(yaw2, pitch2, yaw1, pitch1, fov2, fov1), abs=1e-9)


@given(ANGLES)
def test_distance_is_that_of_unit_vectors(angles):
    def unit(yaw, pitch):
        yaw, pitch = np.deg2rad([yaw, pitch])
        return np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])

    expected = np.rad2deg(np.arccos(np.clip(unit(*angles[:2]) @ unit(*angles[2:4]), -1, 1)))
    assert geometry.distance(*angles[:4]) == pytest.approx(expected, abs=1e-4)


def test_shared_area_by_counting_points():
    apart, radius, other = 40.0, 45.0, 30.0
    across, up = np.meshgrid(np.linspace(-90, 90, 1801), np.linspace(-90, 90, 1801))
    shared = (np.hypot(across, up) < radius) & (np.hypot(across - apart, up) < other)
    share = shared.mean() * 180**2 / (np.pi * other**2)
    assert view_overlap(0, 0, apart, 0, 2 * radius, 2 * other) == pytest.approx(share, abs=2e-3)


def test_neighbours_go_round():
    assert geometry.adjacent("front") == ("front_left", "front_right")
    assert geometry.adjacent("front_left") == ("left", "front")
    assert geometry.adjacent("top") == ()
    for name in HORIZONTAL:
        assert all(name in geometry.adjacent(other) for other in geometry.adjacent(name))
        apart = {abs((geometry.YAWS[name] - geometry.YAWS[o] + 180) % 360 - 180) for o in geometry.adjacent(name)}
        assert apart == {45}


def test_a_horizontal_target_needs_a_view_beside_it():
    assert geometry.has_neighbour("front", ["back", "front_left"])
    assert not geometry.has_neighbour("front", ["back", "left", "top"])
    assert geometry.has_neighbour("top", ["back"])
    assert geometry.has_neighbour("low_front", ["front"]) and geometry.has_neighbour("low_front", ["front_left"])
    assert not geometry.has_neighbour("low_front", ["low_back", "back", "top"])


def test_one_figure_for_several_overlaps():
    assert geometry.summed_up([0.4, 0.0], "largest") == 0.4
    assert geometry.summed_up([0.4, 0.0], "mean") == 0.2
    assert geometry.summed_up([], "mean") == geometry.summed_up([], "largest") == 0.0
