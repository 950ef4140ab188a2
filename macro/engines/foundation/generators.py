"""Image models of diffusers as stages: text-to-image, novel view of a subject, composition of references.

- `FluxDraw`: FLUX.1-dev, MUSIC's text-to-image model.
- `KontextRedraw`: FLUX.1 Kontext on the crop of a subject. MUSIC redraws with UNO-FLUX, which diffusers lacks;
  Kontext is its FLUX model for one image and an instruction.
- `FluxCompose`: FLUX.2, which takes several references as separate images, each at its own position on an axis of
  the rotary embedding. Kontext would take one image, the references pasted together, and MACRO measured the cost of
  a collage (8.02 to 5.60). `model_index.json` names the pipeline, so the whole family works by name; klein 9B with
  its text encoder takes 34 GB, FLUX.2-dev 112 GB.

Noise comes from a generator on the CPU, so a seed gives the same noise on every device. Models draw at the side they
were trained at; the image is then resized to the requested side. Read next: `batching.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from macro.engines.foundation.batching import answer, crop, squared
from macro.engines.material.types import EngineImage
from macro.engines.provider import Region, ScenePrompt
from macro.judges.model_loading import device_of, format_of, loading, once
from macro.sentence.prompt import check_prompt, marker
from macro.utils.errors import ItemError, UserError
from macro.utils.images import Pixels, resize

# Views requested of the redraw; the seed chooses one.
VIEWS = (
    "from its left side",
    "from its right side",
    "from its front, turned a little to the left",
    "from its front, turned a little to the right",
    "from behind, turned a little to one side",
    "from slightly above",
    "from slightly below",
)

# Mean difference, of 255, below which a redraw is a copy of the crop.
_COPY = 4.0


@dataclass(frozen=True)
class Diffusion:
    """What the three models have in common.

    name: a hub name, or a folder.
        name: of the hub, or a folder.
        device: None is a GPU where there is one.
        dtype: None is bfloat16 on a GPU and float32 on the CPU.
        side: at which the model draws, pixels; larger images are drawn at their own side.
        steps: of the sampler; guidance: its scale.
        batch: images per call.
    """

    name: str
    device: str | None = None
    dtype: str | None = None
    side: int = 1024
    steps: int = 28
    guidance: float = 3.5
    batch: int = 1

    def __post_init__(self):
        if min(self.side, self.steps, self.batch) < 1:
            raise UserError(f"{type(self).__name__}: side, steps and batch must be at least 1")

    def _pipeline(self, family: str) -> Any:
        return _load(family, self.name, self.device, self.dtype)

    def _side(self, pipeline: Any, size: int) -> int:
        """The side to draw at for an image of `size`: a multiple of a latent token's side in pixels."""
        token = 2 * pipeline.vae_scale_factor
        return -(-max(self.side, size) // token) * token

    def _settings(self, seeds: Sequence[int], side: int) -> dict[str, Any]:
        import torch

        return {
            "height": side,
            "width": side,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "output_type": "np",
        }


@dataclass(frozen=True)
class FluxDraw(Diffusion):
    """`Provider.draw` by FLUX.1; attributes as of `Diffusion`."""

    name: str = "black-forest-labs/FLUX.1-dev"

    def __call__(
        self, ideas: Sequence[ScenePrompt], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[EngineImage | ItemError]:
        """The captions as images, uint8[sizes[i], sizes[i], 3] from seeds[i].

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[str, int, int]]) -> list[EngineImage | ItemError]:
            captions, wanted, chosen = map(list, zip(*items, strict=True))
            pipeline = self._pipeline("FluxPipeline")
            drawn = pipeline(prompt=captions, **self._settings(chosen, self._side(pipeline, wanted[0]))).images
            return [_image(values, wanted[0]) for values in drawn]

        items = [(idea.caption, size, seed) for idea, size, seed in zip(ideas, sizes, seeds, strict=True)]
        return answer(run, items, self.batch, key=lambda item: item[1])


@dataclass(frozen=True)
class KontextRedraw(Diffusion):
    """`Provider.novel_view` by FLUX.1 Kontext; attributes as of `Diffusion`."""

    name: str = "black-forest-labs/FLUX.1-Kontext-dev"
    guidance: float = 2.5

    def __call__(
        self, images: Sequence[EngineImage], regions: Sequence[Region], sizes: Sequence[int], seeds: Sequence[int]
    ) -> list[EngineImage | ItemError]:
        """The subject of regions[i] from one of `VIEWS`, chosen by seeds[i]; uint8[sizes[i], sizes[i], 3].

        The model's input is the crop of the bounding box, centred in a white square, with pixels outside the mask white
        if there is a mask. An unchanged result is an `ItemError`: a reference must not be a crop of its target.

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[Pixels, str, int, int]]) -> list[EngineImage | ItemError]:
            pipeline = self._pipeline("FluxKontextPipeline")
            import torch

            crops, prompts, wanted, chosen = map(list, zip(*items, strict=True))
            side = self._side(pipeline, wanted[0])
            given = [resize(pixels, (side, side)) for pixels in crops]
            values = torch.from_numpy(np.stack(given).transpose(0, 3, 1, 2).astype(np.float32) / 255)
            # Crops are as large as the images: Kontext's own resizing, if on, would bring each to a million
            # pixels whatever `side` is.
            drawn = pipeline(
                image=values, prompt=prompts, max_area=side * side, _auto_resize=False, **self._settings(chosen, side)
            ).images
            return [
                ItemError("the redraw is the crop again") if is_copy(found, shown) else _image(found, wanted[0])
                for found, shown in zip(drawn, given, strict=True)
            ]

        items = []
        for image, region, size, seed in zip(images, regions, sizes, seeds, strict=True):
            shown = crop(image, region, masked=region.mask is not None)
            asked = redraw_prompt(region.label, seed)
            items.append(shown if isinstance(shown, ItemError) else (squared(shown), asked, size, seed))
        return answer(run, items, self.batch, key=lambda item: item[2])


@dataclass(frozen=True)
class FluxCompose(Diffusion):
    """`Provider.compose` by FLUX.2; attributes as of `Diffusion`, and

    reference_side: side of a square of a reference's area, pixels. Ten references of 512 make 10,240 tokens.
    """

    name: str = "black-forest-labs/FLUX.2-klein-base-9B"
    steps: int = 50
    guidance: float = 4.0
    reference_side: int = 512

    def __post_init__(self):
        super().__post_init__()
        if self.reference_side < 1:
            raise UserError(f"FluxCompose: reference_side is {self.reference_side}; use at least 1")

    def __call__(
        self,
        prompts: Sequence[str],
        references: Sequence[Sequence[EngineImage]],
        sizes: Sequence[int],
        seeds: Sequence[int],
    ) -> list[EngineImage | ItemError]:
        """Draws prompts[i], whose `<image n>` is references[i][n - 1]; uint8[sizes[i], sizes[i], 3] from seeds[i].

        The prompt calls them "image n", as FLUX.2's own prompts do. One image at a time, because a call of the pipeline
        takes one list of references.

        Raises:
            UserError: the model cannot be loaded.
        """

        def run(items: list[tuple[str, Sequence[EngineImage], int, int]]) -> list[EngineImage | ItemError]:
            [(prompt, images, size, seed)] = items
            pipeline = self._pipeline("Flux2")
            shown = [self._reference(pipeline, image.pixels) for image in images]
            settings = self._settings([seed], self._side(pipeline, size))
            return [_image(pipeline(image=shown or None, prompt=prompt, **settings).images[0], size)]

        items = []
        for prompt, images, size, seed in zip(prompts, references, sizes, seeds, strict=True):
            asked = _named(prompt, len(images))
            items.append(asked if isinstance(asked, ItemError) else (asked, images, size, seed))
        return answer(run, items, batch=1)

    def _reference(self, pipeline: Any, pixels: Pixels) -> Image.Image:
        """The reference, its aspect kept as far as whole tokens allow; the smallest side FLUX.2 takes is 64."""
        token = 2 * pipeline.vae_scale_factor
        height, width = pixels.shape[:2]
        scale = self.reference_side / (height * width) ** 0.5
        size = tuple(max(round(edge * scale / token) * token, 64) for edge in (height, width))
        return Image.fromarray(resize(pixels, size))


def _named(prompt: str, images: int) -> str | ItemError:
    """The prompt with its images named as in FLUX.2's prompts."""
    try:
        check_prompt(prompt, images)
    except UserError as error:
        return ItemError(str(error))
    for n in range(1, images + 1):
        prompt = prompt.replace(marker(n), f"image {n}")
    return prompt


def redraw_prompt(label: str, seed: int) -> str:
    """Kontext's prompt: another view of the subject alone on a plain background."""
    view = VIEWS[int(np.random.default_rng([seed]).integers(len(VIEWS)))]
    return (
        f"Move the camera: show the same {label} seen {view}. Keep its identity, shape, colours and materials. "
        f"Only the {label}, whole, in the middle, on a plain light grey background."
    )


def is_copy(drawn: Float[np.ndarray, "_ _ 3"], given: Pixels) -> bool:
    """Whether an image, 0..1, equals the given one up to the error of encoding and decoding."""
    return float(np.abs(drawn.astype(np.float32) * 255 - given).mean()) < _COPY


def _image(values: Float[np.ndarray, "_ _ 3"], size: int) -> EngineImage | ItemError:
    """A pipeline's output, 0..1, as an image of that side."""
    if not np.isfinite(values).all():
        return ItemError("the image's pixels are not numbers")
    return EngineImage(resize(np.round(values * 255).astype(np.uint8), (size, size)))


@once
def _load(family: str, name: str, device: str | None, dtype: str | None) -> Any:
    """The pipeline that the folder names, whose class must begin with `family`."""
    with loading(family, name):
        import diffusers

        kind = diffusers.DiffusionPipeline.load_config(name)["_class_name"]
        if not kind.startswith(family):  # FLUX.1 and Kontext have the same parts: either would load as the other
            raise ValueError(f"it is a {kind}, no {family}")

        on = device_of(device)
        numbers = format_of(dtype or ("float32" if on == "cpu" else "bfloat16"))
        pipeline = getattr(diffusers, kind).from_pretrained(name, torch_dtype=numbers).to(on)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
