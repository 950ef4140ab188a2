"""The demo model's autoencoder: 128 x 128 renders to 16 x 16 x 16 latents and back.

    python -m macro.train --config=configs/demo_vae.py --workdir=runs/demo_vae

It is trained on 4,096 targets like those of configs/demo.py, on one square of 64 x 64 an image and step: that
costs a quarter, and nothing in the model knows an image's size.
`latent_mean` and `latent_std` of the last records give `shift` and `scale` = 1 / std, below and in
configs/demo.py. ":smoke" does 20 steps on 64 samples.
"""

from ml_collections import ConfigDict

from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = experiment.defaults()
    config.total_steps = 4000
    config.save_every_steps = 500
    config.eval_every_steps = 0
    config.log_every_steps = 50
    config.batch_size = 1  # rows of eight images

    config.objective = "autoencoder"
    config.crop = 64
    config.loss = {"edges": 0.5, "kl": 1e-3}
    config.model = {"variant": "XS/128", "llm": {"vocab": 768}}

    config.data.update({"num": 4096, "seed": 1, "size": 128, "reference_size": 48, "rays": 4})
    # Only the pixels are used: streams so wide that eight samples always fit, and no slot stays empty.
    config.packing.update({"text": 4096, "vision": 1024, "latent": 512, "samples": 8, "noise_draws": 1, "window": 512})
    config.packing.buckets = ((128, 128, 8),)
    config.packing.reference_max_side = 48
    config.cfg_dropout.update({"no_text": 0.0, "no_image": 0.0, "null": 0.0})
    # Muon: 1.7 dB ahead of AdamW after a minute's training of either.
    config.optim.update({"name": "muon", "lr": 5e-3, "warmup_steps": 50, "b2": 0.99, "ema_decay": 0.998})
    config.optim.weight_decay = 0.0
    return experiment.sized(config, arg, "configs/demo_vae.py")
