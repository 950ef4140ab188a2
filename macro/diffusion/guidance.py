"""Classifier-free guidance: a weighted sum of the velocities that the model predicts in several contexts.

A *context* is the sentence with some spans left out (`macro/sampling/contexts.py` builds them):

    full       everything            no_text    images only: text, plan and binding gone
    null       nothing               no_image   text and plan only

Guidance starts at the full context and is pushed away from each baseline in turn:

    g = v[full];    for (baseline, scale) in stages:   g = v[baseline] + scale (g - v[baseline])

so with two stages the net weights are s2 s1 (full), s2 (1 - s1) (first baseline), 1 - s2 (second).

    INSET (arXiv 2605.12305)    no_text 4 (its s1), null 1.5 (its s2)    -> 6, -4.5, -0.5
    BAGEL (arXiv 2505.14683)    no_text s_t, no_image s_i, then the sum is renormalised to the norm of v[full]

The weighted sum can outgrow every velocity that the model was trained to predict; *renormalising* by
clip(|v[full]| / |g|, renorm_min, 1) only ever shrinks it. Norms are per sample over all values (`global`) or per
token over its channels (`channel`); `text_channel` is `channel` after the text stage and nothing after the
image stage; `batch` is one norm for all samples together, used only for parity with BAGEL.
Guidance can be restricted to times low < t <= high (t of the sampler, after its shift).
Read next: `macro/sampling/denoise.py`.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from macro.utils.errors import UserError

CONTEXTS = ("full", "no_text", "no_image", "null")
RENORMS = ("none", "global", "channel", "text_channel", "batch")
_AXES = {"global": (-2, -1), "batch": None}  # axes of the norm; else the channels
_EPS = 1e-8  # BAGEL's value: keeps the ratio finite where the guided velocity vanishes


@dataclasses.dataclass(frozen=True)
class Guidance:
    """Which contexts guidance uses and how; hashable, so it can be static under jit.

    Attributes:
        stages: (baseline context, scale) in order of application.
        interval: (low, high): guidance applies at times low < t <= high.
        renorm: one of `RENORMS`.
        renorm_min: the smallest factor that renormalising may apply.
    """

    stages: tuple[tuple[str, float], ...] = ()
    interval: tuple[float, float] = (0.0, 1.0)
    renorm: str = "none"
    renorm_min: float = 0.0

    def __post_init__(self):
        for name, _ in self.stages:
            if name not in CONTEXTS[1:]:
                raise UserError(f"guidance: no baseline context {name!r}; use {', '.join(CONTEXTS[1:])}")
        if self.renorm not in RENORMS:
            raise UserError(f"guidance: no renorm {self.renorm!r}; use one of {', '.join(RENORMS)}")

    @classmethod
    def from_scales(
        cls,
        cfg_text_scale: float = 1.0,
        cfg_img_scale: float = 1.0,
        cfg_overall_scale: float = 1.0,
        cfg_interval: tuple[float, float] = (0.0, 1.0),
        cfg_renorm_type: str = "none",
        cfg_renorm_min: float = 0.0,
        as_released: bool = False,
    ) -> "Guidance":
        """Guidance from BAGEL's options; as there, a scale of at most 1 switches its stage off.

        Args:
            cfg_text_scale: away from the context without text. INSET's s1, the balance between text and images.
            cfg_img_scale: away from the context without images.
            cfg_overall_scale: the result away from the empty context. INSET's s2, the overall strength.
            as_released: as in the released BAGEL code, no image guidance without text guidance, and `global` is one
                norm for the whole batch.
        """
        scales = (("no_text", cfg_text_scale), ("no_image", cfg_img_scale), ("null", cfg_overall_scale))
        stages = tuple((name, scale) for name, scale in scales if scale > 1)
        if not stages or as_released and cfg_text_scale <= 1:
            return cls()
        renorm = "batch" if as_released and cfg_renorm_type == "global" else cfg_renorm_type
        return cls(stages, cfg_interval, renorm, cfg_renorm_min)

    @property
    def contexts(self) -> tuple[str, ...]:
        """The contexts to evaluate, `full` first, each once."""
        return tuple(dict.fromkeys(("full", *(name for name, _ in self.stages))))

    @property
    def weights(self) -> dict[str, float]:
        """Each context's net weight before renormalising; they always add up to 1."""
        weights = {name: 0.0 for name in self.contexts}
        weights["full"] = 1.0
        for name, scale in self.stages:
            weights = {key: scale * weight for key, weight in weights.items()}
            weights[name] += 1 - scale
        return weights

    @property
    def always(self) -> bool:
        """Whether the interval covers every time that a sampler evaluates (0 < t <= 1)."""
        return self.interval[0] <= 0 and self.interval[1] >= 1

    def active(self, t):
        """Whether guidance applies at time `t`; outside, the velocity is that of the full context."""
        return (t > self.interval[0]) & (t <= self.interval[1])


def guide(guidance: Guidance, velocities: Mapping[str, Float[Array, "b n c"]]) -> Float[Array, "b n c"]:
    """The guided velocity from the velocities of all `guidance.contexts`."""
    full = guided = velocities["full"]
    axes = _AXES.get(guidance.renorm, (-1,))
    for name, scale in guidance.stages:
        guided = velocities[name] + scale * (guided - velocities[name])
        if guidance.renorm == "text_channel" and name == "no_text":
            guided = _shrink(guided, full, axes, guidance.renorm_min)
    if guidance.renorm in ("global", "channel", "batch") and guidance.stages:
        guided = _shrink(guided, full, axes, guidance.renorm_min)
    return guided


def _shrink(guided, full, axes, renorm_min):
    """Scales `guided` down to the norm of `full` over `axes`, by a factor between `renorm_min` and 1."""

    def norm(v):
        return jnp.sqrt(jnp.sum(jnp.square(v), axis=axes, keepdims=True))

    return guided * jnp.clip(norm(full) / (norm(guided) + _EPS), renorm_min, 1.0)
