"""The rule of sight: which token may attend to which.

Every attention in the house (reference, kernel, KV cache) asks this one function. A token carries four
integers, wherever it lies in memory:

    sample   which packed sentence it belongs to, -1 = padding
    order    its place in the sentence
    span     the span it stands in (a text piece, an image, a noised target)
    mode     the span's mode: CAUSAL text, FULL image, NOISE target

    keys ->      a  b [i  i  i] c  d {z  z  z}        a..d text, i reference image, z noised target
    a            x  .  .  .  .  .  .  .  .  .
    b            x  x  .  .  .  .  .  .  .  .
    i (each)     x  x  x  x  x  .  .  .  .  .
    c            x  x  x  x  x  x  .  .  .  .
    d            x  x  x  x  x  x  x  .  .  .
    z (each)     x  x  x  x  x  x  x  x  x  x         nobody else sees z

Written with plain operators only, so that numpy and JAX arrays both go through it.
Read next: `macro/kernels/attention/reference.py`.
"""

CAUSAL, FULL, NOISE = 0, 1, 2
FIELDS = ("sample", "order", "span", "mode")


def visible(q, k):
    """Which keys each query sees.

    Args:
        q, k: mappings with integer arrays `sample`, `order`, `span`, `mode` that broadcast against each
            other, usually `[..., n_q, 1]` and `[..., 1, n_k]`.

    Returns:
        Boolean array of the broadcast shape. Padding (sample -1) is never seen and sees nothing.
    """
    same_sample = (q["sample"] == k["sample"]) & (k["sample"] >= 0)
    same_span = q["span"] == k["span"]
    reached = (q["order"] >= k["order"]) | (same_span & (k["mode"] != CAUSAL))
    private = (k["mode"] == NOISE) & ~same_span
    return same_sample & reached & ~private
