"""The logical axes of the model's parameters, which `macro/parallel/sharding.py` shards over a mesh.

Kernels are sharded; biases, norm scales and tables with few rows are small and replicated, so that a layer does not
wait for a gather of kilobytes.
"""

COMPOSER = (
    (r"^composer/mot/blocks/(und|gen)/q/kernel$", ("layers", "width", "heads")),
    (r"^composer/mot/blocks/(und|gen)/(k|v)/kernel$", ("layers", "width", "kv_heads")),
    (r"^composer/mot/blocks/(und|gen)/o/kernel$", ("layers", "heads", "width")),
    (r"^composer/mot/blocks/(und|gen)/(gate|up)/kernel$", ("layers", "width", "mlp")),
    (r"^composer/mot/blocks/(und|gen)/down/kernel$", ("layers", "mlp", "width")),
    (r"^composer/planner/(embed|head)$", ("vocab", "width")),
    (r"^composer/planner/vision/layers/(q|k|v)/kernel$", ("layers", "width", "heads")),
    (r"^composer/planner/vision/layers/out/kernel$", ("layers", "heads", "width")),
    (r"^composer/planner/vision/layers/fc1/kernel$", ("layers", "width", "mlp")),
    (r"^composer/planner/vision/layers/fc2/kernel$", ("layers", "mlp", "width")),
    (r"^composer/planner/vision/(patch_embedding/kernel|position_embedding)$", (None, "width")),
    (r"^composer/planner/connector/fc[12]/kernel$", ("width", "width")),
    (r"^composer/diffusion_head/(latent_in|latent_out)/kernel$", ("width", "width")),
    (r"^composer/diffusion_head/time/fc[12]/kernel$", ("width", "width")),
    (r"^composer/binding$", ()),
)
VAE = (
    (r"^vae/.*(conv\w*)/kernel$", (None, None, "channels", "channels")),
    (r"^vae/.*(nin_shortcut|q|k|v|proj_out)/kernel$", ("channels", "channels")),
)
# All rules, for trees with any of the parts.
SHARDING_RULES = ((r"/(bias|scale)$", ()), *COMPOSER, *VAE)
