"""The demo model's autoencoder: 128 x 128 renders to 16 x 16 x 16 latents and back.

    python -m macro.train --config=configs/demo_vae.py --workdir=runs/demo_vae

It is trained on 4,096 targets like those of configs/demo.py, on one square of 64 x 64 a picture and step: that
costs a quarter, and nothing in the model knows a picture's size.
`latent_mean` and `latent_std` of the last records give `shift` and `scale` = 1 / std, below and in
configs/demo.py. ":smoke" does 20 steps on 64 samples.
"""

from ml_collections import ConfigDict

from macro.utils.errors import UserError


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", "smoke"):
        raise UserError(f"configs/demo_vae.py:{arg}: the argument can only be smoke")
    smoke = arg == "smoke"
    config = ConfigDict()
    config.total_steps = 20 if smoke else 6000
    config.save_every_steps = 10 if smoke else 500
    config.eval_every_steps = 0
    config.log_every_steps = 5 if smoke else 50
    config.keep_checkpoints = 2
    config.batch_size = 1  # rows of eight pictures
    config.seed = 0

    config.objective = "autoencode"
    config.crop = 64
    config.loss = {"edges": 0.5, "kl": 1e-3}
    config.tasks = ("compose",)
    config.init_from = {}
    config.model = {"variant": "XS/128", "llm": {"vocab": 768}}

    config.data = {
        "name": "scenes",
        "num": 64 if smoke else 4096,
        "seed": 1,
        "dir": "",
        "workers": 1,
        "tokenizer": "",
        "size": 128,
        "reference_size": 48,
        "rays": 4,
    }
    # Only the pixels are used: streams so wide that eight samples always fit, and no slot stays empty.
    config.packing = {
        "text": 4096,
        "vision": 1024,
        "latent": 512,
        "samples": 8,
        "buckets": ((128, 128, 8),),
        "draws": 1,
        "window": 64 if smoke else 512,
        "reference_max_side": 48,
        "reference_vae": False,
    }
    config.dropout = {"no_text": 0.0, "no_image": 0.0, "null": 0.0}
    config.optim = {
        "name": "muon",  # 1.7 dB ahead of AdamW after a minute's training of either
        "lr": 5e-3,
        "warmup_steps": 5 if smoke else 50,
        "schedule": "cosine",
        "clip": 1.0,
        "b1": 0.9,
        "b2": 0.99,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "ema": 0.998,
    }
    config.sampling = {"steps": 10, "shift": 1.0}
    return config
