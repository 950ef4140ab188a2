"""The optimizer: AdamW or Muon after a clip by global norm, a learning rate with warm-up, and a running average of
weights.

    AdamW  p  <-  p - lr(t) * (m / (sqrt(v) + eps) + weight_decay * p)        decay on matrices only
    Muon   p  <-  p - lr(t) * (orthogonalised m + weight_decay * p)           kernels; the rest as above
    ema    <- d(t) * ema + (1 - d(t)) * p,     d(t) = min(ema, (1 + t) / (10 + t))
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from macro.utils import config as config_lib
from macro.utils import tree
from macro.utils.errors import UserError

SCHEDULES = ("cosine", "constant")
# Root mean square of an orthogonal update: the usual one of Adam's updates (arXiv 2502.16982, section 2.2), so
# that both can use one learning rate.
MUON_RMS = 0.2
# Under `scan` a layer's vectors are stacked to two dimensions, so vectors are recognised by name.
VECTORS = ("bias", "scale")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """`config.optim`. `lr` is the peak; `grad_clip_norm` the largest global norm of a gradient (0, None: no clipping);
    `ema_decay` the limit of the running average's decay. `name` is "adamw" or "muon"; Muon makes each matrix's update
    orthogonal, with the usual RMS of Adam's, and everything that is not a matrix uses AdamW.
    """

    lr: float
    warmup_steps: int
    name: str = "adamw"
    schedule: str = "cosine"
    grad_clip_norm: float | None = 1.0
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    ema_decay: float = 0.999

    def __post_init__(self):
        if self.name not in RULES:
            raise UserError(f"config.optim.name={self.name!r}: choose one of {', '.join(RULES)}")
        if self.schedule not in SCHEDULES:
            raise UserError(f"config.optim.schedule={self.schedule!r}: choose one of {', '.join(SCHEDULES)}")
        for name in ("lr", "eps"):
            if getattr(self, name) <= 0:
                raise UserError(f"config.optim.{name}={getattr(self, name)}: must be above 0")
        for name in ("b1", "b2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"config.optim.{name}={getattr(self, name)}: must be at least 0 and below 1")
        for name in ("warmup_steps", "weight_decay", "grad_clip_norm"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"config.optim.{name}={getattr(self, name)}: must not be below 0")


def optim_config(config) -> OptimConfig:
    """Reads and checks `config.optim`."""
    return config_lib.from_config(OptimConfig, config.optim, "optim")


def learning_rate(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """Learning rate of the step after `t` finished ones.

    Rises linearly over `warmup_steps` (it is above 0 in the first step), then stays constant, or falls along a
    cosine to 0 at `total_steps`.
    """
    warmup = min(config.warmup_steps, total_steps)
    if config.schedule == "constant":
        after = optax.constant_schedule(config.lr)
    else:
        after = optax.cosine_decay_schedule(config.lr, max(total_steps - warmup, 1))
    if warmup == 0:
        return after
    rise = optax.linear_schedule(config.lr / (warmup + 1), config.lr, warmup)
    return optax.join_schedules([rise, after], [warmup])


def optimizer(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """Clip, then AdamW or Muon; to be initialised with the trained parameters only."""
    rule = RULES[config.name](config, learning_rate(config, total_steps))
    clip = optax.clip_by_global_norm(config.grad_clip_norm) if config.grad_clip_norm else optax.identity()
    return optax.chain(clip, rule)


def _adamw(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed)


def _muon(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    muon = optax.contrib.muon(
        rate,
        consistent_rms=MUON_RMS,
        weight_decay=config.weight_decay,
        eps=config.eps,
        muon_weight_dimension_numbers=orthogonal,
    )
    # Not Muon's own Adam, which decays everything.
    adam = optax.adamw(
        rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decayed, nesterov=True
    )

    def labels(params: Mapping) -> dict:
        return tree.unflatten({p: "muon" if _dimensions(p, x) else "adam" for p, x in tree.flatten(params).items()})

    return optax.partition({"muon": muon, "adam": adam}, labels)


RULES = {"adamw": _adamw, "muon": _muon}


def orthogonal(params: Mapping) -> dict:
    """Muon's view of each parameter: its reduction axes and its output axes; None where AdamW is used.

    Kernels of stacked layers have their layer axis in front, those of convolutions the window's two axes.
    Embeddings, the language head and position tables are look-up tables, not linear maps, and use AdamW.
    """
    flat = tree.flatten(params)
    return tree.unflatten({path: _dimensions(path, leaf) for path, leaf in flat.items()})


def _dimensions(path: str, leaf: jax.Array | optax.MaskedNode) -> optax.contrib.MuonDimensionNumbers | None:
    # optax calls this again with the parameters that Muon does not update masked out.
    if not path.endswith("kernel") or isinstance(leaf, optax.MaskedNode):
        return None
    ndim = leaf.ndim
    inputs = (ndim - 2,) if ndim < 4 else tuple(range(ndim - 1))
    return optax.contrib.MuonDimensionNumbers(inputs, ndim - 1)


def decayed(params: Mapping) -> dict:
    """True for matrices, False for biases and the scales of norms; same tree as `params`."""

    def is_matrix(path: str, leaf: jax.Array | optax.MaskedNode) -> bool:
        # optax calls this with the parameters that Muon updates masked out.
        return not isinstance(leaf, optax.MaskedNode) and leaf.ndim >= 2 and path.rsplit("/", 1)[-1] not in VECTORS

    return tree.unflatten({path: is_matrix(path, leaf) for path, leaf in tree.flatten(params).items()})


def ema_decay(t: jax.Array | int, limit: float) -> jax.Array:
    """Decay of the running average after `t` steps: near 0 at first, so that it forgets the initial
    weights.
    """
    return jnp.minimum(limit, (1.0 + t) / (10.0 + t))
