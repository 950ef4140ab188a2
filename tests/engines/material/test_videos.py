"""Clips from video files that the tests write: which frames, when, in which colours, and what is no clip."""

import numpy as np
import pytest

from macro.engines.material import FolderMaterial, Options
from macro.utils.errors import ItemError
from macro.utils.images import save

cv2 = pytest.importorskip("cv2")

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 210), (220, 210, 60)]  # RGB of the shots


def write(path, images, fps, codec="mp4v"):
    """A video of these images, uint8[h, w, 3] RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    assert video.isOpened()
    for image in images:
        video.write(np.ascontiguousarray(image[..., ::-1]))
    video.release()


def shots(lengths, size=(48, 64)):
    """Frames of one colour a shot; the frame's number is the height of a dark bar at its left."""
    images = []
    for n, length in enumerate(lengths):
        for _ in range(length):
            image = np.full((*size, 3), COLOURS[n % 4], np.uint8)
            image[: len(images) % size[0] + 1, :16] = 10
            images.append(image)
    return images


def number_of(pixels):
    """Which frame it is, read off its bar."""
    return int((pixels[:, 4].mean(1) < 60).sum()) - 1


def material(root, **options):
    return FolderMaterial(root, Options(**options))


@pytest.mark.parametrize("codec, suffix", [("mp4v", ".mp4"), ("MJPG", ".avi"), ("mp4v", ".mkv")])
def test_frames_have_their_colours_and_times(tmp_path, codec, suffix):
    write(tmp_path / f"videos/film{suffix}", shots([10, 8, 12]), 10, codec)
    clip = material(tmp_path, rate=1000.0).clip(0, 0)
    assert len(clip.frames) == 30
    np.testing.assert_allclose(clip.seconds, np.arange(30) / 10, atol=1.1e-3)  # .mkv counts milliseconds
    assert [number_of(frame.pixels) for frame in clip.frames] == list(range(30))
    for n, frame in enumerate(clip.frames):
        expected = COLOURS[0 if n < 10 else 1 if n < 18 else 2]
        np.testing.assert_allclose(frame.pixels[24:, 32:].mean((0, 1)), expected, atol=16)
        assert frame.path == str(tmp_path / f"videos/film{suffix}")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # times in fractions, and rounded to milliseconds
@pytest.mark.parametrize("fps, rate", [(10, 2.0), (10, 3.0), (25, 2.0), (30, 7.0), (24, 24.0), (30, 29.0)])
def test_the_first_frame_at_or_after_each_tick_is_taken(tmp_path, suffix, fps, rate):
    write(tmp_path / f"film{suffix}", shots([25, 20]), fps)
    clip = material(tmp_path, rate=rate).clip(0, 0)
    ticks = np.arange(int(44 / fps * rate + 1e-6) + 1) / rate
    expected = sorted({int(np.ceil(tick * fps - 1e-6)) for tick in ticks})
    assert [number_of(frame.pixels) for frame in clip.frames] == [n for n in expected if n < 45]
    np.testing.assert_allclose(clip.seconds, np.array(expected) / fps, atol=1e-3)


def test_a_long_video_is_read_from_a_place_of_each_items_own(tmp_path):
    write(tmp_path / "film.mp4", shots([20] * 10, (256, 64)), 5)  # 40 seconds
    source = material(tmp_path, rate=5.0, seconds=4.0)
    clips = [source.clip(0, index) for index in range(6)]
    for clip in clips:
        assert 18 <= len(clip.frames) <= 21
        assert clip.seconds[-1] - clip.seconds[0] <= 4.0 + 1e-6 and clip.seconds[-1] < 40
        shown = [number_of(frame.pixels) for frame in clip.frames]
        assert shown == [round(5 * second) for second in clip.seconds]  # also after a jump into the file
    assert len({clip.seconds[0] for clip in clips}) > 3
    again = source.clip(0, 2)
    assert again.seconds == clips[2].seconds
    assert all((a.pixels == b.pixels).all() for a, b in zip(again.frames, clips[2].frames, strict=True))


def test_large_frames_are_scaled_down(tmp_path):
    write(tmp_path / "film.mp4", shots([4], (96, 128)), 2)
    assert material(tmp_path, frame_longest=64).clip(0, 0).frames[0].pixels.shape == (48, 64, 3)


def test_a_video_of_one_frame_has_no_shots(tmp_path):
    write(tmp_path / "film.mp4", shots([1]), 10)
    with pytest.raises(ItemError, match=r"film\.mp4: 1 frames at 2 a second; too few for shots"):
        material(tmp_path).clip(0, 0)
    write(tmp_path / "film.mp4", shots([4]), 10)  # it has four, but all within half a second
    with pytest.raises(ItemError, match="1 frames at 2 a second"):
        material(tmp_path).clip(0, 0)


def cut_off(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: b"not a video" * 50, cut_off])
def test_a_broken_video_is_a_fault(tmp_path, spoil):
    write(tmp_path / "film.mp4", shots([10, 10]), 10)
    (tmp_path / "film.mp4").write_bytes(spoil((tmp_path / "film.mp4").read_bytes()))
    with pytest.raises(ItemError, match=r"film\.mp4: not a video that can be read"):
        material(tmp_path).clip(0, 0)


def test_a_film_cut_off_in_the_middle_keeps_what_is_there(tmp_path):
    write(tmp_path / "film.avi", shots([20, 20]), 10, "MJPG")
    whole = (tmp_path / "film.avi").read_bytes()
    (tmp_path / "film.avi").write_bytes(whole[: len(whole) // 2])
    clip = material(tmp_path, rate=10.0).clip(0, 0)
    assert 10 <= len(clip.frames) <= 30
    assert [number_of(frame.pixels) for frame in clip.frames] == list(range(len(clip.frames)))


def test_a_name_is_not_a_pattern(tmp_path):
    for n in range(3):
        save(tmp_path / f"film{n}.png", shots([1])[0])
    (tmp_path / "film%d.mp4").write_bytes(b"")
    with pytest.raises(ItemError, match="not a video that can be read"):
        material(tmp_path).clip(0, 0)
