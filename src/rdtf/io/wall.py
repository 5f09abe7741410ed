"""Reading of untrusted files in a child process, because a file that crashes a native decoder ends its process.

The child imports no torch and reads only the bytes that it is sent. Preparing has its own worker processes
(:mod:`rdtf.data.workers`), which call :mod:`rdtf.io.read`.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from rdtf.files import ShortageError, shortage
from rdtf.io.limits import KILLED, WAITING_FACTOR, ending, fault_of_the_file, limit_time, limited_memory, no_core_file
from rdtf.io.read import check_wishes, load_file, read_sticker_bytes
from rdtf.sticker import Sticker, StickerError

SECONDS = 60
"""Processor time that a file may take."""
MEBIBYTES = 6144
"""Memory that a file may take: the largest clip that is read, three times."""
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rdtf.io.wall import serve; serve()"


def read_sticker(path: Path | str, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
    """Read GIF, WebP, (A)PNG, JPEG, AVIF, SVG, Lottie JSON, dotLottie, TGS, WebM, MP4 or MOV, still or animated.

    The file is decoded in a process of its own. The first call starts it, which takes about half a second.

    Args:
        path: the file. Its first bytes say what it is, not its name.
        size: scale into a ``size`` x ``size`` transparent canvas, aspect kept; vector files are drawn at that
            size. Without it frames keep the file's size, and a vector file's longer side is at most 512 px.
        max_frames: if the file has more frames, keep at most this many, on an even grid over its time. A kept frame
            lasts until the next one, so the total duration stays.

    Raises:
        StickerError: the file cannot be read, crashes its decoder, is damaged, beyond the limits, or of no kind that
            is supported.
        ShortageError: the machine lacks memory.
        ValueError: ``size`` or ``max_frames`` below 1.
    """
    return read_bytes(load_file(Path(path)), Path(path), size=size, max_frames=max_frames)


def read_bytes(data: bytes, name: Path, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
    """:func:`read_sticker` for the bytes of a file, which errors call ``name``."""
    check_wishes(size, max_frames)
    request = {"name": os.fspath(name), "size": size, "max_frames": max_frames}
    try:
        child = _idle.pop()
    except IndexError:
        child = _Child()
    answer = child.answer(request, data)
    if answer is None and child.answers:  # it had ended, or an earlier file has damaged it
        child.close()
        child = _Child()
        answer = child.answer(request, data)
    if answer is None:
        raise child.failure(name)
    if _idle:
        child.close()
    else:
        _idle.append(child)
    header, body = answer
    if "refused" in header:
        raise StickerError(name, header["refused"])
    if "lacked" in header:
        raise ShortageError(f"{name}: {header['lacked']}; nothing is wrong with the file, try again")
    frames = np.frombuffer(body, np.uint8).reshape(header["shape"])
    return Sticker(frames.copy(), np.asarray(header["durations"], np.float64), attributes=header["attributes"])


class _Child:
    """A process that decodes one file after the other, until a file crashes it or this process ends.

    Attributes:
        answers: number of files that it has answered.
    """

    def __init__(self) -> None:
        paths = [str(Path(entry).absolute()) for entry in sys.path]  # an empty entry is the current folder
        command = [sys.executable, "-I", "-c", _CHILD, json.dumps(paths)]
        self.answers = 0
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._said)

    def answer(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes] | None:
        """The child's answer for a file; None if the child has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._end = time.monotonic() + WAITING_FACTOR * SECONDS
        timer = threading.Timer(WAITING_FACTOR * SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(_packed(request, data))
            self._process.stdin.flush()
            answer = _received(self._process.stdout)
        except OSError:  # the child has ended
            answer = None
        finally:
            timer.cancel()
        self.answers += answer is not None
        return answer

    def failure(self, name: Path) -> Exception:
        """End the child; returns the error that explains how it ended."""
        late = time.monotonic() >= self._end
        said = self.close()
        code = self._process.returncode
        how = hex(code) if code > 0x80000000 else ending(code)  # Windows has crash codes
        if late:
            return StickerError(name, f"is not decoded after {WAITING_FACTOR * SECONDS} s")
        if how == "SIGKILL":
            return ShortageError(f"{name}: {KILLED}; free some and try again")
        if how == "SIGXCPU":
            return StickerError(name, f"takes more than {SECONDS} s of processor time to decode")
        if how.startswith("exit code"):
            return RuntimeError(f"the process that decodes {name} could not start: {said or how}")
        return StickerError(name, f"crashes its decoder ({how}); convert it with another program")

    def close(self) -> str:
        """End the child; returns the last line that it printed."""
        self._process.kill()
        self._process.communicate()  # closes the pipes
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
        self._said.close()
        return said


_idle: list[_Child] = []
"""At most one child, which the next call takes. Starting one takes half a second."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # it belongs to the parent


@atexit.register
def _close_idle() -> None:
    while _idle:
        _idle.pop().close()


def serve() -> None:
    """The main function of the child: it answers files on standard input with stickers."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of decoders must not mix with answers
    no_core_file()
    while (received := _received(sys.stdin.buffer)) is not None:
        wanted, data = received
        limit_time(SECONDS)
        try:
            with limited_memory(MEBIBYTES):
                sticker = read_sticker_bytes(data, wanted["name"], size=wanted["size"], max_frames=wanted["max_frames"])
        except StickerError as error:
            lacked = shortage(error)
            header: dict[str, Any] = {"refused": error.reason}
            if lacked is not None and fault_of_the_file(lacked, MEBIBYTES):
                header = {"refused": f"needs more than {MEBIBYTES} MiB of memory ({lacked})"}
            elif lacked is not None:
                header = {"lacked": lacked}
            out.write(_packed(header, b""))
        else:
            header = {"shape": sticker.frames.shape, "durations": sticker.durations.tolist()}
            header["attributes"] = sticker.attributes
            out.write(_packed(header, np.ascontiguousarray(sticker.frames).data.cast("B")))
        out.flush()  # the next file may crash


def _packed(header: dict[str, Any], body: bytes | memoryview) -> bytes:
    """A message: the lengths of two parts, a header in JSON, and bytes."""
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "big"), len(body).to_bytes(8, "big"), text, body])


def _received(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """A message; None if the other side ended before it was complete."""
    lengths = stream.read(16)
    text, body = int.from_bytes(lengths[:8], "big"), int.from_bytes(lengths[8:], "big")
    if len(lengths) < 16 or len(header := stream.read(text)) < text or len(data := stream.read(body)) < body:
        return None
    return json.loads(header), data
