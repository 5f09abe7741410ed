"""Messengers' rules written a second time, against the bytes of a file: no line of ``rdtf`` is used here.

PNG, GIF and WebP are taken apart by hand; Pillow and libvpx (through PyAV) decode the pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from PIL import Image


@dataclass
class Seen:
    """What a player makes of a file: ``frames`` (n, h, w, 4), ``times`` in ms, ``plays`` (0 = for ever)."""

    kind: str
    frames: np.ndarray
    times: list[float]
    plays: int = 0
    palette: bool = False

    @property
    def distinct(self) -> int:
        """Frames after equal neighbours are taken together."""
        return 1 + sum(not np.array_equal(a, b) for a, b in zip(self.frames[1:], self.frames[:-1], strict=True))


def look(data: bytes) -> Seen:
    if data.startswith(b"\x89PNG"):
        return _png(data)
    if data.startswith(b"GIF89a"):
        return _gif(data)
    if data.startswith(b"RIFF"):
        return _webp(data)
    assert data.startswith(b"\x1a\x45\xdf\xa3"), data[:12]
    return _webm(data)


def _pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        frames = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.array(image.convert("RGBA")))
    return np.stack(frames)


def _png(data: bytes) -> Seen:
    at, names, times, boxes, sequence = 8, [], [], [], []
    header, plays, count = b"", 0, 1
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(name + body), name
        at += 12 + length
        names.append(name)
        if name == b"IHDR":
            header = body
        elif name == b"acTL":
            count, plays = struct.unpack(">II", body)
            assert b"IDAT" not in names
        elif name == b"fcTL":
            number, *box, top, bottom, _, _ = struct.unpack(">IIIIIHHBB", body)
            sequence.append(number)
            boxes.append(box)
            times.append(1000 * top / (bottom or 100))
        elif name == b"fdAT":
            sequence.append(struct.unpack_from(">I", body)[0])
    assert names[0] == b"IHDR" and names[-1] == b"IEND" and at == len(data)
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    assert sequence == list(range(len(sequence))) and depth == 8
    assert all(x + w <= width and y + h <= height for w, h, x, y in boxes)
    frames = _pillow(data)
    assert len(frames) == count == max(1, len(times))
    return Seen("png", frames, times or [1000.0], plays, colour == 3)


def _gif(data: bytes) -> Seen:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    plays, times = 1, []

    def blocks(at: int) -> tuple[bytes, int]:
        body = b""
        while data[at]:
            body += data[at + 1 : at + 1 + data[at]]
            at += 1 + data[at]
        return body, at + 1

    while data[at] != 0x3B:
        if data[at] == 0x21:
            label = data[at + 1]
            body, at = blocks(at + 2)
            if label == 0xF9:
                times.append(10.0 * struct.unpack_from("<H", body, 1)[0])
            elif label == 0xFF and body.startswith(b"NETSCAPE2.0"):
                again = struct.unpack_from("<H", body, 12)[0]
                plays = again + 1 if again else 0
        else:
            assert data[at] == 0x2C
            x, y, w, h, local = struct.unpack_from("<HHHHB", data, at + 1)
            assert x + w <= width and y + h <= height
            at += 10 + (3 * 2 ** ((local & 7) + 1) if local & 0x80 else 0) + 1
            _, at = blocks(at)
    assert at == len(data) - 1
    frames = _pillow(data)
    # Pillow passes over a frame that is equal to the one before; browsers show it. Their times belong together.
    assert len(frames) <= len(times)
    if len(frames) < len(times):
        with Image.open(io.BytesIO(data)) as image:
            times = []
            for number in range(len(frames)):
                image.seek(number)
                times.append(float(image.info["duration"]))
    return Seen("gif", frames, times, plays, True)


def _webp(data: bytes) -> Seen:
    def chunks(body: bytes) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while at < len(body):
            name, length = struct.unpack_from("<4sI", body, at)
            yield name, body[at + 8 : at + 8 + length]
            at += 8 + length + length % 2

    assert struct.unpack_from("<I", data, 4)[0] == len(data) - 8 and data[8:12] == b"WEBP"
    plays, times = 0, []
    for name, body in chunks(data[12:]):
        if name == b"ANIM":
            plays = struct.unpack_from("<H", body, 4)[0]
        elif name == b"ANMF":
            times.append(float(int.from_bytes(body[12:15], "little")))
    frames = _pillow(data)
    assert len(frames) == max(1, len(times))
    return Seen("webp", frames, times or [1000.0], plays)


def _webm(data: bytes) -> Seen:
    with av.open(io.BytesIO(data), format="matroska") as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert stream.codec_context.name == "vp9" and stream.metadata.get("alpha_mode") == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        starts, frames = [], []
        for packet in container.demux(stream):
            if packet.size:
                starts.append(1000 * float(packet.pts * packet.time_base))
            frames += [frame.to_ndarray(format="rgba") for frame in decoder.decode(packet)]
        seconds = container.duration / 1e6
    assert len(frames) == len(starts) and starts[0] == 0
    return Seen("webm", np.stack(frames), list(np.diff([*starts, 1000 * seconds])))


def refusals(data: bytes, target: str) -> list[str]:
    """The rules that a file breaks; numbers as the messengers' pages (or those who publish there) give them."""
    seen = look(data)
    height, width = seen.frames.shape[1:3]
    total, shortest, size = round(sum(seen.times), 6), min(seen.times), len(data)  # 1/60 s has no exact float
    alpha = seen.frames[..., 3]
    rules: dict[str, bool] = {}
    if target in ("telegram", "telegram-emoji"):
        sides = max(width, height) == 512 if target == "telegram" else (width, height) == (100, 100)
        rules = {"VP9": seen.kind == "webm", "256 KB": size <= 256_000, "3 s": total <= 3000.5, "sides": sides}
        rules["30 fps"] = len(seen.frames) <= 30 * total / 1000 + 0.5 and shortest >= 32
    elif target == "whatsapp":
        limit = 500 * 1024 if len(seen.frames) > 1 else 100 * 1024
        rules = {"WebP": seen.kind == "webp", "size": size <= limit, "10 s": total <= 10_000, "8 ms": shortest >= 8}
        rules["512 px"] = (width, height) == (512, 512)
    elif target == "signal":
        rules = {"PNG": seen.kind == "png", "300 KiB": size <= 300 * 1024, "for ever": seen.plays == 0}
        rules["square"] = width == height and 10 <= width <= 512
    elif target == "discord":
        rules = {"PNG": seen.kind == "png", "512 KiB": size <= 512 * 1024, "5 s": total <= 5000}
        rules["320 px"] = (width, height) == (320, 320)
    elif target == "discord-emoji":
        rules = {"GIF": seen.kind == "gif", "256 KiB": size <= 256 * 1024, "128 px": (width, height) == (128, 128)}
    elif target in ("line", "line-emoji"):
        inside = width <= 320 and height <= 270 and max(width, height) >= 270
        rules = {"PNG": seen.kind == "png", "300 KB": size <= 300_000, "RGB": not seen.palette}
        rules["sides"] = inside if target == "line" else (width, height) == (180, 180)
        rules["5 to 20 frames"] = 5 <= seen.distinct <= 20
        rules["whole seconds"] = abs(total / 1000 - round(total / 1000)) < 1e-6 and 1 <= total / 1000 <= 4
        rules["plays"] = 1 <= seen.plays <= 4 and seen.plays * total <= 4000
    elif target == "imessage":
        rules = {"PNG": seen.kind == "png", "500 KB": size <= 500_000}
        rules["sides"] = width == height and width in (300, 408, 618)
    elif target == "slack":
        rules = {"GIF": seen.kind == "gif", "128 KB": size <= 128_000, "128 px": (width, height) == (128, 128)}
        rules["50 frames"] = len(seen.frames) <= 50
    else:
        rules = {"kind": seen.kind == {"apng": "png"}.get(target, target)}
    if seen.kind == "gif":
        rules["alpha"] = bool(np.isin(alpha, (0, 255)).all())
        rules["20 ms"] = shortest >= 20
    return [rule for rule, kept in rules.items() if not kept]
