"""BAGEL's own inference: images and texts in any order, three contexts, a thought if asked for.

    python -m macro.convert --from=bagel --source=BAGEL-7B-MoT --out=bagel                       29 GB, once
    python -m macro.sample --config=configs/bagel_sample.py --workdir=runs/fox --weights=bagel/model.safetensors \
        --instruction='a red fox in snow' --config.sampling.aspect=16:9
    python -m macro.sample --config=configs/bagel_sample.py:edit --workdir=runs/blue --weights=bagel/model.safetensors \
        --instruction='make it blue' --source=house.png

Every option is a key of config.sampling (`macro/sampling/options.py` says what they do, and in which points
`policy="bagel"` differs). The argument picks what upstream recommends: nothing for text to image, "edit" for editing.
Hardware: the 7B model needs an accelerator with 80 GB; any model of this library draws in this mode, also on a CPU.
Expected: with policy="bagel" what the released code draws (tests/parity holds a small model to 2e-5).
"""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from macro.sampling.options import SamplingOptions
from macro.utils import experiment
from macro.utils.errors import UserError

RECOMMENDED = {
    "": {"cfg_text_scale": 4.0, "cfg_img_scale": 1.0, "cfg_interval": (0.4, 1.0), "cfg_renorm_type": "global"},
    "edit": {
        "cfg_text_scale": 4.0,
        "cfg_img_scale": 2.0,
        "cfg_interval": (0.0, 1.0),
        "cfg_renorm_type": "text_channel",
    },
}


def get_config(arg: str = "") -> ConfigDict:
    if arg not in RECOMMENDED:
        raise UserError(f"configs/bagel_sample.py:{arg}: the argument can only be edit")
    config = ConfigDict()
    config.data = {"tokenizer": ""}  # empty: the one that came with the weights
    # BAGEL's own sizes, and both copies of every given image.
    config.packing = {"buckets": placeholder(tuple), "reference_vae": True}
    config.model = {"dtype": "bfloat16"}  # what the model runs in
    config.parallel = experiment.parallel()
    values = dataclasses.asdict(SamplingOptions(**RECOMMENDED[arg]))
    values["image_shapes"] = placeholder(tuple)
    config.sampling = values | {
        "step_cache": experiment.step_cache(),
        "token_selection": experiment.token_selection(),
    }
    return config
