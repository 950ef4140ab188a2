import numpy as np
import pytest

from macro.engines import scenes as scenes_engine
from macro.evals import layouts
from macro.sentence.formats import prompt_of
from macro.sentence.grid import grid_iou
from macro.sentence.spans import Truth


def truth(*relations, kinds=("dog", "car", "tree", "dog")):
    s = len(kinds)
    return Truth(
        kinds=kinds,
        palettes=np.zeros((s, 3, 3), np.float32),
        textures=("plain",) * s,
        boxes=np.zeros((s, 4), np.float32),
        masks=np.zeros((s, 8, 8), bool),
        amodal=np.zeros((s, 8, 8), bool),
        visibility=np.ones(s, np.float32),
        depth_order=tuple(range(1, s + 1)),
        relations=relations,
    )


LEFT = [(i, "left of", j) for i in range(1, 5) for j in range(i + 1, 5)]
RIGHT = [(j, "right of", i) for i, _, j in LEFT]


@pytest.mark.parametrize(
    ("prompt", "claims"),
    [
        ("the <image 1> dog is left of the <image 2> car.", {(1, "left of", 2)}),
        ("left of the <image 2> car stands the <image 1> dog.", {(1, "left of", 2)}),
        ("a <image 1> dog; a <image 2> car to the left of a <image 3> tree.", {(2, "left of", 3)}),
        # A second mention by kind, or by number where two share the kind.
        ("a <image 1> dog. a <image 2> car. the car is left of a <image 3> tree.", {(2, "left of", 3)}),
        ("a <image 2> car. the <image 4> dog is right of the car.", {(4, "right of", 2)}),
        # Two newcomers at once say nothing of each other.
        (
            "a <image 1> dog and a <image 2> car are to the left of a <image 3> tree.",
            {(1, "left of", 3), (2, "left of", 3)},
        ),
        ("a <image 2> car between a <image 1> dog and a <image 3> tree.", {(2, "between", (1, 3))}),
        (
            "a <image 1> dog, a <image 2> car and a <image 3> tree from left to right.",
            {(1, "left of", 2), (2, "left of", 3), (1, "left of", 3)},
        ),
        ("on grass under a blue sky, there is a <image 1> dog. a <image 2> car.", set()),
    ],
)
def test_stated(prompt, claims):
    assert layouts.stated(prompt, truth(*LEFT, *RIGHT, (2, "between", (1, 3)), (1, "on", 3))) == claims


@pytest.mark.slow
def test_another_layout_fits_the_instruction_and_is_another():
    options = scenes_engine.Options(counts=(0,) * 3 + (1, 1) + (0,) * 7, rays=1)
    samples = scenes_engine.samples(0, 0, 8, options)
    scenes = [drawn.scene for drawn in scenes_engine.draw_scenes(0, range(8), options)]
    ious = []
    for n, (sample, scene) in enumerate(zip(samples, scenes, strict=True)):
        prompt = prompt_of(sample)
        grid = layouts.another(scene, sample.truth, prompt, np.random.default_rng(n))
        if grid is None:
            continue
        assert set(np.unique(grid)) - {0} == set(range(1, sample.subjects + 1))
        assert np.array_equal(grid, layouts.another(scene, sample.truth, prompt, np.random.default_rng(n)))
        for i, name, j in layouts.stated(prompt, sample.truth):
            if name in ("left of", "right of"):
                a, b = (np.nonzero(grid == k)[1].mean() for k in (i, j))
                assert a < b if name == "left of" else a > b
        ious.append(grid_iou(grid, sample.plan.grid))
    # Where ten renders find none, None is returned and the benchmark leaves the sample out: here 3 of 8.
    assert len(ious) >= 5
    assert 0.1 < np.mean(ious) < 0.9
