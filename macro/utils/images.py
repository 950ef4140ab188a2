"""Images between files, bytes and arrays: reads common formats, resizes, saves atomically.

Everywhere in this package an image is uint8[h, w, 3], sRGB, row 0 on top; models take it as float32 in -1..1.
Embedded colour profiles are not applied. Read next: `macro/sentence/prompt.py`.
"""

import base64
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps

from macro.utils.errors import UserError
from macro.utils.files import atomic_write, local

MAX_PIXELS = 64_000_000
Pixels = UInt8[np.ndarray, "_ _ 3"]  # [h, w, 3], any size

# Only formats that decode in-process: Pillow would pass some others to external programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_WRITE = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}
# Colours of a layout's labels, background first: near numbers differ in hue, and dark digits are readable on all.
LABEL_COLOURS = np.array(
    [
        [240, 238, 233], [242, 125, 100], [92, 170, 216], [250, 205, 96], [122, 192, 130], [192, 144, 216],
        [246, 164, 190], [74, 192, 186], [214, 172, 124], [152, 166, 234], [192, 210, 88], [222, 116, 152],
        [162, 168, 176],
    ],
    np.uint8,
)  # fmt: skip


def load(path: str | os.PathLike, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Reads an image file: upright, alpha composited on white, 8 bits a channel.

    Args:
        path: PNG, JPEG, WebP, GIF (first frame), BMP or TIFF, in any colour mode.
        max_pixels: the limit on height x width, checked against the header before anything is decoded.

    Raises:
        UserError: the file is missing, unreadable, broken, truncated, not an image, or too large.
    """
    with _file(path) as file:
        return decode(file.read(), max_pixels, str(path))


def size_of(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) of the image that `load` would return; decodes only TIFF and PNG with EXIF.

    Raises:
        UserError: the file is missing, unreadable, not an image, or too large.
    """
    with _file(path) as file:
        image = _open(file, MAX_PIXELS, str(path))
        width, height = image.size
        if image.format in ("PNG", "TIFF"):
            # EXIF may follow a PNG's pixels; TIFF's reader rotates images upright itself, in some versions only.
            # Both need decoding to find the size; most PNGs do not.
            file.seek(0)
            decoded = image.format == "TIFF" or b"eXIf" in file.read()
            return load(path).shape[:2] if decoded else (height, width)
        return (width, height) if _lies_on_its_side(image) else (height, width)


def _file(path: str | os.PathLike) -> io.BufferedReader:
    try:
        return local(path).open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder, not an image; name one file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def decode(data: bytes, max_pixels: int = MAX_PIXELS, name: str = "image") -> Pixels:
    """As `load`, from an encoded image in memory; `name` names it in messages."""
    image = _open(io.BytesIO(data), max_pixels, name)
    try:
        image.load()
        return _to_rgb(_upright(image))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except Exception as error:  # a decoder may raise anything on a broken file
        raise UserError(
            f"{name}: the image is broken or cut off ({error}); save or copy it again"
        ) from None


def _open(file: io.BufferedIOBase, max_pixels: int, name: str) -> Image.Image:
    """The image of a file, with only its header read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is max_pixels
            image = Image.open(file, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UserError(f"{name}: far more than {max_pixels:,} pixels; scale it down") from None
    except Exception:  # a decoder may raise anything on bytes of another format
        raise UserError(f"{name}: not an image that can be read; use PNG, JPEG or WebP") from None
    width, height = image.size
    if width * height > max_pixels:
        raise UserError(
            f"{name}: {width} x {height} is {width * height:,} pixels, over the limit of {max_pixels:,}; "
            "scale it down"
        )
    return image


def _lies_on_its_side(image: Image.Image) -> bool:
    """Whether rotating it upright swaps height and width (EXIF orientations 5 to 8)."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except Exception:  # as in `_upright`
        return False


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF: the image is still good, only its orientation is unknown
        return image


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode == "F":
        raise UserError("floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow itself would clip it at 255
        grey = np.clip(np.asarray(image, np.int64), 0, 65535)
        grey = ((grey * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def save(path: str | os.PathLike, pixels: Pixels) -> None:
    """Writes .png, .jpg, .jpeg or .webp. The file appears complete or not at all.

    Raises:
        UserError: another suffix, or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITE:
        raise UserError(f"{path}: cannot write {path.suffix or 'no suffix'}; use {', '.join(_WRITE)}")
    atomic_write(path, _encode(pixels, **_WRITE[path.suffix.lower()]))


def _encode(pixels: Pixels, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    return _encode(pixels, format="PNG")


def data_uri(pixels: Pixels, suffix: str = ".png") -> str:
    """The image as `data:image/png;base64,...`, for self-contained pages; ".jpg" is smaller."""
    options = _WRITE[suffix]
    data = base64.b64encode(_encode(pixels, **options)).decode("ascii")
    return f"data:image/{options['format'].lower()};base64,{data}"


def to_float(pixels: UInt8[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """0..255 -> -1..1."""
    return pixels.astype(np.float32) / 127.5 - 1


def to_uint8(values) -> UInt8[np.ndarray, "..."]:
    """-1..1 -> 0..255, clipped and rounded; takes any float array. Undoes `to_float` exactly."""
    return np.round((np.clip(np.asarray(values, np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bicubic, antialiased when shrinking, to (height, width), without keeping the aspect ratio."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def shrink_to(pixels: Pixels, side: int) -> Pixels:
    """Shrunk, keeping the aspect ratio, so that no side is longer than `side`; unchanged if none is."""
    h, w = pixels.shape[:2]
    scale = side / max(h, w)
    return pixels if scale >= 1 else resize(pixels, (max(1, round(h * scale)), max(1, round(w * scale))))


def resize_and_crop(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resizes and centre-crops to (height, width), keeping the aspect ratio."""
    (h, w), (height, width) = pixels.shape[:2], size
    if (h, w) == (height, width):
        return pixels
    scale = max(height / h, width / w)
    top, left = (h - height / scale) / 2, (w - width / scale) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + width / scale, w), min(top + height / scale, h))
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.array(resized)


def nearest_size(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The one of `sizes` (h, w) with the aspect closest to `size`'s; among equals the closest in area."""

    def distance(other: tuple[int, int]) -> tuple[float, float]:
        aspect = np.log(size[0] / size[1]) - np.log(other[0] / other[1])
        area = np.log(size[0] * size[1]) - np.log(other[0] * other[1])
        return round(abs(float(aspect)), 6), abs(float(area))

    return min(sizes, key=distance)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, at a size in pixels."""
    return ImageFont.load_default(size)


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks a text into lines of at most `width` pixels (a longer single word keeps its own line)."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if line and face.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def contact_sheet(
    images: Sequence[Pixels], columns: int, labels: Sequence[str] | None = None, gap: int = 4
) -> Pixels:
    """Images side by side on white, row by row, each centred in its tile, with a label of one line below.

    Args:
        images: at least one; a tile is as large as the largest of them.
        columns: tiles in a row.
        labels: one text per image, cut to the tile's width.
        gap: pixels between tiles and around the sheet.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    face = font(max(9, min(16, width // 10)))
    footer = 0 if labels is None else round(face.size * 1.5)
    columns = min(columns, len(images))
    down, across = height + footer + gap, width + gap
    sheet = Image.new("RGB", (columns * across + gap, -(-len(images) // columns) * down + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        (h, w), left, top = image.shape[:2], gap + i % columns * across, gap + i // columns * down
        sheet.paste(Image.fromarray(image), (left + (width - w) // 2, top + (height - h) // 2))
        label = labels[i] if labels else ""
        while label and face.getlength(label) > width:
            label = label[:-1]
        draw.text((left + width / 2, top + height + footer / 2), label, "#333333", face, anchor="mm")
    return np.array(sheet)
