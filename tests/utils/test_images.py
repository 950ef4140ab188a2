"""Images from files of every kind, sizes, and sheets; broken and hostile files are named."""

import base64
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from macro.utils import images as image_io
from macro.utils.errors import UserError

QUICK = settings(max_examples=40, deadline=None, derandomize=True)


def ramp(height: int, width: int) -> np.ndarray:
    """Smooth in both directions, another one in each channel."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [255 * y / height, 255 * x / width, 255 * (1 - x / width)]
    return np.stack(planes, axis=-1).astype(np.uint8)


RAMP = ramp(24, 40)


# ---- every kind of file ----


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".JPEG"])
def test_saved_images_are_read_back(tmp_path, suffix):
    image_io.save(tmp_path / "new" / f"a{suffix}", RAMP)
    back = image_io.load(tmp_path / "new" / f"a{suffix}")
    assert back.dtype == np.uint8 and back.shape == RAMP.shape
    lossless = suffix in (".png", ".webp")
    assert np.abs(back.astype(int) - RAMP).max() <= (0 if lossless else 6)


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".tiff"])
def test_other_formats_are_read(tmp_path, suffix):
    Image.fromarray(RAMP).quantize(255).convert("RGB").save(tmp_path / f"a{suffix}")
    assert np.abs(image_io.load(tmp_path / f"a{suffix}").astype(int) - RAMP).mean() < 8


def test_grey_becomes_three_equal_channels(tmp_path):
    for mode, values in (("L", RAMP[..., 0]), ("1", RAMP[..., 0] > 99)):
        Image.fromarray(values).convert(mode).save(tmp_path / "a.png")
        expected = values if mode == "L" else values * np.uint8(255)
        np.testing.assert_array_equal(image_io.load(tmp_path / "a.png"), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    grey = np.array([[0, 128, 257, 32768, 65278, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    back = image_io.load(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back[0, :, 0], [0, 0, 1, 128, 254, 255])
    assert (back == back[..., :1]).all()


def test_sixteen_bit_colour_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 65535, 0, 32768, 0, 65535, 257))
    )
    np.testing.assert_array_equal(image_io.load(tmp_path / "a.png"), [[[255, 0, 128], [0, 255, 1]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(tmp_path, mode):
    alpha = np.zeros((2, 3), np.uint8)
    alpha[:, 1], alpha[:, 2] = 128, 255
    black = np.zeros((2, 3, len(mode) - 1), np.uint8)
    Image.fromarray(np.concatenate([black, alpha[..., None]], -1)).save(tmp_path / "a.png")
    back = image_io.load(tmp_path / "a.png").astype(int)
    assert np.abs(back[0] - [[255] * 3, [127] * 3, [0] * 3]).max() <= 1


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "a.png", transparency=0)
    np.testing.assert_array_equal(image_io.load(tmp_path / "a.png"), [[[255] * 3, [200, 100, 50]]])


def test_cmyk_is_converted(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(image_io.load(tmp_path / "a.jpg").astype(int) - [255, 0, 0]).max() <= 8


UPRIGHT = {  # what EXIF says must be done to the stored image
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_exif_rotation_is_undone(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(RAMP).save(tmp_path / f"a{suffix}", exif=exif, **options)
    back, expected = image_io.load(tmp_path / f"a{suffix}"), UPRIGHT[orientation](RAMP)
    assert back.shape == expected.shape
    assert image_io.size_of(tmp_path / f"a{suffix}") == back.shape[:2]
    assert np.abs(back.astype(int) - expected).max() <= (6 if suffix == ".jpg" else 0)


def test_unreadable_exif_does_not_cost_the_image(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "a.png", exif=b"Exif\0\0no such thing")
    np.testing.assert_array_equal(image_io.load(tmp_path / "a.png"), RAMP)
    assert image_io.size_of(tmp_path / "a.png") == RAMP.shape[:2]


# ---- broken and hostile files ----


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("size", [(8001, 8000), (10_000, 10_000), (60_000, 60_000)])
def test_a_bomb_is_refused_by_its_header(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png(*size, 8, 2, b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning must not reach the user
        with pytest.raises(UserError, match=r"bomb.png: .*64,000,000.*; scale it down"):
            image_io.load(tmp_path / "bomb.png")


def test_the_limit_is_the_callers(tmp_path):
    image_io.save(tmp_path / "a.png", RAMP)
    assert image_io.load(tmp_path / "a.png", max_pixels=24 * 40).shape == (24, 40, 3)
    with pytest.raises(UserError, match="40 x 24 is 960 pixels, over the limit of 959"):
        image_io.load(tmp_path / "a.png", max_pixels=24 * 40 - 1)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_file_cut_off_is_named(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image_io.save(tmp_path / f"a{suffix}", noise)
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=rf"a{suffix}: (the image is broken|not an image)"):
        image_io.load(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    "data", [b"", b"An owl.", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n"]
)
def test_what_is_no_image_is_named(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UserError, match=r"a.png: not an image that can be read; use PNG, JPEG or WebP"):
        image_io.load(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(UserError, match="a.tiff: floating-point pixels"):
        image_io.load(tmp_path / "a.tiff")


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="absent.png: there is no such file"):
        image_io.load(tmp_path / "absent.png")
    with pytest.raises(UserError, match="is a folder, not an image"):
        image_io.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="a.png: cannot be read"):
        image_io.load(tmp_path / "file" / "a.png")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=6)
)
def test_damaged_bytes_give_an_image_or_a_user_error(kind, at, damage):
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    at %= len(data)
    data[at : at + len(damage)] = damage
    try:
        assert image_io.decode(bytes(data), max_pixels=10**6, name="owl").dtype == np.uint8
    except UserError as error:
        assert str(error).startswith("owl: ")


def test_only_known_suffixes_are_written(tmp_path):
    for name in ("a.gif", "a"):
        with pytest.raises(UserError, match=r"cannot write .*; use .png, .jpg, .jpeg, .webp"):
            image_io.save(tmp_path / name, RAMP)
    assert list(tmp_path.iterdir()) == []


# ---- values and sizes ----


def test_every_byte_survives_the_way_through_floats():
    every = np.arange(256, dtype=np.uint8)
    values = image_io.to_float(every)
    assert values.dtype == np.float32 and values[0] == -1 and values[-1] == 1
    np.testing.assert_array_equal(image_io.to_uint8(values), every)
    np.testing.assert_array_equal(image_io.to_uint8(np.array([-3.0, 3.0])), [0, 255])


def test_png_bytes_and_data_uri_hold_the_image():
    np.testing.assert_array_equal(image_io.decode(image_io.encode_png(RAMP)), RAMP)
    head, body = image_io.data_uri(RAMP).split(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(image_io.decode(base64.b64decode(body)), RAMP)
    head, body = image_io.data_uri(RAMP, ".jpg").split(",")
    assert head == "data:image/jpeg;base64"
    assert np.abs(image_io.decode(base64.b64decode(body)).astype(int) - RAMP).mean() < 3


def test_an_image_is_shrunk_to_a_side_and_never_enlarged():
    assert image_io.shrink_to(ramp(300, 600), 256).shape == (128, 256, 3)
    assert image_io.shrink_to(ramp(600, 4), 30).shape == (30, 1, 3)
    assert image_io.shrink_to(RAMP, 64) is RAMP


def test_shrinking_averages_and_enlarging_keeps_the_ramp():
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    grey = image_io.resize(np.stack([checks.astype(np.uint8)] * 3, -1), (8, 8)).astype(int)
    assert np.abs(grey - 127).max() <= 3  # antialiased: no moire
    large = image_io.resize(RAMP, (48, 80)).astype(int)
    assert large.shape == (48, 80, 3) and np.abs(large - ramp(48, 80)).max() <= 9
    assert image_io.resize(RAMP, (24, 40)) is RAMP


@QUICK
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 60))
def test_cover_fills_the_size(h, w, height, width):
    assert image_io.resize_and_crop(ramp(h, w), (height, width)).shape == (height, width, 3)


def test_cover_crops_around_the_centre_and_keeps_the_aspect():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255  # the middle square is all that stays
    assert (image_io.resize_and_crop(wide, (20, 20)) == 255).mean() > 0.95
    assert (image_io.resize_and_crop(wide.swapaxes(0, 1), (40, 40)) == 255).mean() > 0.9


# ---- sheets ----


def test_contact_sheet_places_each_image_in_its_tile():
    tiles = [np.full((10, 12, 3), 40 * n, np.uint8) for n in range(5)]
    sheet = image_io.contact_sheet(tiles, columns=3, gap=2)
    assert sheet.shape == (2 * 12 + 2, 3 * 14 + 2, 3)
    for i in range(5):
        top, left = 2 + i // 3 * 12, 2 + i % 3 * 14
        np.testing.assert_array_equal(sheet[top : top + 10, left : left + 12], tiles[i])
    assert (sheet[14:, 30:] == 255).all()  # the sixth tile is empty


def test_contact_sheet_centres_small_images_and_labels_stay_in_their_tiles():
    small, large = np.zeros((10, 10, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)
    sheet = image_io.contact_sheet([small, large], 2, ["a long, long, long label", ""], gap=4)
    np.testing.assert_array_equal(sheet[19:29, 29:39], small)
    footer = sheet[44:]
    assert (footer[:, 4:64] < 255).any() and (footer[:, 64:] == 255).all() and (footer[:, :4] == 255).all()
    assert image_io.contact_sheet([small], 8).shape == (18, 18, 3)


def test_wrapped_lines_fit_and_keep_every_word():
    face, words = image_io.font(12), "an owl stands on a box, extraordinarilyverylongwordindeed and\n\nthe end"
    lines = image_io.wrap(words, face, 80)
    assert " ".join(lines).split() == words.split() and "" in lines
    assert all(face.getlength(line) <= 80 for line in lines if " " in line)
