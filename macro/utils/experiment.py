"""The defaults shared by the experiments of `configs/`, so that a config file sets only what differs.

    def get_config(arg: str = "") -> ConfigDict:
        config = experiment.defaults()
        config.total_steps = 300
        ...
        return experiment.sized(config, arg, "configs/x.py")
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from macro.utils.errors import UserError


def step_cache() -> dict:
    """`config.sampling.step_cache`: off, but with all its keys, so that the command line can set them."""
    return {"name": "none", "interval": placeholder(int), "order": placeholder(int), "limit": placeholder(float)}


def token_selection() -> dict:
    """`config.token_selection`, `config.sampling.token_selection`: keeps every image token, with all keys present.

    With `keep` or `budget` set some tokens are left out.
    """
    return {
        "keep": placeholder(float),
        "budget": placeholder(int),
        "method": "text",
        "min_tokens": 1,
        "layers": (),
        "cross_image_weight": 1.0,
    }


def parallel() -> dict:
    """How work is sharded over devices (`macro/parallel/mesh.py`)."""
    return {"preset": "fsdp", "tensor": 1, "sequence": 1, "slices": 0, "rules": ()}


def defaults() -> ConfigDict:
    """The settings of a joint training on rendered scenes; a config file sets sizes, data and duration."""
    config = ConfigDict()
    config.total_steps = 300
    config.save_every_steps = 100
    config.eval_every_steps = 100
    config.log_every_steps = 10
    # Which checkpoints are kept: the newest, every multiple of a number of steps, those of lowest mean loss; 0: none.
    config.checkpoint = {"keep_latest": 2, "keep_every_steps": 0, "keep_best": 0}
    config.max_bad_steps = 3  # consecutive steps with a loss or gradient that is not finite before the run stops
    config.batch_size = 2  # packed sequences
    config.grad_accum_steps = 1  # parts of a batch that are computed one after another
    config.seed = 0
    config.save_dtype = "float32"  # of model.safetensors; training itself is in float32

    config.objective = "joint"
    config.loss = {"ce_weight": 0.5, "mse_weight": 0.5}
    config.tasks = ("compose",)
    config.init_from = {}
    config.token_selection = token_selection()  # which image tokens the later layers attend to

    config.data = {
        "name": "scenes",
        "num": 512,
        "seed": 0,
        "dir": "",
        "workers": 1,
        "tokenizer": "",
        "arrangement": "as_given",
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
        "noise_draws": 2,
        "window": 256,
        "max_upscale": 2.0,
        "reference_max_side": 32,
        "reference_min_side": 0,
        "reference_vae": False,
    }
    # Condition dropout for guidance. "joint" cuts a sample down to one of guidance's contexts; "per_item" is the rule
    # that BAGEL and MACRO published: each text, ViT copy and VAE copy is dropped independently at the rates `per_item`.
    config.cfg_dropout = {"mode": "joint", "no_text": 0.1, "no_image": 0.1, "null": 0.1, "per_item": (0.1, 0.3, 0.3)}
    config.optim = {
        "name": "adamw",
        "lr": 2e-3,
        "warmup_steps": 20,
        "schedule": "cosine",
        "grad_clip_norm": 1.0,  # 0: off
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.01,
        "ema_decay": 0.99,
    }
    config.freeze = ()  # patterns of parameters to freeze, besides those the objective never trains
    # No LoRA. A preset ("music") turns it on; fields that are not None override the preset's, or set it up alone.
    config.lora = {
        "preset": "",
        "rank": placeholder(int),
        "alpha": placeholder(float),
        "dropout": placeholder(float),
        "target_modules": placeholder(tuple),
        "modules_to_save": placeholder(tuple),
    }
    config.sampling = {
        "num_timesteps": 10,
        "timestep_shift": 1.0,
        "cfg_text_scale": 4.0,
        "cfg_overall_scale": 1.5,
        "use_planner": True,
        "step_cache": step_cache(),
        "token_selection": token_selection(),
    }
    config.parallel = parallel()
    return config


def sized(config: ConfigDict, arg: str, file: str) -> ConfigDict:
    """The config unchanged for an empty argument, or cut down to 20 quick steps for "smoke".

    Raises:
        UserError: another argument; `file` is named in it.
    """
    if arg not in ("", "smoke"):
        raise UserError(f"{file}:{arg}: the argument can only be smoke")
    if arg == "smoke":
        config.update({"total_steps": 20, "save_every_steps": 10, "eval_every_steps": 0, "log_every_steps": 5})
        config.batch_size = min(config.batch_size, 2)
        config.data.num = config.packing.window = 64
        config.optim.warmup_steps = 5
    return config


def recipe(config: ConfigDict, arg: str, file: str) -> ConfigDict:
    """As `sized`, for recipes of models too large for a small machine: ":smoke" also replaces the model by the smallest
    one, without initial weights, and the data by rendered scenes.
    """
    if arg == "smoke":
        small = defaults()
        with config.unlocked():
            config.init_from = {}
            config.model.update({"variant": "XXS/64", "llm": {"vocab": 768}})
            config.data, config.tasks = small.data, small.tasks
            sizes = ("text", "vision", "samples", "window", "reference_max_side", "reference_min_side")
            config.packing.update({name: small.packing[name] for name in sizes})
            # Room for clean VAE copies of twelve references, which the recipe may or may not have.
            config.packing.update({"latent": 512, "buckets": ((64, 64, 32),)})
    return sized(config, arg, file)
