"""A tiny objective and a tiny data iterator with the protocols of the real ones; used by all tests of
training.
"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

SAMPLES = 64
FEATURES = 5


def get_config(total_steps=12, **changes):
    config = ConfigDict(
        {
            "total_steps": total_steps,
            "save_every_steps": 4,
            "eval_every_steps": 0,
            "log_every_steps": 1,
            "checkpoint": {"keep_latest": 2, "keep_every_steps": 0, "keep_best": 0},
            "batch_size": 2,
            "seed": 3,
            "optim": {"lr": 0.05, "warmup_steps": 2, "grad_clip_norm": 1.0, "weight_decay": 0.01, "ema_decay": 0.9},
        }
    )
    config.update(changes)
    return config


class Objective:
    """Noisy linear regression through a frozen matrix."""

    FROZEN = ("^eye/",)
    AXES = ((r"^line/kernel$", ("width", None)), (r".", ()))

    @staticmethod
    def init(key, config):
        return {
            "eye": {"kernel": jnp.eye(FEATURES)},
            "line": {"kernel": jax.random.normal(key, (FEATURES, 1)), "bias": jnp.zeros(1)},
        }

    @staticmethod
    def cast_frozen(params, config):
        return params

    @staticmethod
    def totals(batch, config):
        return {"tokens": jnp.sum(batch["text"]["segment_ids"] >= 0)}

    @staticmethod
    def loss(params, batch, key, config, totals):
        x = batch["text"]["x"] @ params["eye"]["kernel"]
        y = (x @ params["line"]["kernel"] + params["line"]["bias"])[..., 0]
        if "lora" in params:
            pair = params["lora"]["line"]["kernel"]
            y = y + ((x @ pair["a"]) @ pair["b"])[..., 0]
        noise = 0.01 * jax.random.normal(key, y.shape)
        held = batch["text"]["segment_ids"] >= 0
        error = jnp.sum(jnp.square(y + noise - batch["text"]["y"]) * held) / totals["tokens"]
        return error, {"draw": error, "draw/edit": jnp.nan}

    @staticmethod
    def report(metrics):
        return metrics


class Data:
    """Rows of up to 4 samples, 8 rows a window; sample i of the endless stream follows from i."""

    def __init__(self, batch_size=2, broken_at=None):
        self.batch_size, self.broken_at = batch_size, broken_at
        self.state = {"window": 0, "row": 0}
        self.served = []

    def get_state(self):
        return dict(self.state)

    def set_state(self, state):
        self.state = dict(state)

    def __next__(self):
        first = self.state["window"] * 8 + self.state["row"]
        rows = np.arange(first, first + self.batch_size)
        window, row = divmod(first + self.batch_size, 8)
        self.state = {"window": window, "row": row}
        examples = rows[:, None] * 4 + np.arange(4)
        examples[:, 3] = -1  # three samples a row
        self.served += [int(i) for i in examples.reshape(-1) if i >= 0]
        x = np.stack(
            [[np.random.default_rng(max(i, 0)).normal(size=FEATURES) for i in row] for row in examples]
        )
        if self.broken_at in examples:
            x[:] = np.nan
        y = x @ np.arange(1.0, FEATURES + 1) + 0.5
        sample = np.where(examples >= 0, np.arange(4), -1)
        text = {"x": x.astype(np.float32), "y": y.astype(np.float32), "segment_ids": sample.astype(np.int32)}
        return {"text": text, "examples": examples.astype(np.int32)}
