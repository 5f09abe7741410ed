"""Folders and archives with one interface: names of files, and the bytes of a file.

Archives are listed with limits and read member by member. Nothing is unpacked to disk, and no name in an archive is
used as a path.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdtf.files import raise_shortage
from rdtf.io.zip_names import zip_names
from rdtf.sticker import StickerError

ARCHIVES = (".zip", ".wastickers", ".tar")
"""Endings of archives."""
_COMPRESSED = (".tar.gz", ".tgz")
MAX_TEXT_BYTES = 256 * 2**20
"""Largest metadata file that is read from an archive, in bytes."""
_SYSTEM_FOLDERS = ("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information")
"""System folders of network drives and Windows, with thumbnails and deleted files."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits for archives."""

    members: int = 200_000
    total_bytes: int = 50 * 10**9  # inflated
    ratio: int = 200  # largest ratio of inflated and stored size, for members larger than ratio_from
    ratio_from: int = 2**20
    header_bytes: int = 2**20
    depth: int = 32
    name: int = 1024


LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        offset: number of a ZIP's member, or offset of the data in a TAR.
        size: bytes of the file.
        zipped: whether the archive is a ZIP.
    """

    offset: int
    size: int
    zipped: bool


def is_archive(name: str) -> bool:
    """Whether a name has the ending of an archive, also of one that is refused."""
    return name.lower().endswith((*ARCHIVES, *_COMPRESSED))


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, is hidden or belongs to a system (``__MACOSX``, ``@eaDir``)."""
    *folders, last = name.split("/")
    return last.startswith(".") or any(map(_is_hidden_folder, folders))


def _is_hidden_folder(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in _SYSTEM_FOLDERS


class Tree:
    """The regular files of a folder or an archive, without hidden files.

    Attributes:
        root: the folder or the archive.
        members: positions of the files in the archive, by name; None in a folder. Names are relative to the root, with
            "/" between folders.
        names: the names in order.
        problems: entries that cannot be used: links, devices, bad names. Paths are relative to the root.
        hidden: number of hidden files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.members: dict[str, Member | None] = {}
        self.problems: list[StickerError] = []
        self.hidden = 0
        self._list()
        self.names = sorted(self.members)

    def _list(self) -> None:
        raise NotImplementedError

    def _refuse(self, name: str, reason: str) -> None:
        self.problems.append(StickerError(name, reason))

    def place(self, name: str) -> tuple[str, Member | None]:
        """The path of the file on disk, and the position within an archive."""
        member = self.members[name]
        return (f"{self.root}{os.sep}{name}" if member is None else str(self.root)), member

    def open(self, name: str) -> io.BufferedIOBase:
        """Open a file of ``names``. Raises KeyError or OSError for another name."""
        member = self.members[name]
        if member is None:
            return (self.root / name).open("rb")
        return io.BytesIO(read_member(self.root, member, MAX_TEXT_BYTES))


class FolderTree(Tree):
    """The files of a folder and its subfolders. Links are followed only to files inside the folder."""

    def _list(self) -> None:
        inside = self.root.resolve()
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(self.root / folder) as entries:
                    for entry in entries:
                        self._take(f"{folder}{entry.name}", entry, inside, waiting)
            except OSError as error:
                raise_shortage(error, self.root / folder)
                self._refuse(folder.rstrip("/") or ".", error.strerror or str(error))

    def _take(self, name: str, entry: os.DirEntry[str], inside: Path, folders: list[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            if _is_hidden_folder(entry.name):
                self.hidden += sum(len(files) for _, _, files in os.walk(entry.path))
            else:
                folders.append(f"{name}/")
        elif entry.is_symlink() and Path(entry.path).is_dir():  # entry.is_dir() raises for a link to itself
            self._refuse(name, "a link to a folder is not followed")
        elif entry.name.startswith("."):
            self.hidden += 1
        elif not entry.is_file(follow_symlinks=False) and not Path(entry.path).is_file():
            self._refuse(name, "not a regular file")
        elif entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(inside):
            self._refuse(name, "a link out of the folder is not followed")
        else:
            self.members[name] = None


class ArchiveTree(Tree):
    """The files in a ZIP or TAR archive.

    Raises:
        StickerError: the file is damaged, no archive, or beyond the LIMITS.
    """

    def _list(self) -> None:
        try:
            with self.root.open("rb") as stream:
                head = stream.read(4)
                stream.seek(0)
                if head[:2] == b"\x1f\x8b":
                    raise StickerError(self.root, "is a compressed TAR; unpack it, or pack it as ZIP")
                self._collect(_zip_members(stream) if head[:2] == b"PK" else _tar_members(stream))
        except (StickerError, MemoryError):
            raise
        except Exception as error:  # zipfile and tarfile raise many types for damaged files
            reason = f"no archive that can be read ({type(error).__name__}: {error})"
            raise StickerError(self.root, reason) from error

    def _collect(self, listing: _Listing) -> None:
        most = min(LIMITS.total_bytes, max(LIMITS.ratio * self.root.stat().st_size, LIMITS.ratio_from))
        total = 0
        for number, (raw, member, stored) in enumerate(listing):
            if number == LIMITS.members:
                raise StickerError(self.root, f"more than {LIMITS.members:,} files in one archive; split it up")
            try:
                if isinstance(member, str):
                    raise ValueError(member)
                total += member.size
                if total > most:
                    reason = f"unpacks to more than {total / 10**6:,.0f} MB, which is too much for it"
                    raise StickerError(self.root, reason)
                name = _checked_name(raw)
                if member.size > LIMITS.ratio_from and member.size > LIMITS.ratio * stored:
                    raise ValueError(f"unpacks to more than {LIMITS.ratio} times its size")
                if name in self.members:
                    raise ValueError("is twice in the archive; the first one is taken")
            except StickerError:
                raise
            except ValueError as error:
                self._refuse(raw[: LIMITS.name].replace("\0", "\\0"), str(error))
                continue
            if is_hidden(name):
                self.hidden += 1
            else:
                self.members[name] = member


def read_member(file: Path, member: Member, most: int) -> bytes:
    """The bytes of a file in an archive.

    Raises:
        StickerError: the file is damaged, has changed since it was listed, or has more than ``most`` bytes.
    """
    if member.size > most:
        raise StickerError(file, f"{member.size / 2**20:.0f} MiB is too large (at most {most / 2**20:.0f})")
    try:
        archive = _opened(str(file), file.stat().st_mtime_ns, member.zipped)
        if isinstance(archive, zipfile.ZipFile):
            with archive.open(archive.infolist()[member.offset]) as stream:
                data = stream.read(member.size)
        else:
            archive.seek(member.offset)
            data = archive.read(member.size)
    except (OSError, EOFError, ValueError, IndexError, zlib.error, zipfile.BadZipFile) as error:
        raise StickerError(file, f"the archive is damaged ({error})") from error
    if len(data) != member.size:
        raise StickerError(file, "the archive is cut short; fetch it again")
    return data


@functools.lru_cache(maxsize=1)
def _opened(file: str, changed: int, zipped: bool) -> zipfile.ZipFile | io.BufferedIOBase:
    """An open archive, cached because a worker reads several members in their order."""
    return zipfile.ZipFile(file) if zipped else Path(file).open("rb")


_Listing = Iterator[tuple[str, Member | str, int]]
"""Name; position, or the reason why it cannot be read; bytes that it takes in the archive."""


def _zip_members(stream: io.BufferedIOBase) -> _Listing:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        for number, (name, info) in enumerate(zip(zip_names(infos), infos, strict=True)):
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            member: Member | str = Member(number, info.file_size, zipped=True)
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                member = "a link or device in an archive is not followed"
            elif info.flag_bits & 1:
                member = "is encrypted"
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                member = "is packed by another method than deflate; pack the archive anew"
            yield name, member, info.compress_size


def _tar_members(stream: io.BufferedIOBase) -> _Listing:
    most = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    guarded: Any = _Guarded(stream, LIMITS.header_bytes, most)
    with tarfile.open(fileobj=guarded, mode="r:") as archive:
        last = -1
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps all members in memory
            if info.size < 0 or info.offset_data <= last:
                raise ValueError("a size that leads backwards")
            last = info.offset_data
            member: Member | str = Member(info.offset_data, info.size, zipped=False)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                member = "a link, device or sparse file in an archive is not followed"
            elif info.offset_data + info.size > most:
                member = "the archive is cut short within it; fetch it again"
            yield info.name, member, info.size


class _Guarded:
    """A stream that limits reads, because tarfile trusts the sizes in headers."""

    def __init__(self, stream: io.BufferedIOBase, largest_read: int, most: int) -> None:
        self._stream, self._largest_read, self._most = stream, largest_read, most
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._largest_read:
            raise ValueError(f"a header of {size:,} bytes")
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        if position > self._most:
            raise ValueError("it is cut short, or unpacks to too much")
        return self._stream.seek(position)


_DRIVE = re.compile(r"[A-Za-z]:")


def _checked_name(raw: str) -> str:
    """A relative name without ``..``, built from the parts of a raw name."""
    name = raw.replace("\\", "/")  # as some Windows programs write it
    if name.startswith("/") or _DRIVE.match(name):
        raise ValueError("an absolute path in an archive is not followed")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("a path out of the archive is not followed")
    if not parts or len(name) > LIMITS.name or len(parts) > LIMITS.depth or "\0" in name:
        raise ValueError("a name that is empty, too long, too deep or holds a NUL character")
    return "/".join(parts)
