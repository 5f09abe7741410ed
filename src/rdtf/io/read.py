"""Sticker files of every common kind to straight-alpha RGBA frames with their true timing.

Files come from anywhere, so each is checked against :class:`ReadLimits` before it is decoded, decoders see
only the format that the first bytes name, and whatever goes wrong is a :class:`~rdtf.sticker.StickerError`
with a reason. Vector and video decoders are native code that a hostile file may still crash or hold up: read
files of unknown origin in worker processes.
"""

from __future__ import annotations

import base64
import functools
import graphlib
import io
import json
import math
import re
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import thorvg_python as tvg
from PIL import Image, ImageOps, features

from rdtf.pixels import fit, unpremultiply
from rdtf.sticker import Sticker, StickerError

_AVIF = frozenset({".avif"}) if features.check("avif") else frozenset()
SUFFIXES = _AVIF | {
    ".gif", ".webp", ".png", ".apng", ".jpg", ".jpeg", ".json", ".lottie", ".tgs", ".webm", ".mkv", ".mp4", ".mov"
}  # fmt: skip
"""Endings of the files that can be read, in lower case."""

STILL_MS = 1000.0
"""How long a still picture is shown: its file says nothing about it."""
BROWSER_MS = 100.0
"""What browsers show a GIF frame for if its file says 10 ms or less, and so do we. Elsewhere for 0 only."""
VECTOR_SIZE = 512
SOLID_ALPHA = 248
"""Vector rasterisers leave the inside of shapes at alpha 248 to 254; from here on it is meant to be 255."""


@dataclass(frozen=True)
class ReadLimits:
    """What a file may ask for at most. Stickers stay far below; more is a mistake or an attack."""

    image_bytes: int = 20 * 2**20
    lottie_bytes: int = 16 * 2**20  # after inflating
    video_bytes: int = 64 * 2**20
    side: int = 8192
    frame_pixels: int = 16_000_000
    total_pixels: int = 400_000_000  # frames times canvas
    frames: int = 2000
    seconds: float = 60.0
    lottie_depth: int = 64
    lottie_side: int = 4096
    lottie_fps: float = 240.0
    lottie_layers: int = 5000
    lottie_nodes: int = 100_000  # layers once every reference to a composition is followed


@dataclass(frozen=True)
class Job:
    """One file on its way: its bytes and what the caller wants."""

    path: Path
    data: bytes
    size: int | None
    max_frames: int | None
    limits: ReadLimits
    animation: str | None = None

    def refuse(self, reason: str) -> StickerError:
        """The error to raise about this file."""
        return StickerError(self.path, reason)

    def check(self, frames: int, width: int, height: int) -> None:
        """Raise if decoding would take more than the limits allow."""
        limits = self.limits
        if max(width, height) > limits.side or width * height > limits.frame_pixels:
            raise self.refuse(f"{width} x {height} px is too large (at most {limits.side} px a side)")
        if frames > limits.frames:
            raise self.refuse(f"{frames} frames are too many (at most {limits.frames})")
        if frames * width * height > limits.total_pixels:
            raise self.refuse(f"{frames} frames of {width} x {height} px are too much to decode")

    def check_seconds(self, seconds: float) -> None:
        """Raise if it is too long."""
        if seconds > self.limits.seconds:
            raise self.refuse(f"{seconds:.1f} s is too long (at most {self.limits.seconds:g} s)")

    def kept(self, durations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the frames to keep, and how long each of them is shown (milliseconds).

        More than ``max_frames`` frames are sampled where an even grid over the clip's time falls; each kept
        frame lasts until the next kept one, so that the total stays. A frame that covers several grid points
        is kept once, so there may be fewer than ``max_frames``.
        """
        self.check_seconds(durations.sum() / 1000)
        if self.max_frames is None or len(durations) <= self.max_frames:
            return np.arange(len(durations)), durations
        ends = np.cumsum(durations)
        starts = ends - durations
        grid = np.arange(self.max_frames) * ends[-1] / self.max_frames
        indices = np.unique(np.searchsorted(starts, grid + 1e-6, side="right") - 1)
        return indices, np.diff(np.append(starts[indices], ends[-1]))

    def fitted(self, frame: np.ndarray) -> np.ndarray:
        """One ``(h, w, 4)`` frame at the wanted size, with nothing under alpha 0."""
        if self.size is not None:
            frame = fit(frame[None], self.size)[0]
        return np.where(frame[..., 3:] > 0, frame, np.uint8(0))


Frames = tuple[list[np.ndarray], np.ndarray]


def read_sticker(
    path: Path | str,
    *,
    size: int | None = None,
    max_frames: int | None = None,
    limits: ReadLimits = ReadLimits(),
) -> Sticker:
    """Read GIF, WebP, (A)PNG, JPEG, AVIF, Lottie JSON, dotLottie, TGS, WebM, MP4 or MOV, still or animated.

    The first bytes of the file say what it is, not its name. The colour under alpha 0 comes back as 0. A
    still picture lasts 1 s. GIF frames of 10 ms or less last 100 ms, as browsers show them.

    Args:
        path: the file.
        size: scale into a ``size`` x ``size`` transparent canvas, aspect kept; vector files are drawn at that
            size. Without it frames keep the file's size, and a vector file's longer side is at most 512 px.
        max_frames: if the file has more frames, keep at most this many, on an even grid over its time. A kept
            frame lasts until the next one, so the total duration stays. Vector files are drawn at exactly the
            grid's times.
        limits: what the file may ask for.

    Raises:
        StickerError: the file cannot be read, is damaged or cut short, is beyond the limits, or of no kind
            that is supported.
        ValueError: ``size`` or ``max_frames`` below 1.
    """
    path = Path(path)
    return read_sticker_bytes(_load(path, limits), path, size=size, max_frames=max_frames, limits=limits)


def read_sticker_bytes(
    data: bytes,
    name: Path | str,
    *,
    size: int | None = None,
    max_frames: int | None = None,
    limits: ReadLimits = ReadLimits(),
    animation: str | None = None,
) -> Sticker:
    """:func:`read_sticker` for the bytes of a file, which errors call ``name``: the member of an archive, a cell.

    ``animation`` is the one of a dotLottie file that is read, see :func:`lottie_animations`; None for its first.
    """
    for option, value in (("size", size), ("max_frames", max_frames)):
        if value is not None and value < 1:
            raise ValueError(f"{option} must be 1 or more, got {value}")
    path = Path(name)
    if not data:
        raise StickerError(path, "is empty")
    try:
        frames, durations = _reader(path, data)(Job(path, data, size, max_frames, limits, animation))
    except StickerError:
        raise
    except Exception as error:  # decoders raise nearly every type there is on damaged files
        raise StickerError(path, f"cannot be decoded ({type(error).__name__}: {error})") from error
    return Sticker(np.stack(frames), durations)


def _load(path: Path, limits: ReadLimits) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise StickerError(path, "is not a file")
        most = max(limits.image_bytes, limits.lottie_bytes, limits.video_bytes)
        if status.st_size > most:
            raise StickerError(path, f"{status.st_size / 2**20:.0f} MiB is too large (at most {most / 2**20:.0f})")
        return path.read_bytes()
    except OSError as error:
        raise StickerError(path, error.strerror or str(error)) from error


def _reader(path: Path, data: bytes) -> Callable[[Job], Frames]:
    """What the first bytes say."""
    for magic, pillow_format in _PICTURES.items():
        if data.startswith(magic):
            return functools.partial(_picture, kind=pillow_format)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return functools.partial(_picture, kind="WEBP")
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return functools.partial(_video, kind="matroska")
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis"):
        return functools.partial(_picture, kind="AVIF")
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return functools.partial(_video, kind="mov")
    if data.startswith(b"\x1f\x8b"):
        return _tgs
    if data.startswith(b"PK\3\4"):
        return _dotlottie
    if data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _lottie
    readable = ", ".join(sorted(SUFFIXES))
    raise StickerError(path, f"its first bytes are of no kind that can be read ({readable})")


_PICTURES = {
    b"GIF8": "GIF",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
}


# Pictures: Pillow


def _picture(job: Job, kind: str) -> Frames:
    data = job.data
    if len(data) > job.limits.image_bytes:
        raise job.refuse(f"{len(data) / 2**20:.0f} MiB is too large for a picture")
    # Pillow reads the whole frames of a file that is cut between two of them and says nothing.
    if (
        (kind == "GIF" and not data.rstrip(b"\0\r\n").endswith(b";"))
        or (kind == "PNG" and b"IEND" not in data)
        or (kind == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data))
    ):
        raise job.refuse("is cut short; fetch the file again")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.filterwarnings("error", "Invalid APNG")  # else only its first picture is read
        image = Image.open(io.BytesIO(data), formats=(kind,))
    with image:
        width, height = image.size
        # The picture that a PNG shows where APNG is not understood may be no part of the animation.
        first = int(bool(getattr(image, "default_image", False)) and getattr(image, "n_frames", 1) > 1)
        count = getattr(image, "n_frames", 1) - first
        job.check(count, width, height)
        if count == 1 and not first:
            return [job.fitted(_rgba(ImageOps.exif_transpose(image)))], np.array([STILL_MS])
        if job.max_frames is None or count <= job.max_frames:
            frames, delays = [], []
            for index in range(count):
                frames.append(job.fitted(_rgba(_seek(image, first + index))))
                delays.append(_delay(image, kind))
            return frames, job.kept(np.array(delays))[1]
        # The times of all frames are needed to choose some, and are known only once each was decoded.
        times = np.array([_delay(_seek(image, first + index), kind) for index in range(count)])
        indices, durations = job.kept(times)
        return [job.fitted(_rgba(_seek(image, first + int(index)))) for index in indices], durations


def _seek(image: Image.Image, index: int) -> Image.Image:
    image.seek(index)
    image.load()  # WebP and AVIF set the frame's duration only here
    return image


def _delay(image: Image.Image, kind: str) -> float:
    ms = float(image.info.get("duration", 0))
    shortest = 10.0 if kind == "GIF" else 0.0
    return ms if ms > shortest and math.isfinite(ms) else BROWSER_MS


def _rgba(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    return np.array(image.convert("RGBA"))


# Lottie and TGS: ThorVG


@functools.cache
def _engine() -> tvg.Engine:
    return tvg.Engine(threads=0)


def _tgs(job: Job) -> Frames:
    """Gzip around Lottie JSON. The limit counts what all gzip members together inflate to."""
    rest, inflated, most = job.data, b"", job.limits.lottie_bytes
    while rest.startswith(b"\x1f\x8b"):
        member = zlib.decompressobj(wbits=31)
        inflated += member.decompress(rest, most + 1 - len(inflated))
        if len(inflated) > most:
            raise job.refuse(f"unpacks to more than {most // 2**20} MiB")
        if not member.eof:
            raise job.refuse("is cut short; fetch the file again")
        rest = member.unused_data
    return _lottie(replace(job, data=inflated))


def lottie_animations(stream: io.BufferedIOBase) -> list[str]:
    """The ids of the animations in a dotLottie file, in its order.

    Raises:
        ValueError, zipfile.BadZipFile, KeyError: it is none, or damaged.
    """
    with zipfile.ZipFile(stream) as archive:
        manifest = json.loads(_unpacked(archive, "manifest.json", 2**20))
    return list(dict.fromkeys(animation["id"] for animation in manifest["animations"]))


def _dotlottie(job: Job) -> Frames:
    """ZIP around Lottie JSON and its pictures (https://dotlottie.io/spec/1.0 and 2.0), which are put into the JSON."""
    most = job.limits.lottie_bytes
    ids = lottie_animations(io.BytesIO(job.data))
    chosen = ids[0] if job.animation is None else job.animation
    with zipfile.ZipFile(io.BytesIO(job.data)) as archive:
        names = set(archive.namelist())
        place = next((name for name in (f"animations/{chosen}.json", f"a/{chosen}.json") if name in names), None)
        if place is None:
            raise job.refuse(f"has no animation {chosen!r} in it")
        data = _unpacked(archive, place, most)
        most -= len(data)
        root = json.loads(data)
        for asset in root.get("assets") or []:
            picture = next(
                (name for folder in ("images", "i") if (name := f"{folder}/{asset.get('p')}") in names), None
            )
            if picture is not None:
                data = _unpacked(archive, picture, most)
                most -= len(data)
                kind = "jpeg" if data.startswith(b"\xff\xd8") else "webp" if data[8:12] == b"WEBP" else "png"
                asset |= {"p": f"data:image/{kind};base64,{base64.b64encode(data).decode()}", "u": "", "e": 1}
    return _lottie(replace(job, data=json.dumps(root).encode()))


def _unpacked(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    with archive.open(name) as stream:
        data = stream.read(max(0, most) + 1)
    if len(data) > most:
        raise ValueError(f"{name} unpacks to too much")
    return data


def _lottie(job: Job) -> Frames:
    width, height, fps, length = _check_lottie(job)
    longer = max(width, height)
    scale = (job.size or min(VECTOR_SIZE, longer)) / longer
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    total = max(1, round(length))  # not one more: frame op is frame ip of the next round
    count = total if job.max_frames is None else min(total, job.max_frames)
    job.check_seconds(total / fps)
    job.check(count, w, h)
    animation = tvg.LottieAnimation(_engine())
    canvas = tvg.SwCanvas(_engine())
    try:
        picture = animation.get_picture()
        if picture.load_data(job.data, "lottie", None, True) != tvg.Result.SUCCESS:
            raise job.refuse("is no Lottie animation that ThorVG can load")
        picture.set_size(w, h)
        canvas.set_target(w, h, cs=tvg.Colorspace.ABGR8888)
        buffer = canvas.buffer_arr
        assert buffer is not None
        canvas.add(picture)
        drawn = np.empty((count, h, w, 4), np.uint8)
        for index in range(count):
            animation.set_frame(index * total / count)
            canvas.update()
            canvas.draw(True)
            canvas.sync()
            drawn[index] = np.frombuffer(bytes(buffer), np.uint8).reshape(h, w, 4)
    finally:
        canvas.destroy()
        animation._del()
    if not drawn[..., 3].any():
        raise job.refuse("draws nothing (text layers and expressions are not supported)")
    frames = unpremultiply(drawn)  # ThorVG's colours are premultiplied
    frames[..., 3][frames[..., 3] >= SOLID_ALPHA] = 255
    if job.size is not None:
        frames = fit(frames, job.size)
    return list(frames), np.full(count, total / fps * 1000 / count)


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _check_lottie(job: Job) -> tuple[float, float, float, float]:
    """Width, height, frames a second and length in frames of a Lottie file that is safe to draw."""
    data, limits = job.data, job.limits
    if len(data) > limits.lottie_bytes:
        raise job.refuse(f"{len(data) / 2**20:.0f} MiB is too large for a Lottie file")
    # Nesting is counted before anything parses it: deep nesting overflows the stack of native parsers.
    marks = np.frombuffer(_STRING.sub(b"", data), np.uint8)
    steps = np.isin(marks, (ord("{"), ord("["))).astype(np.int32) - np.isin(marks, (ord("}"), ord("]")))
    if len(steps) and steps.cumsum().max() > limits.lottie_depth:
        raise job.refuse(f"is nested more than {limits.lottie_depth} deep")
    try:
        root = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise job.refuse(f"is no valid JSON ({error})") from error
    numbers = [root.get(key) for key in ("w", "h", "fr", "ip", "op")]
    if not isinstance(root.get("layers"), list) or not all(_is_number(n) for n in numbers):
        raise job.refuse("is JSON, but no Lottie animation (it needs numbers w, h, fr, ip, op and a list of layers)")
    width, height, fps, start, end = numbers
    if not (1 <= width <= limits.lottie_side and 1 <= height <= limits.lottie_side):
        raise job.refuse(f"its canvas of {width} x {height} is outside 1 to {limits.lottie_side}")
    if not 0 < fps <= limits.lottie_fps:
        raise job.refuse(f"{fps} frames a second are outside 0 to {limits.lottie_fps:g}")
    if not end > start:
        raise job.refuse(f"its last frame ({end}) does not come after its first ({start})")
    _check_layers(job, root)
    return width, height, fps, end - start


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_layers(job: Job, root: dict[str, Any]) -> None:
    """No endless references, not too many layers, no pictures from outside the file."""
    assets = {str(asset.get("id")): asset for asset in root.get("assets") or []}
    for asset in assets.values():
        if "layers" not in asset and "p" in asset:
            _check_embedded(job, str(asset["p"]))
    layers: dict[str | None, list[Any]] = {name: asset.get("layers") or [] for name, asset in assets.items()}
    layers[None] = root["layers"]
    if sum(map(len, layers.values())) > job.limits.lottie_layers:
        raise job.refuse(f"has more than {job.limits.lottie_layers} layers")
    try:
        for group in layers.values():
            parents = {layer.get("ind"): [layer["parent"]] for layer in group if "parent" in layer}
            graphlib.TopologicalSorter(parents).prepare()
        uses = {
            name: [str(layer["refId"]) for layer in group if str(layer.get("refId")) in layers]
            for name, group in layers.items()
        }
        inside_out = list(graphlib.TopologicalSorter(uses).static_order())
    except graphlib.CycleError:
        raise job.refuse("a layer or composition contains itself") from None
    nodes: dict[str | None, int] = {}
    for name in inside_out:
        nodes[name] = len(layers[name]) + sum(nodes[used] for used in uses[name])
    if nodes[None] > job.limits.lottie_nodes:
        raise job.refuse(f"unfolds to more than {job.limits.lottie_nodes} layers")


def _check_embedded(job: Job, source: str) -> None:
    if not source.startswith("data:image/"):
        raise job.refuse(f"needs the picture {source[:80]!r}, which lies outside the file; embed it")
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])), formats=("PNG", "JPEG", "WEBP")) as image:
        job.check(1, *image.size)


# Video: FFmpeg through PyAV

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_FORMATS = {"matroska": "matroska,webm", "mov": "mov,mp4,m4a,3gp,3g2,mj2"}


def _video(job: Job, kind: str) -> Frames:
    if len(job.data) > job.limits.video_bytes:
        raise job.refuse(f"{len(job.data) / 2**20:.0f} MiB is too large for a video")
    if _is_cut(job.data, kind):
        raise job.refuse("is damaged or cut short; fetch the file again")
    times, end = _video_times(job, kind)
    indices, durations = job.kept(np.diff(np.append(times, end)))
    wanted = set(indices.tolist())
    frames: list[np.ndarray] = []
    with _open_video(job, kind) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        if tags.get("alpha_mode") == "1" and decoder.name in _ALPHA_DECODERS:
            # FFmpeg's own VP8 and VP9 decoders drop the alpha plane without a word.
            decoder = av.CodecContext.create(_ALPHA_DECODERS[decoder.name], "r")
            decoder.extradata = stream.codec_context.extradata
        decoder.thread_count = 1
        seen = 0
        for packet in container.demux(stream):
            for frame in decoder.decode(packet):
                if seen in wanted:
                    frames.append(job.fitted(frame.to_ndarray(format="rgba")))
                seen += 1
    if seen != len(times):
        raise job.refuse(f"is damaged: {seen} of {len(times)} frames could be decoded")
    if len({frame.shape for frame in frames}) != 1:
        raise job.refuse("its frames have different sizes")
    return frames, durations


def _open_video(job: Job, kind: str) -> Any:
    # A format by name, a white list and no protocols: a playlist in disguise must not open other files.
    options = {"format_whitelist": _FORMATS[kind], "protocol_whitelist": ""}
    return av.open(io.BytesIO(job.data), format=kind, options=options)


def _video_times(job: Job, kind: str) -> tuple[np.ndarray, float]:
    """When each frame begins and the last one ends (milliseconds), from the packets, nothing decoded."""
    with _open_video(job, kind) as container:
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
    # Two frames at one time: show each for at least a tick, so that none is lost.
    ticks = np.arange(len(times)) * tick_ms
    times = np.maximum.accumulate(times - ticks) + ticks
    return times - times[0], float(times[-1] - times[0] + max(length, tick_ms))


def _is_cut(data: bytes, kind: str) -> bool:
    """Whether the container says that it is longer than the file: FFmpeg reads what there is without a word."""
    if kind == "mov":  # a row of boxes, each begins with its size
        at = 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if size == 1:
                size = int.from_bytes(data[at + 8 : at + 16], "big")
            if size == 0:  # up to the end of the file
                return False
            at += max(size, 8)
        return at > len(data)
    length, at = _ebml_size(data, 4)
    if data[at + length : at + length + 4] != b"\x18\x53\x80\x67":  # what follows the header is one "Segment"
        return True
    segment, start = _ebml_size(data, at + length + 4)
    return start + segment > len(data)


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """The size written at ``at`` (0 where it is left open), and where what it measures begins."""
    width = 9 - data[at].bit_length()
    bits = 7 * width
    size = int.from_bytes(data[at : at + width], "big") & ((1 << bits) - 1)
    return (0 if size == (1 << bits) - 1 else size), at + width
