"""Rendered scenes of every size, small and drawn once for all tests of this folder."""

import pytest

from macro.engines import scenes as scenes_engine

# Two whole batches and no second tries: one compilation. One ray a pixel alone decides ids and depth.
SEED = 3
SMALL = scenes_engine.Options(size=64, reference_size=16, rays=1, tries=1)


@pytest.fixture(scope="session")
def drawn_scenes():
    drawn = scenes_engine.draw_scenes(SEED, range(32), SMALL)
    seen = [d for d in drawn if d.truth.masks.any((1, 2)).all()]
    assert len(seen) >= 30
    return seen
