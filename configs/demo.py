"""The demo model: plans and draws scenes of 1-12 subjects at 128 x 128, small enough to ship.

    python -m macro.sample --config=configs/demo.py --workdir=runs/demo              draw with the shipped weights
    python -m macro.train --config=configs/demo.py --workdir=runs/demo_train         make such weights

Training reads the shipped VAE (configs/demo_vae.py) and renders its 20,000 samples first. Two CPU cores or any
accelerator; ":smoke" does 20 steps on 64 samples. What came out stands in experiments/LOG.md.
"""

from ml_collections import ConfigDict

from macro.utils.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise UserError(f"configs/demo.py:{arg}: the argument can only be smoke")
    smoke = arg == "smoke"
    config = ConfigDict()
    config.total_steps = 20 if smoke else 6000
    config.save_every_steps = 10 if smoke else 250
    config.eval_every_steps = 0 if smoke else 1000
    config.log_every_steps = 5 if smoke else 20
    config.keep_checkpoints = 2
    config.batch_size = 2 if smoke else 4  # rows
    config.seed = 0

    config.objective = "joint"
    config.loss = {"plan": 0.5, "draw": 0.5}
    config.tasks = ("compose",)
    config.init_from = {"vae": "macro/assets/demo.safetensors"}
    config.model = {
        "variant": "XS/128",
        "llm": {"vocab": 768},
        "vae": {"scale": 0.737, "shift": -0.018},  # configs/demo_vae.py: 1 / latent_std, latent_mean
    }

    config.data = {
        "name": "scenes",
        "num": 64 if smoke else 20_000,
        "seed": 1,
        "dir": "",
        "workers": 1,
        "tokenizer": "",
        "size": 128,
        "reference_size": 48,
        "rays": 4,
    }
    # A row holds three samples: longer ones would fill better, but attention's cost grows with their square.
    config.packing = {
        "text": 640,
        "vision": 144,
        "latent": 384,
        "samples": 3,
        "buckets": ((128, 128, 3),),
        "draws": 2,
        "window": 64 if smoke else 512,
        "reference_max_side": 48,
        "reference_vae": False,
    }
    config.dropout = {"no_text": 0.1, "no_image": 0.1, "null": 0.1}
    config.optim = {
        "name": "muon",
        "lr": 3e-3,
        "warmup_steps": 5 if smoke else 50,
        "schedule": "cosine",
        "clip": 1.0,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.01,
        "ema": 0.999,
    }
    config.demo = {
        "weights": "demo",
        "instruction": "the <image 1> robot is left of the <image 2> flower, which is left of the <image 3> cat. "
        "the <image 4> house is behind the flower. all on green grass under a blue sky.",
        "images": tuple(f"data/fixtures/{name}.png" for name in ("robot", "flower", "cat", "house")),
    }
    config.sampling = {
        "steps": 25,
        "shift": 1.0,
        "guidance": {"name": "inset", "text": 3.0, "balance": 1.5},
    }
    return config
