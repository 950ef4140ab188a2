"""The demo model: plans and draws scenes of 1-12 subjects at 128 x 128, small enough to ship.

    python -m macro.sample --config=configs/demo.py --workdir=runs/demo              draw with the shipped weights

It was made in three steps, each of which reads what the one before wrote:

    python -m macro.train --config=configs/demo_vae.py --workdir=runs/demo_vae       autoencoder; or the shipped one
    python -m macro.train --config=configs/demo_first.py --workdir=runs/demo_first   scenes of 1-3 subjects
    python -m macro.train --config=configs/demo.py --workdir=runs/demo_train         1-12

Training renders its 8,192 samples first. Two CPU cores or any accelerator; ":smoke" does 20 steps on 64 samples,
from scratch. What came out stands in experiments/LOG.md.
"""

from ml_collections import ConfigDict

from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = experiment.defaults()
    config.total_steps = 2300
    config.save_every_steps = 200
    config.eval_every_steps = 1200
    config.log_every_steps = 20
    config.batch_size = 4
    config.save_dtype = "bfloat16"

    config.init_from = {"vae": "macro/assets/demo.safetensors"}
    if not arg:
        config.init_from.composer = "runs/demo_first/model.safetensors"
    config.model = {
        "variant": "XS/128",
        "llm": {"vocab": 768},
        "binding_init": 1.0,
        "timestep_shift": 3.0,
        "vae": {"scale": 0.737, "shift": -0.018},  # 1 / latent_std and latent_mean of the shipped autoencoder
    }

    config.data.update({"num": 8192, "seed": 1, "size": 128, "reference_size": 48, "rays": 4})
    config.packing.update({"text": 640, "vision": 144, "latent": 384, "samples": 3, "window": 512})
    config.packing.buckets = ((128, 128, 3),)
    config.packing.reference_max_side = 48
    config.optim.update({"name": "muon", "lr": 3e-3, "warmup_steps": 50, "ema_decay": 0.998})

    config.demo = {
        "weights": "demo",
        "instruction": "the <image 1> robot is left of the <image 2> flower. both on green grass under a blue sky.",
        "images": tuple(f"data/fixtures/{name}.png" for name in ("robot", "flower")),
    }
    config.sampling = {
        "use_planner": True,
        "num_timesteps": 25,
        "timestep_shift": 3.0,
        "cfg_text_scale": 3.0,
        "cfg_overall_scale": 1.5,
        "step_cache": experiment.step_cache(),
        "token_selection": experiment.token_selection(),
    }
    return experiment.sized(config, arg, "configs/demo.py")
