"""The one rule for image sizes: `ImageSpec`, held by training's collate and by the sampler alike.

    image                    size that the VAE sees                        size that the ViT sees
    reference, source        free: BAGEL's rule for the VAE                free: BAGEL's rule for the ViT, applied to
                                                                           what the VAE sees
                             buckets: resized and cropped to a bucket      buckets: BAGEL's rule, applied to the image
    target                   resized and cropped to a bucket               (a target read again later: as a reference)

Buckets exist because the pixel slots of training have fixed sizes. A model trained with buckets also samples with them;
weights imported from BAGEL have none and use BAGEL's free sizes. Both keep the aspect ratio: a bucket crops what it
does not cover, equally on both sides. Sizes are (height, width) in pixels everywhere.

The rule is part of `PackingConfig` (its property `images`) and is stored with the weights. Sources: BAGEL's
`ImageTransform` (/spec 1.13), MACRO's areas by number of references, SDXL's aspect buckets.
Read next: `macro/inputs/packing.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from macro.utils.errors import UserError
from macro.utils.images import Pixels, nearest_size, resize, resize_and_crop

Size = tuple[int, int]


def fit_size(
    height: int,
    width: int,
    max_side: int,
    stride: int,
    min_side: int = 0,
    max_pixels: int = 14 * 14 * 9 * 1024,
) -> tuple[int, int]:
    """The size to which an image is resized: same aspect ratio, both sides multiples of `stride`.

    BAGEL's rule: the longer side at most `max_side`, then the shorter at least `min_side`, then the area at
    most `max_pixels`. (Upstream scales the sides by the ratio of areas, not its root; kept for parity.)

    Arguments and the result, (height, width), are in pixels.
    """
    scale = max(min(max_side / max(height, width), 1.0), min_side / min(height, width))
    height, width = _scaled(height, width, scale, stride)
    if height * width > max_pixels:
        height, width = _scaled(height, width, max_pixels / (height * width), stride)
    if max(height, width) > max_side:
        height, width = _scaled(height, width, max_side / max(height, width), stride)
    return height, width


def fit_area(height: int, width: int, pixels: int) -> tuple[int, int]:
    """A size of at most about `pixels` with the same aspect ratio; a smaller image keeps its size."""
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _scaled(height: int, width: int, scale: float, stride: int) -> tuple[int, int]:
    def side(n: int) -> int:
        return max(stride, round(round(n * scale) / stride) * stride)

    return side(height), side(width)


@dataclasses.dataclass(frozen=True)
class ResizeRule:
    """BAGEL's rule (`fit_size`): the longer side at most `max_side`, then the shorter at least `min_side`,
    both multiples of `stride`; the aspect is kept up to that rounding."""

    max_side: int
    min_side: int
    stride: int

    def __post_init__(self):
        if not 1 <= self.stride <= self.max_side or not 0 <= self.min_side <= self.max_side:
            raise UserError(
                f"image size rule ({self.max_side}, {self.min_side}, {self.stride}): must be (longest side, shortest "
                "side, stride) in pixels, falling"
            )

    def fit(self, size: Size, area: int | None = None) -> Size:
        """The size to which an image of this size is resized.

        Args:
            area: approximate limit in pixels; it takes precedence over the shortest side.
        """
        if area is None:
            return fit_size(*size, self.max_side, self.stride, self.min_side)
        size = fit_area(*size, area)
        fitted = fit_size(*size, self.max_side, self.stride, self.min_side)
        return fitted if fitted[0] * fitted[1] <= area else fit_size(*size, self.max_side, self.stride)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How every image of a sentence is sized.

    Attributes:
        vae, vit: rules for given images as the VAE sees them (unless there are buckets), and as the ViT does.
        vae_limit, vit_limit: longest sides that the position tables of latents and of ViT patches cover.
        buckets: sizes that VAE copies and targets are cropped to; the first is the default output size.
            Empty: free sizes.
        reference_pixels: (count, pixels) in ascending order: the area limit of each given image in a sentence of up to
            `count` of them (MACRO); the last limit also applies to more. None: no limit.
        max_upscale: the largest factor by which a side of a target may be enlarged.
    """

    vae: ResizeRule
    vit: ResizeRule
    vae_limit: int
    vit_limit: int
    buckets: tuple[Size, ...] = ()
    reference_pixels: tuple[tuple[int, int], ...] | None = None
    max_upscale: float = 2.0

    def __post_init__(self):
        stride = self.vae.stride
        for height, width in self.buckets:
            if height % stride or width % stride:
                raise UserError(
                    f"config.packing.buckets: {height}x{width} is no multiple of {stride} pixels (one latent token); "
                    "change the bucket"
                )
            if max(height, width) > self.vae_limit:
                raise UserError(
                    f"config.packing.buckets: {height}x{width}, but the model's position table reaches "
                    f"{self.vae_limit} pixels a side, no further"
                )
        for name, rule, limit in (("VAE", self.vae, self.vae_limit), ("ViT", self.vit, self.vit_limit)):
            if round(rule.max_side / rule.stride) * rule.stride > limit:
                raise UserError(
                    f"images for the {name}: a longest side of {rule.max_side} pixels, but the model's position table "
                    f"reaches {limit} pixels a side, no further"
                )
        if self.reference_pixels is not None:
            counts = [count for count, _ in self.reference_pixels]
            if not counts or counts != sorted(set(counts)) or min(map(min, self.reference_pixels)) < 1:
                raise UserError(
                    f"config.packing.reference_pixels: {self.reference_pixels} must be pairs (count, pixels) in rising "
                    "order of count, such as ((2, 1048576), (5, 589824))"
                )
        if self.max_upscale < 1:
            raise UserError(f"config.packing.max_upscale: {self.max_upscale}, but it must be at least 1")

    @classmethod
    def bagel(
        cls, vae_limit: int, stride: int, vit_limit: int, patch: int, reference_pixels: Sequence | None = None
    ) -> ImageSpec:
        """BAGEL's own rule, free sizes: (1024, 512, 16) for the VAE, (980, 224, 14) for the ViT.

        A smaller model uses the limit of its position tables, and half of it as the shortest side.

        Args:
            vae_limit, vit_limit, reference_pixels: see the attributes.
            stride, patch: pixels along a side of a latent token and of a ViT patch.
        """
        vae = ResizeRule(min(1024, vae_limit), min(512, vae_limit // 2), stride)
        vit = ResizeRule(min(980, vit_limit), min(224, vit_limit // 2), patch)
        return cls(vae, vit, vae_limit, vit_limit, (), reference_pixels)

    def reference_area(self, count: int) -> int | None:
        """The area limit in pixels of each of `count` given images; None without a limit."""
        if self.reference_pixels is None:
            return None
        fitting = (pixels for most, pixels in self.reference_pixels if count <= most)
        return next(fitting, self.reference_pixels[-1][1])

    def vae_size(self, size: Size, count: int = 1) -> Size:
        """The size of a given image's VAE copy, in a sentence of `count` given images."""
        area = self.reference_area(count)
        if not self.buckets:
            return self.vae.fit(size, area)
        return self._bucket(size, size if area is None else fit_area(*size, area)) or self._least_enlarged(size)

    def vit_size(self, size: Size, count: int = 1) -> Size:
        """The size of a given image's ViT copy, in a sentence of `count` given images."""
        return self.vit.fit(size if self.buckets else self.vae_size(size, count), self.reference_area(count))

    def target_size(self, size: Size, source: str = "target") -> Size:
        """The bucket to which a target is cropped: of those that enlarge it by at most `max_upscale`, the one closest
        in aspect ratio, then in area.

        Raises:
            UserError: the target is too small for every bucket; `source` names it in the message.
        """
        if not self.buckets:
            return self.vae.fit(size)
        bucket = self._bucket(size, size)
        if bucket is None:
            height, width = self._least_enlarged(size)
            raise UserError(
                f"{source}: {size[0]}x{size[1]} would be enlarged {_upscale(size, (height, width)):.1f} times to fill "
                f"{height}x{width}, more than config.packing.max_upscale={self.max_upscale:g}; leave the sample out, "
                "or add a smaller bucket"
            )
        return bucket

    def output_size(
        self, like: Size | None = None, count: int = 1, size: Size | None = None, aspect: float | None = None
    ) -> Size:
        """The size of the image to generate.

        Args:
            like: size of a given image to match, such as the source of an edit, in a sentence of `count` given images.
                The result has the size of that image's VAE copy and shows the same area of it (with buckets, what
                remains after the crop).
            size: taken as it is. aspect: width over height, at the largest size. Both take precedence over `like`.

        Raises:
            UserError: a side is no multiple of a latent token's, or exceeds the position table.
        """
        stride, most = self.vae.stride, self.vae_limit
        if size is not None:
            if any(side % stride or not 0 < side <= most for side in size):
                raise UserError(f"size {size[0]}x{size[1]}: both sides must be multiples of {stride}, up to {most}")
            return tuple(size)
        if aspect is not None:
            longest = max(map(max, self.buckets)) if self.buckets else most
            shape = (longest / aspect, longest) if aspect >= 1 else (longest, longest * aspect)
            wanted = tuple(min(most, max(stride, round(side / stride) * stride)) for side in shape)
            return nearest_size(wanted, self.buckets) if self.buckets else wanted
        if like is not None:
            return self.vae_size(like, count)
        return self.buckets[0] if self.buckets else (most // stride * stride,) * 2

    def vae_pixels(self, pixels: Pixels, size: Size) -> Pixels:
        """The image at a size from `vae_size` or `target_size`: cropped to a bucket, or resized by BAGEL's rule."""
        return resize_and_crop(pixels, size) if self.buckets else resize(pixels, size)

    def vit_pixels(self, pixels: Pixels, count: int = 1) -> Pixels:
        """The image as the ViT sees it, in a sentence of `count` given images."""
        seen = pixels if self.buckets else self.vae_pixels(pixels, self.vae_size(pixels.shape[:2], count))
        return resize(seen, self.vit_size(pixels.shape[:2], count))

    def to_dict(self) -> dict:
        """A JSON-able dict for the notes of a weights file; `from_dict` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> ImageSpec:
        values = dict(values)
        rules = {name: ResizeRule(**values.pop(name)) for name in ("vae", "vit")}
        buckets = tuple(map(tuple, values.pop("buckets")))
        areas = values.pop("reference_pixels")
        areas = None if areas is None else tuple(map(tuple, areas))
        return cls(**rules, buckets=buckets, reference_pixels=areas, **values)

    def _bucket(self, size: Size, wanted: Size) -> Size | None:
        """The bucket closest to `wanted` that an image of `size` covers with at most `max_upscale`, or None."""
        fitting = [bucket for bucket in self.buckets if _upscale(size, bucket) <= self.max_upscale]
        return nearest_size(wanted, fitting) if fitting else None

    def _least_enlarged(self, size: Size) -> Size:
        return min(self.buckets, key=lambda bucket: _upscale(size, bucket))


def _upscale(size: Size, bucket: Size) -> float:
    """The factor by which the sides grow when an image of `size` is resized to cover `bucket`."""
    return max(bucket[0] / size[0], bucket[1] / size[1])

