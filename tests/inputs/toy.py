"""Sizes that the sentences of `conftest.py`'s fixtures fill well."""

from macro.inputs.packing import PackingConfig

PACKING = PackingConfig(
    text=1000,
    vision=28,
    latent=32,
    samples=4,
    buckets=((32, 32, 4),),
    noise_draws=2,
    window=24,
    reference_max_side=16,
)
