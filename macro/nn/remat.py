"""What the backward pass finds in memory and what it computes again (Chen et al., arXiv 1604.06174).

    none        every activation of a layer is kept
    attention   a layer keeps its input and what its attention gave
    dots        a layer keeps its matrix products
    full        a layer keeps its input alone: least memory, one more forward pass of it
"""

import flax.linen as nn
import jax

ATTENDED = "attended"  # the name that layers give what attention returns

POLICIES = {
    "full": None,
    "attention": jax.checkpoint_policies.save_only_these_names(ATTENDED),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
NAMES = ("none", *POLICIES)


def rematerialised(layer: type[nn.Module], policy: str) -> type[nn.Module]:
    """The layer, to be scanned over, under a policy of `NAMES`."""
    if policy == "none":
        return layer
    return nn.remat(layer, prevent_cse=False, policy=POLICIES[policy])
