"""Photographs and prompts as people bring them: MacroData's samples, where they are at hand."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from sampling.toy import random_like

from macro.inputs.tokenizer import Tokenizer
from macro.objectives import joint, parts
from macro.sampling.load import packing_of
from macro.sampling.options import PlanSamplingConfig, SamplingOptions
from macro.sampling.pipeline import Pipeline
from macro.sentence.formats import load_images, read
from macro.sentence.spans import Target

SAMPLES = sorted((Path(__file__).parents[3] / "shared" / "real" / "macrodata").glob("*.json"))
EXPERIMENT = ConfigDict({"model": {"variant": "XXS/64", "llm": {"vocab": 768}}, "init_from": {}})


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLES, reason="the MacroData samples are not at hand")
def test_macrodata_is_planned_and_drawn():
    model = parts.model_config(EXPERIMENT)
    params = random_like(jax.eval_shape(lambda key: joint.init(key, EXPERIMENT), jax.random.key(0)))
    packing = packing_of(model, {"buckets": ((64, 64, 2),), "reference_max_side": 64})
    options = SamplingOptions(num_timesteps=2, use_planner=True, plan=PlanSamplingConfig(max_cot_tokens=8))
    pipeline = Pipeline(params, model, Tokenizer.demo(), packing, options)
    for path in SAMPLES:
        sample = load_images(read(path))
        asked = sample.replace(
            spans=(*(span for span in sample if span != sample.target), Target(size=(64, 64)))
        )
        result = pipeline.compose_sentence(asked)
        assert set(np.unique(result.plan.grid)) <= set(range(len(sample.images) + 1))
        assert result.pixels.shape == (64, 64, 3)
