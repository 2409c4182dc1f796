"""The floor of a render: the same video decoded and encoded with the same settings, the same speech encoded, and nothing between."""

from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer

from orchestrator.media.audio import read_samples
from orchestrator.media.encoders import DEFAULT_PRESET
from orchestrator.media.encoding import Encoding
from orchestrator.media.formats import CODECS
from orchestrator.media.probe import probe_video
from orchestrator.media.reader import VideoReader
from orchestrator.pipeline.concurrency import prefetch
from tests.clips import SPEECH_RATE_HZ

AHEAD = 4
"""Decoded frames that wait for the encoder."""


def decode_encode(video: Path, speech: Path, out: Path, encoding: Encoding, frame_count: int) -> None:
    """Write the first frames of a video again into one file, as fast as it goes: one thread decodes, another one encodes.

    The encoder is set up here and not by the product, so that what the product does to it shows; its preset, quality, key frames and
    threads are the product's.
    """
    info = probe_video(video)
    with VideoReader(info) as reader, av.open(str(out), "w", format="mp4") as container:
        crf = CODECS["h264"].software.default_crf if encoding.crf is None else encoding.crf
        stream = container.add_stream("libx264", rate=info.frame_rate, options={"preset": encoding.preset or DEFAULT_PRESET, "crf": str(crf)})
        stream.width, stream.height = info.working_size_wh
        stream.pix_fmt = info.working_pix_fmt
        context = stream.codec_context
        context.thread_type, context.thread_count = "FRAME", encoding.resolved_thread_count
        context.gop_size = encoding.segment_frame_count(info.frame_rate)
        sound = container.add_stream("aac", rate=SPEECH_RATE_HZ, layout="mono")
        for frame in prefetch(reader.decode_from_start(), AHEAD, "floor-decode"):
            picture = frame.picture
            picture.pts, picture.time_base = frame.index, Fraction(1) / info.frame_rate
            picture.pict_type = av.video.frame.PictureType.NONE
            container.mux(stream.encode(picture))
            if frame.index + 1 == frame_count:
                break
        container.mux(stream.encode(None))
        encode_speech(container, sound, speech)


def encode_speech(container: OutputContainer, sound: AudioStream, speech: Path) -> None:
    """Encode a 16 kHz mono track."""
    position = 0
    for samples in read_samples(speech, "mono", SPEECH_RATE_HZ):
        piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        piece.sample_rate, piece.time_base, piece.pts = SPEECH_RATE_HZ, Fraction(1, SPEECH_RATE_HZ), position
        position += samples.shape[1]
        container.mux(sound.encode(piece))
    container.mux(sound.encode(None))
