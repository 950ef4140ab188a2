"""The colours of a subject, read pixel by pixel from an image's albedo: no code of the writers."""

from collections import Counter

# The fifteen names as 8-bit sRGB.
PAINTS = {
    "red": (217, 33, 36), "orange": (250, 133, 26), "yellow": (252, 212, 41), "lime": (158, 212, 51),
    "green": (31, 140, 61), "teal": (0, 148, 148), "cyan": (115, 212, 242), "blue": (38, 92, 217),
    "navy": (28, 38, 107), "purple": (125, 56, 184), "pink": (250, 140, 184), "brown": (120, 71, 41),
    "white": (245, 245, 240), "grey": (140, 143, 150), "black": (33, 33, 38),
}  # fmt: skip


def _lab(rgb):
    """Oklab (Ottosson 2020) of an 8-bit sRGB colour, with the renderer's gamma of 2.2."""
    r, g, b = ((v / 255) ** 2.2 for v in rgb)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


_NAMED = {name: _lab(rgb) for name, rgb in PAINTS.items()}
_KNOWN: dict[tuple, str] = {}


def name_of(rgb) -> str:
    rgb = tuple(int(v) for v in rgb)
    if rgb not in _KNOWN:
        own = _lab(rgb)
        _KNOWN[rgb] = min(_NAMED, key=lambda name: sum((a - b) ** 2 for a, b in zip(own, _NAMED[name], strict=True)))
    return _KNOWN[rgb]


def shares(albedo, mask) -> dict[str, float]:
    """Share of each colour among a subject's visible pixels, largest first."""
    found = Counter(name_of(rgb) for rgb in albedo[mask])
    return {name: count / mask.sum() for name, count in found.most_common()}


def fits(words: str, albedo, mask) -> bool:
    """Whether "red" or "red and blue" is what one sees: at least half of it red; or no half, and these the largest.

    One pixel may count either way: where two paints blend it can lie between two names.
    """
    seen, said, pixel = shares(albedo, mask), words.split(" and "), 1 / mask.sum()
    if len(said) == 1:
        return seen.get(said[0], 0.0) >= 0.5 - pixel
    two = sorted(seen.values(), reverse=True)[:2]
    held = sorted((seen.get(word, 0.0) for word in said), reverse=True)
    return len(said) == 2 and two[0] < 0.5 + pixel and all(b - a <= pixel for a, b in zip(held, two, strict=True))
