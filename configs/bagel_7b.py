"""BAGEL-7B-MoT with the settings of its released training script, on samples of your own.

    python -m macro.convert --from=bagel --source=BAGEL-7B-MoT --out=weights/bagel                     29 GB, once
    python -m macro.train --config=configs/bagel_7b.py --workdir=runs/bagel --config.data.dir=samples

`samples` holds folders `text_to_image` and `edit` of JSON files with their images (`macro/sentence/prompt.py`). The
other recipes for BAGEL start from this one. ":smoke" does 20 steps of a very small model on rendered scenes.

Hardware: an accelerator slice. Parameters, gradient, two moments and average of 14.6 billion parameters are 292 GB in
float32 before any activation. Not trained by us: shapes, counts and ":smoke" are what the tests hold.
Sources: [script] defaults of the training script of github.com/ByteDance-Seed/Bagel; [data] its example data config;
[release] the released weights' config files; [ours] where these are silent.
"""

from ml_collections import ConfigDict

from macro.utils import experiment


def get_config(arg: str = "") -> ConfigDict:
    config = experiment.defaults()
    config.total_steps = 500_000  # [script]
    config.save_every_steps = 2000  # [script]
    config.eval_every_steps = 2000  # [ours]
    config.log_every_steps = 10  # [ours]
    config.batch_size = 8  # rows; [script] one a GPU, shards of 8
    config.seed = 4396  # [script]; its data has a seed of its own, 42
    config.save_dtype = "bfloat16"  # [release]

    config.init_from = {part: "weights/bagel/model.safetensors" for part in ("composer", "vae")}
    config.model = {
        "variant": "7B/1024",  # [release] max_latent_size 64: 64 latent tokens of 16 pixels
        "binding": False,  # BAGEL knows no subjects
        "dtype": "bfloat16",  # [script]
        "remat": "full",  # [script] activation checkpointing of every layer
        "timestep_shift": 1.0,  # [script]
    }
    config.loss = {"ce_weight": 1.0, "mse_weight": 1.0}  # [script]

    config.data = {
        "name": "files",
        "dir": "",
        "mix": (("text_to_image", 1.0), ("edit", 1.0)),  # [data] equal weights
        "arrangement": "in_sentence",  # [data] an edit: the image, then its instruction
        "workers": 8,  # [ours]
        "tokenizer": "weights/bagel/bagel/tokenizer.json",
    }
    config.tasks = ("text_to_image", "edit", "compose")  # the last: files that name no task
    config.packing.update(
        {
            # [script] a row is 32,768 tokens, at most 36,864, of any kind; how they are shared out: [ours]
            "text": 4096,
            "vision": 16_384,
            "latent": 16_384,
            "samples": 32,
            # Sides of 512 to 1024 [data]; shapes and slots [ours]: as many of each as the latents have room for.
            "buckets": (
                *((1024, 1024, 4), (768, 1024, 5), (1024, 768, 5), (576, 1024, 7), (1024, 576, 7)),
                *((512, 512, 8), (512, 688, 6), (688, 512, 6)),
            ),
            "noise_draws": 1,  # [script]
            "window": 512,  # [ours]
            "reference_max_side": 518,  # [data] ViT's transform in editing, in training and drawing alike
            "reference_min_side": 224,  # [data]
            "reference_vae": True,  # [script] a given image is seen by VAE and ViT
        }
    )
    # [ours] joint dropout. [script] drops each text, ViT and VAE copy for itself, so that several references are hardly
    # ever all dropped: --config.cfg_dropout.mode=per_item, whose default shares are [script].
    config.optim = {
        "name": "adamw",
        "lr": 1e-4,  # [script]
        "warmup_steps": 2000,  # [script]
        "schedule": "constant",  # [script]
        "grad_clip_norm": 1.0,  # [script]
        "b1": 0.9,  # [script]
        "b2": 0.95,  # [script]
        "eps": 1e-15,  # [script]
        "weight_decay": 0.0,  # [script]
        "ema_decay": 0.9999,  # [script]
    }
    # What upstream recommends for editing; configs/bagel_sample.py has more.
    config.sampling = {
        "cfg_text_scale": 4.0,
        "cfg_img_scale": 2.0,
        "cfg_interval": (0.0, 1.0),
        "cfg_renorm_type": "text_channel",
        "step_cache": experiment.step_cache(),
        "token_selection": experiment.token_selection(),
    }
    return experiment.recipe(config, arg, "configs/bagel_7b.py")
