"""WebM, Matroska, MP4 and MOV to frames, through FFmpeg (PyAV)."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from rdtf.io.job import STILL_MS, Frames, Job

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_FORMATS = {"matroska": "matroska,webm", "mov": "mov,mp4,m4a,3gp,3g2,mj2"}
# FFmpeg's faster conversion leaves the last columns of some widths unwritten; these flags choose the exact one.
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_MAX_ASPECT = 16.0  # of a pixel; beyond it the header is wrong


def read_video(job: Job, kind: str) -> Frames:
    """The frames of a video as in players: rotated, and with square pixels."""
    if len(job.data) > job.limits.video_bytes:
        raise job.refuse(f"{len(job.data) / 2**20:.0f} MiB is too large for a video")
    if _is_cut(job.data, kind):
        raise job.refuse("is damaged or cut short; fetch the file again")
    times, end = _times(job, kind)
    indices, durations = job.kept(np.diff(np.append(times, end)))
    wanted = set(indices.tolist())
    frames: list[np.ndarray] = []
    with _open(job, kind) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        if tags.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
            # FFmpeg's own VP8 and VP9 decoders drop the alpha plane silently.
            decoder = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
            decoder.extradata = stream.codec_context.extradata
        decoder.thread_count = 1
        reformatter = VideoReformatter()
        seen = 0
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                if seen in wanted:
                    aspect = float(stream.sample_aspect_ratio or 1)
                    pixels = reformatter.reformat(frame, format="rgba", interpolation=_EXACT, threads=1).to_ndarray()
                    frames.append(job.fitted(_turned(job, _squared(job, pixels, aspect), frame)))
                seen += 1
    if seen != len(times):
        raise job.refuse(f"is damaged: {seen} of {len(times)} frames could be decoded")
    if len({frame.shape for frame in frames}) != 1:
        raise job.refuse("its frames have different sizes")
    return frames, durations


def _squared(job: Job, pixels: np.ndarray, aspect: float) -> np.ndarray:
    """Scale a frame ``(h, w, 4)`` whose pixels are ``aspect`` times as wide as high to square pixels."""
    if aspect == 1 or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        return pixels
    height, width = pixels.shape[:2]
    wide = max(1, round(width * aspect))
    job.check(1, wide, height)
    return np.asarray(Image.fromarray(pixels).resize((wide, height), Image.Resampling.BICUBIC))


def _turned(job: Job, pixels: np.ndarray, frame: Any) -> np.ndarray:
    """Apply the display matrix: ``x' = a x + c y`` and ``y' = b x + d y``, where y points down."""
    matrix = next((bytes(data) for data in frame.side_data.keys() if data.type == Type.DISPLAYMATRIX), None)  # noqa: SIM118
    if matrix is None:
        return pixels
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, "<i4").reshape(3, 3) / 65536
    if (a, b, c, d) == (0, 0, 0, 0):
        return pixels
    upright, sideways = b == c == 0, a == d == 0
    if not upright and not sideways:
        raise job.refuse("is turned by other than quarter turns; turn it with a video editor")
    if sideways:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _open(job: Job, kind: str) -> Any:
    # A fixed format, a white list and no protocols, so that a disguised playlist opens no other files.
    options = {"format_whitelist": _FORMATS[kind], "protocol_whitelist": ""}
    return av.open(io.BytesIO(job.data), format=kind, options=options)


def _times(job: Job, kind: str) -> tuple[np.ndarray, float]:
    """Start of each frame and end of the last one in milliseconds, from the packets, without decoding."""
    with _open(job, kind) as container:
        if not container.streams.video:
            raise job.refuse("has no picture, only sound" if container.streams.audio else "has no video in it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise job.refuse("its video codec is unknown")
        packets = [p for p in container.demux(stream) if p.size and p.pts is not None and not p.is_discard]
        if not packets:
            raise job.refuse("has no frames in it")
        job.check(len(packets), stream.codec_context.width, stream.codec_context.height)
        tick_ms = float(stream.time_base) * 1000
        times = np.array(sorted(p.pts for p in packets), np.float64) * tick_ms
        last = max(packets, key=lambda p: p.pts)
    usual = float(np.median(np.diff(times))) if len(times) > 1 else STILL_MS
    length = last.duration * tick_ms if last.duration else usual
    # Frames with equal times are shown for at least a tick each, so that none is lost.
    ticks = np.arange(len(times)) * tick_ms
    times = np.maximum.accumulate(times - ticks) + ticks
    return times - times[0], float(times[-1] - times[0] + max(length, tick_ms))


_NEEDED = frozenset({b"ftyp", b"moov", b"mdat", b"moof"})
_VOID, _CRC, _SEGMENT = b"\xec", b"\xbf", b"\x18\x53\x80\x67"


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the file is shorter than its container says. FFmpeg reads such files silently."""
    if kind == "mov":  # a row of boxes, each begins with its size and type
        at, found = 0, set[bytes]()
        while at + 8 <= len(data):
            size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if size == 1:
                size = int.from_bytes(data[at + 8 : at + 16], "big")
            if size == 0:  # up to the end of the file
                return False
            if at + size > len(data) and (name in _NEEDED or not found >= {b"moov", b"mdat"}):
                return True
            found.add(name)
            at += max(size, 8)
        return not found >= {b"moov"}
    length, at = _ebml_size(data, 4)
    at += length
    while data[at : at + 1] in (_VOID, _CRC):  # elements that may stand anywhere
        length, at = _ebml_size(data, at + 1)
        at += length
    if data[at : at + 4] != _SEGMENT:
        return True
    segment, start = _ebml_size(data, at + 4)
    return start + segment > len(data)


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """The size of an element (0 if it is unknown), and the offset of its body."""
    width = 9 - data[at].bit_length()
    bits = 7 * width
    size = int.from_bytes(data[at : at + width], "big") & ((1 << bits) - 1)
    return (0 if size == (1 << bits) - 1 else size), at + width
