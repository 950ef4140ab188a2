"""Fixed tables: time, positions, and the sizes that images are brought to."""

import json

import jax.numpy as jnp
import numpy as np
from parity.golden import FIXED, LATENT_TABLE, Golden

from macro.diffusion.flow import sampling_times
from macro.inputs.image_spec import fit_size
from macro.inputs.tokenize_example import grid_positions
from macro.nn.layers import position_embedding, time_sinusoids


def check_time(golden: Golden):
    recorded = golden.load("misc")
    golden.close(time_sinusoids(jnp.asarray(recorded["t"])), recorded["timestep_embedding"], "time sinusoids")


def check_positions(golden: Golden):
    model = golden.model
    for name, side in zip(FIXED, (model.latent_side, model.vision.side), strict=True):
        ours = position_embedding(jnp.arange(side**2)[None], side, model.llm.width)[0]
        golden.close(ours, golden.tensors[name], name)
        if name == LATENT_TABLE:
            golden.close(ours, golden.load("misc")["latent_pos_embed"], name)


def check_position_ids(golden: Golden):
    recorded, found = golden.load("misc"), 0
    for name, ids in recorded.items():
        if name.startswith("pos_extrap_"):
            height, width = map(int, name.removeprefix("pos_extrap_").split("x"))
            # The recorded grid is given in pixels of square cells; how many a side holds follows from the count.
            cell = round((height * width / len(ids)) ** 0.5)
            ours = grid_positions(height // cell, width // cell, _stride(golden, ids, width // cell))
            np.testing.assert_array_equal(ours, ids, name)
            found += 1
    assert found


def _stride(golden: Golden, ids: np.ndarray, columns: int) -> int:
    """The side of the table these ids count in: one of the model's two."""
    model = golden.model
    side = int(ids[columns]) if len(ids) > columns else model.latent_side
    assert side in (model.latent_side, model.vision.side)
    return side


def check_resizing(golden: Golden):
    for width, height, rule, out_width, out_height in json.loads(str(golden.load("e2e")["resize_table"])):
        most, least, stride, *pixels = map(int, rule.split("_"))
        limit = {"max_pixels": pixels[0]} if pixels else {}
        got = fit_size(height, width, max_side=most, min_side=least, stride=stride, **limit)
        assert got == (out_height, out_width), (width, height, rule)


def check_sampling_times(golden: Golden):
    recorded = golden.load("infer")
    for name, times in recorded.items():
        if name.startswith("run_") and name.endswith("_t"):
            golden.close(sampling_times(len(times) + 1, 3.0)[:-1], times, name)
