"""MUSIC: think, lay out, then draw; LoRA on a model of seven billion parameters (arXiv 2604.07422).

    python -m macro.convert --from=bagel --source=BAGEL-7B-MoT --out=weights/bagel                     29 GB, once
    python -m macro.train --config=configs/music_7b.py --workdir=runs/music

MUSIC stands on SEED-X; here its recipe goes onto BAGEL. Its 10,000 samples of up to 12 subjects come from our scenes,
with exact thoughts and layouts, and are rendered first. ":smoke" does 20 steps of a very small model.

Hardware: the paper's 8 A100; parameters in float32 are 58 GB; what is trained (adapters, and embeddings and heads in
full) with gradient, moments and average 29 GB; within a step the kernels with their adapters added 52 GB more.
Expected, by the paper (MSIC, DINO / CLIP-I / CLIP-T): .622 / .812 / .322, best of several plans .631 / .822 / .330.
Not trained by us. Sources: [paper]; [seed-x] fine-tuning script of github.com/AILab-CVC/SEED-X, which it stands on;
[ours].
"""

from ml_collections import ConfigDict

from macro.utils import experiment

SAMPLES, EPOCHS = 10_000, 10  # [paper]
ROWS, SAMPLES_PER_ROW = 8, 2  # 8 GPUs [paper], one row each; what a row holds: [ours]


def get_config(arg: str = "") -> ConfigDict:
    config = experiment.defaults()
    config.total_steps = EPOCHS * SAMPLES // (ROWS * SAMPLES_PER_ROW)
    config.save_every_steps = 500
    config.eval_every_steps = 500
    config.batch_size = ROWS
    config.save_dtype = "bfloat16"

    config.init_from = {part: "weights/bagel/model.safetensors" for part in ("composer", "vae")}
    config.model = {"variant": "7B/1024", "dtype": "bfloat16", "remat": "full", "timestep_shift": 3.0}  # [ours] BAGEL's
    config.loss = {"ce_weight": 0.5, "mse_weight": 0.5}  # [paper] w1, w2
    config.lora.preset = "music"  # [paper] rank 64, alpha 64; [seed-x] what is adapted

    config.data = {
        "name": "scenes",
        "num": SAMPLES,
        "seed": 1,
        "dir": "",
        "workers": 8,
        "tokenizer": "weights/bagel/bagel/tokenizer.json",
        "arrangement": "as_given",  # mostly in-sentence, a quarter image-first, as scenes are
        "size": 512,  # [ours]
        "reference_size": 224,  # [ours]
        "rays": 4,
        "min_area": 0.01,  # [paper] the smallest box, as a share of the image
    }
    config.packing.update(
        {
            # [ours] Two samples of twelve references of 224 pixels and a target of 512.
            "text": 2048,
            "vision": 6144,
            "latent": 2048,
            "samples": 4,
            "buckets": ((512, 512, 2),),
            "noise_draws": 1,
            "window": 512,
            "reference_max_side": 224,
        }
    )
    config.optim = {
        "name": "adamw",
        "lr": 1e-4,  # [paper]
        "warmup_steps": 500,  # [seed-x]
        "schedule": "cosine",  # [seed-x]
        "grad_clip_norm": 1.0,  # [ours]
        "b1": 0.9,  # [seed-x]
        "b2": 0.98,  # [seed-x]
        "eps": 1e-6,  # [seed-x]
        "weight_decay": 0.05,  # [seed-x]
        "ema_decay": 0.999,  # [ours]
    }
    config.sampling = {
        "use_planner": True,
        "num_timesteps": 50,  # [ours]
        "timestep_shift": 3.0,
        "cfg_text_scale": 4.0,  # [ours] INSET's
        "cfg_overall_scale": 1.5,  # [ours] INSET's
        "step_cache": experiment.step_cache(),
        "token_selection": experiment.token_selection(),
    }
    return experiment.recipe(config, arg, "configs/music_7b.py")
