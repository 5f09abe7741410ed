"""Reading files of strangers behind a wall: decoders are native code, and a file that crashes one ends a child process.

The child imports no torch and reads nothing but what it is sent. Who reads thousands of files has worker processes
already (:mod:`rdtf.data.workers`) and calls :mod:`rdtf.io.read` in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rdtf.files import ShortageError, shortage
from rdtf.io.limits import (
    KILLED,
    WAITING_FACTOR,
    ending,
    fault_of_the_file,
    limit_time,
    limited_memory,
    no_core_file,
    was_killed,
    was_over_time,
)
from rdtf.io.read import load_file, read_sticker_bytes
from rdtf.sticker import Sticker, StickerError

SECONDS = 60
"""Processor time that a file may take."""
MEBIBYTES = 6144
"""Memory that a file may take: the largest clip that is read, three times."""
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rdtf.io.wall import serve; serve()"


@dataclass(frozen=True)
class Wanted:
    """A file to read: its name for errors, its bytes, and the arguments of :func:`rdtf.io.read.read_sticker`."""

    name: Path
    data: bytes
    size: int | None = None
    max_frames: int | None = None


def read_sticker(path: Path | str, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
    """Read GIF, WebP, (A)PNG, JPEG, AVIF, SVG, Lottie JSON, dotLottie, TGS, WebM, MP4 or MOV, still or animated.

    The file is decoded in a process of its own, which takes about half a second to start.

    Args:
        path: the file. Its first bytes say what it is, not its name.
        size: scale into a ``size`` x ``size`` transparent canvas, aspect kept; vector files are drawn at that
            size. Without it frames keep the file's size, and a vector file's longer side is at most 512 px.
        max_frames: if the file has more frames, keep at most this many, on an even grid over its time.

    Raises:
        StickerError: the file cannot be read, crashes its decoder, is damaged, beyond the limits, or of no kind that
            is supported.
        ShortageError: the machine lacks memory.
        ValueError: ``size`` or ``max_frames`` below 1.
    """
    return read_stickers([Wanted(Path(path), load_file(Path(path)), size, max_frames)])[0]


def read_stickers(files: Sequence[Wanted]) -> list[Sticker]:
    """Several files through one child.

    Raises:
        StickerError, ShortageError, ValueError: of the first file that cannot be read, see :func:`read_sticker`.
    """
    for file in files:
        for option, value in (("size", file.size), ("max_frames", file.max_frames)):
            if value is not None and value < 1:
                raise ValueError(f"{option} must be 1 or more, got {value}")
    if not files:
        return []
    request = b"".join(
        _packed({"name": os.fspath(f.name), "size": f.size, "max_frames": f.max_frames}, f.data) for f in files
    )
    paths = [str(Path(entry).absolute()) for entry in sys.path]  # the empty one is the current folder
    command = [sys.executable, "-I", "-c", _CHILD, json.dumps(paths)]
    seconds = WAITING_FACTOR * SECONDS * len(files)
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise StickerError(files[0].name, f"is not decoded after {seconds} s") from None
    stickers: list[Sticker] = []
    view = memoryview(done.stdout)
    for file in files:
        header, body, view = _unpacked(view)
        if header is None:
            raise _ended(file.name, done.returncode, done.stderr)
        if "refused" in header:
            raise StickerError(file.name, header["refused"])
        if "lacked" in header:
            raise ShortageError(f"{file.name}: {header['lacked']}; nothing is wrong with the file, try again")
        frames = np.frombuffer(body, np.uint8).reshape(header["shape"])
        durations = np.asarray(header["durations"], np.float64)
        stickers.append(Sticker(frames.copy(), durations, attributes=header["attributes"]))
    return stickers


def _ended(name: Path, code: int, said: bytes) -> Exception:
    """The error of a file whose child has ended without an answer."""
    if was_killed(code):
        return ShortageError(f"{name}: {KILLED}; free some and try again")
    if was_over_time(code):
        return StickerError(name, f"takes more than {SECONDS} s of processor time to decode")
    if code < 0 or code > 0x80000000:  # a signal, or what Windows has in its place
        return StickerError(
            name, f"crashes its decoder ({ending(code) if code < 0 else hex(code)}); convert it with another program"
        )
    last = (said.decode(errors="replace").strip().splitlines() or [f"exit code {code}"])[-1]
    return RuntimeError(f"the process that decodes {name} could not start: {last}")


def serve() -> None:
    """The main function of the child: stickers for the files on standard input."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders that print do not reach the answer
    no_core_file()
    while (received := _received(sys.stdin.buffer)) is not None:
        wanted, data = received
        limit_time(SECONDS)
        try:
            with limited_memory(MEBIBYTES):
                sticker = read_sticker_bytes(data, wanted["name"], size=wanted["size"], max_frames=wanted["max_frames"])
        except StickerError as error:
            lacked = shortage(error)
            if lacked is None:
                out.write(_packed({"refused": error.reason}, b""))
            elif fault_of_the_file(lacked, MEBIBYTES):
                out.write(_packed({"refused": f"needs more than {MEBIBYTES} MiB of memory ({lacked})"}, b""))
            else:
                out.write(_packed({"lacked": lacked}, b""))
        else:
            header = {
                "shape": sticker.frames.shape,
                "durations": sticker.durations.tolist(),
                "attributes": sticker.attributes,
            }
            out.write(_packed(header, np.ascontiguousarray(sticker.frames).data.cast("B")))
        out.flush()  # before the next file, which may be the one that crashes


def _packed(header: dict[str, Any], body: bytes | memoryview) -> bytes:
    """A message: the lengths of its two parts, JSON, bytes."""
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "big"), len(body).to_bytes(8, "big"), text, body])


def _unpacked(data: memoryview) -> tuple[dict[str, Any] | None, memoryview, memoryview]:
    """The first message (None if it is not whole), its bytes, and the rest."""
    text, body = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    end = 16 + text + body
    if len(data) < max(17, end):
        return None, data, data
    return json.loads(bytes(data[16 : 16 + text])), data[16 + text : end], data[end:]


def _received(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    lengths = stream.read(16)
    if len(lengths) < 16:
        return None
    text, body = stream.read(int.from_bytes(lengths[:8], "big")), stream.read(int.from_bytes(lengths[8:], "big"))
    return json.loads(text), body
