"""The time stamps of a video's frames, foreseen from its packets: nothing is decoded."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from orchestrator.media.container import open_media, packets_of
from orchestrator.media.probe import VideoInfo, video_stream


@dataclass(frozen=True, slots=True)
class ForeseenFrames:
    """The frames a decoder should hand out, if the packets tell the truth."""

    pts: NDArray[np.int64]
    """(N,) presentation time stamps, rising, ticks of the stream's time base."""
    is_whole: bool
    """Whether the video has no further frame."""


def foresee_frames(info: VideoInfo, until_s: Fraction | None = None, tick: Callable[[], None] = lambda: None) -> ForeseenFrames | None:
    """Read the packets of a video's first frames; None where they do not tell when frames are shown.

    They do where each has both its stamps, is whole and meant to be shown, none is shown before it can be decoded, and no two are shown at once,
    as in MP4, MOV, Matroska and MPEG-TS that are in order. A decoder may still hand out other frames: whoever goes by this has to compare.

    Args:
        info: the video.
        until_s: time up to which frames are wanted at least, from the first one; None for all.
        tick: called between any two packets.

    Raises:
        UnreadableMedia: FFmpeg cannot open the file.
    """
    if info.is_still or info.is_interlaced or info.has_alpha:
        return None
    shown: list[int] = []
    last_dts: int | None = None
    is_whole = True
    with open_media(info.path) as container:
        stream = video_stream(container, info.stream_index)
        for packet in packets_of(container, stream):
            tick()
            if not packet.size:
                continue
            pts, dts = packet.pts, packet.dts
            if pts is None or dts is None or pts < dts or packet.is_corrupt or packet.is_discard:
                return None
            if last_dts is not None and dts <= last_dts:
                return None
            if not shown and not packet.is_keyframe:
                return None
            shown.append(pts)
            last_dts = dts
            if until_s is not None and (dts - shown[0]) * info.time_base > until_s:
                is_whole = False
                break
    times = np.sort(np.array(shown, np.int64))
    if len(times) and times[0] != shown[0]:
        return None  # pictures before the first key frame may not be decodable
    if last_dts is not None and not is_whole:
        times = times[times <= last_dts]  # what comes behind is shown later than it is decoded
    return ForeseenFrames(times, is_whole) if len(times) and (np.diff(times) > 0).all() else None
