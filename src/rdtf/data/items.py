"""Items: stickers that were found but not read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rdtf.data.captions import Caption
from rdtf.io.archives import Member, read_member
from rdtf.io.job import LIMITS
from rdtf.io.multifile import read_frames
from rdtf.io.read import load_file, read_sticker, read_sticker_bytes
from rdtf.io.tables import Cell, read_cell
from rdtf.sticker import Sticker, StickerError

Part = tuple[str, str, Member | None]
"""One file of a sticker: its name without folders, the file on disk, and the position in it."""


@dataclass(frozen=True, slots=True)
class Item:
    """A sticker of a source that was found but not read. It is small and can be pickled.

    Attributes:
        name: the source's label and the path in the source.
        file: the sticker's file on disk, or the archive or table that has it.
        caption: caption and metadata.
        member: position in ``file``; None for the whole file.
        parts: numbered pictures in order, and perhaps a JSON of their times. ``file`` and ``member`` belong to the
            first. Empty if the sticker is a single file.
    """

    name: str
    file: str
    caption: Caption
    member: Member | Cell | None = None
    parts: tuple[Part, ...] = ()

    @property
    def path(self) -> Path:
        """The file on disk."""
        return Path(self.file)

    def read(self, *, size: int | None = None, max_frames: int | None = None) -> Sticker:
        """Decode the sticker. See :func:`~rdtf.io.read.read_sticker` for arguments and errors."""
        if self.parts:
            files = {name: partial(_bytes, file, member) for name, file, member in self.parts}
            return read_frames(files, self.name, size=size, max_frames=max_frames)
        if self.member is None:
            return read_sticker(self.path, size=size, max_frames=max_frames)
        data = _bytes(self.file, self.member)
        return read_sticker_bytes(data, self.name, size=size, max_frames=max_frames)

    def load(self) -> None:
        """Load the sticker's table into memory, before a memory limit for decoding is set."""
        if isinstance(self.member, Cell):
            read_cell(self.path, self.member)

    def stamp(self) -> str:
        """16 hex digits that change if the sticker's file changes, from ``stat`` alone. Captions do not count.

        Raises:
            StickerError: the file is gone.
        """
        known: list[Any] = []
        for _, file, member in self.parts or (("", self.file, self.member),):
            try:
                status = Path(file).stat()
            except OSError as error:
                raise StickerError(file, error.strerror or str(error)) from error
            known += [status.st_size, status.st_mtime_ns, repr(member)]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _bytes(file: str, member: Member | Cell | None) -> bytes:
    """The bytes of a file, a member of an archive or a cell of a table, within the limits."""
    path = Path(file)
    if isinstance(member, Member):
        return read_member(path, member, LIMITS.file_bytes)
    return load_file(path) if member is None else read_cell(path, member)
