"""The attention mask: which token may attend to which.

Every attention (reference, kernels, KV cache) calls this one function. A token has four integers, wherever it is
stored:

    segment_ids   which packed sample it belongs to, -1 = padding
    token_index   its index in the sample
    block_id      its block: a piece of text, an image, a noised target
    mask_mode     the block's mode: CAUSAL text, FULL image, NOISE target

    keys ->      a  b [i  i  i] c  d {z  z  z}        a..d text, i reference image, z noised target
    a            x  .  .  .  .  .  .  .  .  .
    b            x  x  .  .  .  .  .  .  .  .
    i (each)     x  x  x  x  x  .  .  .  .  .
    c            x  x  x  x  x  x  .  .  .  .
    d            x  x  x  x  x  x  x  .  .  .
    z (each)     x  x  x  x  x  x  x  x  x  x         no other token sees z

Only plain operators are used, so it takes numpy and JAX arrays alike.
Read next: `macro/kernels/attention/reference.py`.
"""

CAUSAL, FULL, NOISE = 0, 1, 2
MASK_FIELDS = ("segment_ids", "token_index", "block_id", "mask_mode")


def mask_mod(q, k):
    """Which keys each query attends to.

    Args:
        q, k: mappings with integer arrays `segment_ids`, `token_index`, `block_id`, `mask_mode` that
            broadcast against each other, usually `[..., n_q, 1]` and `[..., 1, n_k]`.

    Returns:
        Boolean array of the broadcast shape. Padding (segment -1) attends to nothing, and nothing attends to it.
    """
    same_segment = (q["segment_ids"] == k["segment_ids"]) & (k["segment_ids"] >= 0)
    same_block = q["block_id"] == k["block_id"]
    reached = (q["token_index"] >= k["token_index"]) | (same_block & (k["mask_mode"] != CAUSAL))
    private = (k["mask_mode"] == NOISE) & ~same_block
    return same_segment & reached & ~private
