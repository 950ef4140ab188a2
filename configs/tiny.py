"""A composer small enough to watch learning on a laptop: 300 steps, falling losses, no pretty pictures.

python -m macro.train --config=configs/tiny.py --workdir=runs/tiny          (:smoke does 20 steps)

Hardware: two CPU cores. Hours: .05 (2.5 minutes while other work ran beside it; a minute more the first time,
to render its 512 samples).
Expected (seed 0, means of 10 steps): loss 4.06 -> .86, plan 7.09 -> 1.47 nats a token, draw 1.03 -> .25;
streams filled .92 (text), .94 (vision), .99 (latent). Plans come out grammatical; pictures stay noise, for the
autoencoder here is random and 1,774 samples are few.
"""

from ml_collections import ConfigDict

from macro.utils.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise UserError(f"configs/tiny.py:{arg}: the argument can only be smoke")
    smoke = arg == "smoke"
    config = ConfigDict()
    config.total_steps = 20 if smoke else 300
    config.save_every_steps = 10 if smoke else 100
    config.eval_every_steps = 0 if smoke else 100
    config.log_every_steps = 5 if smoke else 10
    config.keep_checkpoints = 2
    config.batch_size = 2
    config.seed = 0

    config.objective = "joint"
    config.loss = {"plan": 0.5, "draw": 0.5}
    config.tasks = ("compose",)
    config.init_from = {}
    config.model = {"variant": "XXS/64"}

    config.data = {
        "name": "scenes",
        "num": 64 if smoke else 512,
        "seed": 0,
        "dir": "",
        "workers": 1,
        "tokenizer": "",
        "size": 64,
        "reference_size": 32,
        "rays": 1,
    }
    config.packing = {
        "text": 640,
        "vision": 68,
        "latent": 96,
        "samples": 4,
        "buckets": ((64, 64, 4),),
        "draws": 2,
        "window": 64 if smoke else 256,
        "reference_max_side": 32,
        "reference_vae": False,
    }
    config.dropout = {"no_text": 0.1, "no_image": 0.1, "null": 0.1}
    config.optim = {
        "lr": 2e-3,
        "warmup_steps": 5 if smoke else 20,
        "schedule": "cosine",
        "clip": 1.0,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.01,
        "ema": 0.99,
    }
    config.sampling = {"steps": 10, "shift": 1.0}
    return config
