"""ORB: what stays in place, by frames of which it is known how much has moved."""

import numpy as np
import pytest
from tiny_vision import noise

from macro.engines.foundation.orb_filter import OrbStillness
from macro.engines.material.types import EngineImage
from macro.utils.errors import ItemError

pytest.importorskip("cv2")

WIDE = noise(3, 256, 320, grain=6)
FRAME = WIDE[:, :256]


def still(before: np.ndarray, after: np.ndarray):
    return OrbStillness()([EngineImage(before)], [EngineImage(after)])[0]


def test_the_same_frame_is_still_and_a_shifted_one_is_not():
    assert still(FRAME, FRAME) > 0.99
    assert still(FRAME, WIDE[:, 40:296]) < 0.1


def test_where_a_part_has_moved_the_rest_is_still():
    """The lower part of the frame slides, the upper stays; features are not spread quite evenly."""
    moved = np.array([0.2, 0.4, 0.6, 0.8])
    rows = np.round(256 * (1 - moved)).astype(int)
    shares = [still(FRAME, np.concatenate([FRAME[:row], WIDE[row:, 40:296]])) for row in rows]
    assert (np.diff(shares) < 0).all()
    np.testing.assert_allclose(shares, 1 - moved, atol=0.2)


def test_a_step_smaller_than_the_tolerance_is_still():
    """A hundredth of the frame's side is 2.56 pixels of 256."""
    assert still(FRAME, WIDE[:, 1:257]) > 0.9
    assert still(FRAME, WIDE[:, 5:261]) < 0.1


def test_other_light_is_still():
    darker = (FRAME * 0.7).astype(np.uint8)
    assert still(FRAME, darker) > 0.9


def test_frames_without_features_are_faults_and_strangers_have_nothing_in_common():
    black = np.zeros((64, 64, 3), np.uint8)
    found = OrbStillness()(
        [EngineImage(FRAME), EngineImage(black), EngineImage(FRAME)],
        [EngineImage(black), EngineImage(black), EngineImage(noise(9, 256, 256))],
    )
    assert isinstance(found[0], ItemError) and isinstance(found[1], ItemError)
    assert "too few features" in found[0].reason
    assert found[2] < 0.1
