"""Small BAGEL checkpoints with random tensors, as they would lie on disk."""

import json

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from macro.models.checkpoints.bagel import checkpoint, convert
from macro.models.variants import LLMConfig, ModelConfig, VAEConfig, VisionConfig

CONFIG = ModelConfig(
    llm=LLMConfig(width=16, mlp=24, layers=3, heads=4, kv_heads=2, head_dim=4, vocab=40),
    vision=VisionConfig(width=12, mlp=20, layers=2, heads=3, patch=14, side=5),
    vae=VAEConfig(channels=32, multipliers=(1, 2), res_blocks=2, z=4),
    latent_side=6,
    binding=False,
    timestep_shift=3.0,
)


def tensors(config=CONFIG, seed=0):
    """Two dicts of random tensors: those of ema.safetensors in bfloat16, those of ae.safetensors in float32."""
    rng = np.random.default_rng(seed)
    ema, ae = {}, {}
    for mapping in convert.tensor_mappings(config):
        values = rng.normal(size=mapping.shape).astype(np.float32)
        (ae if mapping.path.startswith("vae/") else ema)[mapping.key] = (
            values if mapping.path.startswith("vae/") else values.astype(ml_dtypes.bfloat16)
        )
    for key, shape in convert.fixed_tables(config).items():
        ema[key] = rng.normal(size=shape).astype(ml_dtypes.bfloat16)
    return ema, ae


def write(path, ema, ae, config=CONFIG):
    """The folder that holds them."""
    path.mkdir(parents=True, exist_ok=True)
    save_file(ema, path / "ema.safetensors", metadata={"format": "pt"})
    save_file(ae, path / "ae.safetensors")
    for name, values in checkpoint.json_configs(config).items():
        (path / name).write_text(json.dumps(values))
    return path
