"""What a preparation remembers: a journal while it runs, a ledger beside the finished dataset.

The journal holds every outcome from the moment it is known, so that a run that is killed goes on where it was. The
ledger says which file each row of the finished dataset came from, so that a later run reads only what is new; the
frames themselves are in the dataset and nowhere else.
"""

from __future__ import annotations

import errno
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rdtf import faults
from rdtf.data.process_file import Kind, Outcome
from rdtf.files import read_at

ENTRY = np.dtype([("name", "<u8"), ("stamp", "<u8"), ("place", "<i8"), ("kind", "u1"), ("content", "V32")])
"""What is held in memory of each sticker: hashes of its name and of its file's state, where its outcome is, how it
ended, and the SHA-256 of its frames."""

# Checksum of all that follows it, length of the payload, kind, name, stamp, content.
_HEAD = struct.Struct("<IIBQQ32s")


class Journal:
    """An append-only file of outcomes. What a crash has cut off at its end is dropped when it is opened.

    Nothing is synced: a process that is killed loses nothing that it wrote. What a power cut tears is told by the
    checksums.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b", buffering=0)
        entries = np.fromiter(self._scan(path), ENTRY)
        _, last = np.unique(entries["name"][::-1], return_index=True)
        self.entries = entries[len(entries) - 1 - last]
        """What was in it when it was opened, the last outcome of each name; ``place`` is for :meth:`outcome`."""

    def _scan(self, path: Path) -> Iterator[tuple[Any, ...]]:
        self._end = 0
        with path.open("rb") as stream:
            while len(head := stream.read(_HEAD.size)) == _HEAD.size:
                checksum, length, kind, name, stamp, content = _HEAD.unpack(head)
                payload = stream.read(length)
                if len(payload) < length or zlib.crc32(payload, zlib.crc32(head[4:])) != checksum:
                    break
                yield name, stamp, self._end, kind, content
                self._end += len(head) + length
        self._file.truncate(self._end)

    def append(self, name: int, stamp: int, outcome: Outcome) -> int:
        """Write an outcome down; returns its place."""
        place, payload = self._end, outcome.payload
        rest = _HEAD.pack(0, len(payload), outcome.kind, name, stamp, outcome.content)[4:]
        data = struct.pack("<I", zlib.crc32(payload, zlib.crc32(rest))) + rest + payload
        half = len(data) // 2
        for part in (data[:half], data[half:]):
            written = self._file.write(part)
            if written != len(part):  # a full disk may take a part of it
                raise OSError(errno.ENOSPC, f"only {written} of {len(part)} bytes were written", self._file.name)
            faults.reach("prepare.record")
        self._end += len(data)
        return place

    def outcome(self, place: int) -> Outcome:
        """The outcome at a place."""
        _, length, kind, _, _, content = _HEAD.unpack(read_at(self._file, _HEAD.size, place))
        return Outcome(Kind(kind), content, read_at(self._file, length, place + _HEAD.size))

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Ledger:
    """Where the stickers of a finished dataset came from.

    Attributes:
        entries: of every sticker that was found, in their order. ``place`` is the row in the dataset, or -1.
        reasons: why a sticker is not in the dataset, by its position; none for copies of an earlier one.
        about: what the dataset was made with: settings, versions, sources.
    """

    entries: np.ndarray
    reasons: dict[int, str]
    about: dict[str, Any]

    def write(self, stream: BinaryIO) -> None:
        """Write it as one file."""
        text = json.dumps({"about": self.about, "reasons": list(self.reasons.items())}, sort_keys=True)
        np.savez(stream, entries=self.entries, text=np.frombuffer(text.encode(), np.uint8))

    @classmethod
    def load(cls, path: Path) -> Ledger | None:
        """Read it; None if there is none that can be read, for all that it saves is time."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                entries, text = arrays["entries"], json.loads(arrays["text"].tobytes())
            if entries.dtype != ENTRY:
                return None
            return cls(entries, {int(position): reason for position, reason in text["reasons"]}, text["about"])
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None


def find(names: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each of ``names`` its position in ``among`` (each name in there once), or -1."""
    if not len(among):
        return np.full(len(names), -1)
    order = np.argsort(among)
    positions = order[np.searchsorted(among, names, sorter=order).clip(max=len(among) - 1)]
    return np.where(among[positions] == names, positions, -1)
