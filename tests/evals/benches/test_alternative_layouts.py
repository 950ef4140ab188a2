import numpy as np
import pytest

from macro.engines import scenes as scenes_engine
from macro.evals.benches import alternative_layouts
from macro.scenes.language.prompt_parser import names_in_instructions, parse_prompt
from macro.sentence.layout import grid_iou
from macro.sentence.prompt import prompt_of


@pytest.mark.slow
def test_another_layout_fits_the_instruction_and_is_another():
    options = scenes_engine.Options(counts=(0,) * 3 + (1, 1) + (0,) * 7, rays=1)
    samples = scenes_engine.samples(0, 0, 8, options)
    scenes = [drawn.scene for drawn in scenes_engine.draw_scenes(0, range(8), options)]
    ious = []
    for n, (sample, scene) in enumerate(zip(samples, scenes, strict=True)):
        prompt = prompt_of(sample)
        grid = alternative_layouts.another(scene, sample.truth, prompt, np.random.default_rng(n))
        if grid is None:
            continue
        assert set(np.unique(grid)) - {0} == set(range(1, sample.subjects + 1))
        assert np.array_equal(grid, alternative_layouts.another(scene, sample.truth, prompt, np.random.default_rng(n)))
        for i, name, j in parse_prompt(prompt, names_in_instructions(sample.truth)).relations:
            if name in ("left of", "right of"):
                a, b = (np.nonzero(grid == k)[1].mean() for k in (i, j))
                assert a < b if name == "left of" else a > b
        ious.append(grid_iou(grid, sample.plan.grid))
    # Where ten renders find none, None is returned and the benchmark leaves the sample out: here 5 of 8. It was 3
    # before subjects had to keep apart (LOG, 2026-12-01): the search has not been fitted to that yet.
    assert len(ious) >= 3
    assert 0.1 < np.mean(ious) < 0.9
