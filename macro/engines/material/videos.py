"""A video file as a clip: frames at an even rate, with the file's time stamps.

Of a long video some seconds are read, from a given position. Shot boundaries are found elsewhere
(`macro/engines/macrodata/shot_boundaries.py`); a clip only needs two frames.
"""

import math
from pathlib import Path

from macro.engines.material.files import fitted
from macro.engines.material.types import EngineImage, VideoClip
from macro.utils.errors import ItemError, UserError
from macro.utils.images import MAX_PIXELS

VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
ROUNDING = 1e-3  # seconds: some formats count milliseconds


def read_clip(path: Path, rate: float, seconds: float, longest: int, where: float = 0.0) -> VideoClip:
    """Frames of a video, the first at or after each multiple of 1 / `rate` seconds.

    Args:
        rate: frames per second, at most; a video with fewer gives all it has.
        seconds: how much of a longer video is read, ...
        longest: side in pixels to which larger frames are scaled down.
        where: ... from 0 (its start) to 1 (its last `seconds`).

    Returns:
        The clip; its times count from the start of the file.

    Raises:
        ItemError: not a video, broken, too large, or fewer than two frames.
        UserError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError:
        raise UserError("videos: OpenCV is missing; pip install 'macro-compose[engine]'") from None
    # Not one of OpenCV's other readers, which would take a name with a % in it for an image sequence.
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise ItemError(f"{path}: not a video that can be read; it may be broken or cut off")
        width, height = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > MAX_PIXELS:
            raise ItemError(f"{path}: frames of {width:.0f} x {height:.0f} pixels are too large")
        begin = where * max(0.0, _length(video, cv2) - seconds)
        if begin > 0:
            video.set(cv2.CAP_PROP_POS_MSEC, 1000 * begin)
        frames, times, due = [], [], begin
        while video.grab():
            time = video.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if time > begin + seconds:
                break
            # Not due yet, or without a time stamp of its own.
            if time < due - ROUNDING or (times and time <= times[-1]):
                continue
            sound, pixels = video.retrieve()
            if not sound:
                break
            frames.append(EngineImage(fitted(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), longest), path=str(path)))
            times.append(time)
            due = begin + (math.floor((time - begin + ROUNDING) * rate) + 1) / rate
    finally:
        video.release()
    if len(frames) < 2:
        raise ItemError(f"{path}: {len(frames)} frames at {rate:g} a second; too few for shots")
    return VideoClip(tuple(frames), tuple(times))


def _length(video, cv2) -> float:
    """Duration by the file, seconds; 0 if unknown."""
    frames, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    known = frames > 0 and rate > 0 and math.isfinite(frames / rate)
    return frames / rate if known else 0.0
