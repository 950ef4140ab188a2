"""The demo model's first lesson: scenes of one to three subjects, where it is soon seen which image is whose.

    python -m macro.train --config=configs/demo_first.py --workdir=runs/demo_first

configs/demo.py goes on from there with up to twelve. Learning from all numbers of subjects at once, images had
nothing of their references after 12,000 samples (experiments/LOG.md). ":smoke" does 20 steps on 64 samples.
"""

from pathlib import Path

from ml_collections import ConfigDict

from macro.utils import config as config_lib
from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = config_lib.load(str(Path(__file__).with_name("demo.py")))
    with config.unlocked():
        config.total_steps = 1300
        config.save_every_steps = 100
        config.eval_every_steps = 0
        config.save_dtype = "float32"
        del config.init_from["composer"]
        config.optim.update({"schedule": "constant", "ema_decay": 0.995})
        config.data.update({"num": 8192, "seed": 2, "counts": (1, 1, 1) + (0,) * 9})
        config.packing.update({"text": 480, "vision": 72, "latent": 512, "samples": 4})
        config.packing.buckets = ((128, 128, 4),)
    return experiment.sized(config, arg, "configs/demo_first.py")
