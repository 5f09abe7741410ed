"""Folders and archives with one interface: names of files, and the bytes of a file.

Archives are listed with limits and read member by member. Nothing is unpacked to disk, and no name in an archive is
used as a path.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from rdtf.files import raise_shortage
from rdtf.io.zip_names import zip_names
from rdtf.sticker import StickerError

ARCHIVES = (".zip", ".wastickers", ".tar", ".tar.gz", ".tgz")
"""Endings of archives."""
MAX_TEXT_BYTES = 256 * 2**20
"""Largest metadata file that is read from an archive, in bytes."""
_SYSTEM_FOLDERS = ("@eadir", "#recycle", "#snapshot", "@recycle", "$recycle.bin", "system volume information")
"""System folders of network drives and Windows, with thumbnails and deleted files."""
_TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits for archives."""

    members: int = 200_000
    total_bytes: int = 50 * 10**9  # inflated
    gzip_bytes: int = 4 * 10**9  # inflated size of a compressed TAR, which is read from its start for each member
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
        kind: kind of the archive.
        offset: number of a ZIP's member, or offset of the data in a TAR (in the inflated bytes of a compressed TAR).
        stored: bytes in the archive.
        size: bytes of the file.
    """

    kind: Literal["zip", "tar", "tar.gz"]
    offset: int
    stored: int
    size: int


@runtime_checkable
class Tree(Protocol):
    """Files below a folder or in an archive.

    Attributes:
        names: names of all regular files that are not hidden, sorted, with "/" between folders, relative to the root.
        problems: entries that cannot be used: links, devices, bad names. Paths are relative to the root.
        hidden: number of hidden files.
    """

    names: list[str]
    problems: list[StickerError]
    hidden: int

    def place(self, name: str) -> tuple[str, Member | None]:
        """The path of the file on disk, and the position within an archive."""
        ...

    def open(self, name: str) -> io.BufferedIOBase:
        """Open a file of ``names``. Raises KeyError or OSError for another name."""
        ...


def is_archive(name: str) -> bool:
    """Whether a name has the ending of an archive."""
    return name.lower().endswith(ARCHIVES)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder above it, is hidden or belongs to a system (``__MACOSX``, ``@eaDir``)."""
    *folders, last = name.split("/")
    return last.startswith(".") or any(map(_is_hidden_folder, folders))


def _is_hidden_folder(name: str) -> bool:
    return name.startswith((".", "__")) or name.lower() in _SYSTEM_FOLDERS


class FolderTree:
    """The files of a folder and its subfolders. Links are followed only to files inside the folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []
        self.problems: list[StickerError] = []
        self.hidden = 0
        inside = root.resolve()
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(root / folder) as entries:
                    for entry in entries:
                        self._take(f"{folder}{entry.name}", entry, inside, waiting)
            except OSError as error:
                raise_shortage(error, root / folder)
                self._refuse(folder.rstrip("/") or ".", error.strerror or str(error))
        self.names.sort()

    def _take(self, name: str, entry: os.DirEntry[str], inside: Path, folders: list[str]) -> None:
        if entry.is_dir(follow_symlinks=False):
            if _is_hidden_folder(entry.name):
                self.hidden += sum(len(files) for _, _, files in os.walk(entry.path))
            else:
                folders.append(f"{name}/")
        elif entry.is_symlink() and (self.root / name).is_dir():
            self._refuse(name, "a link to a folder is not followed")
        elif entry.name.startswith("."):
            self.hidden += 1
        elif entry.is_file(follow_symlinks=False):
            self.names.append(name)
        elif not (self.root / name).is_file():  # for example a link to itself
            self._refuse(name, "not a regular file")
        elif not (self.root / name).resolve().is_relative_to(inside):
            self._refuse(name, "a link out of the folder is not followed")
        else:
            self.names.append(name)

    def _refuse(self, name: str, reason: str) -> None:
        self.problems.append(StickerError(name, reason))

    def place(self, name: str) -> tuple[str, None]:
        """See :class:`Tree`."""
        return f"{self.root}{os.sep}{name}", None

    def open(self, name: str) -> io.BufferedIOBase:
        """See :class:`Tree`."""
        return (self.root / name).open("rb")


class ArchiveTree:
    """The files in a ZIP or TAR archive.

    Args:
        file: the archive.

    Raises:
        StickerError: the file is damaged, no archive, or beyond the LIMITS.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[StickerError] = []
        self.hidden = 0
        self.members: dict[str, Member] = {}
        self._texts: dict[str, bytes] = {}
        try:
            with file.open("rb") as stream:
                head = stream.read(4)
                stream.seek(0)
                listing = _zip_members if head[:2] == b"PK" else _tar_members
                self._collect(listing(file, stream), file.stat().st_size)
        except StickerError:
            raise
        except MemoryError:
            raise
        except Exception as error:  # zipfile and tarfile raise many types for damaged files
            raise StickerError(file, f"no archive that can be read ({type(error).__name__}: {error})") from error
        self.names = sorted(self.members)

    def _collect(self, listing: _Listing, length: int) -> None:
        count = total = texts = 0
        for raw, member, read in listing:
            count += 1
            if count > LIMITS.members:
                raise StickerError(self.file, f"more than {LIMITS.members:,} files in one archive; split it up")
            shown = raw[: LIMITS.name].replace("\0", "\\0")
            if isinstance(member, str):
                self.problems.append(StickerError(shown, member))
                continue
            total += member.size
            most = LIMITS.gzip_bytes if member.kind == "tar.gz" else LIMITS.total_bytes
            if total > min(most, max(LIMITS.ratio * length, LIMITS.ratio_from)):
                raise StickerError(self.file, f"unpacks to more than {total / 10**6:,.0f} MB, which is too much for it")
            try:
                name = _checked_name(raw)
                if member.size > LIMITS.ratio_from and member.size > LIMITS.ratio * member.stored:
                    raise ValueError(f"unpacks to more than {LIMITS.ratio} times its size")
                if name in self.members:
                    raise ValueError("is twice in the archive; the first one is taken")
            except ValueError as error:
                self.problems.append(StickerError(shown, str(error)))
                continue
            if is_hidden(name):
                self.hidden += 1
                continue
            self.members[name] = member
            # Reading a text later would inflate everything before it again.
            if read is not None and name.lower().endswith(_TEXTS) and (texts := texts + member.size) <= MAX_TEXT_BYTES:
                self._texts[name] = read(member.size)

    def place(self, name: str) -> tuple[str, Member]:
        """See :class:`Tree`."""
        return str(self.file), self.members[name]

    def open(self, name: str) -> io.BufferedIOBase:
        """See :class:`Tree`."""
        if name in self._texts:
            return io.BytesIO(self._texts[name])
        return io.BytesIO(read_member(self.file, self.members[name], MAX_TEXT_BYTES))


def read_member(file: Path, member: Member, most: int) -> bytes:
    """The bytes of a file in an archive. Reading the members of a compressed TAR in their order is fastest.

    Raises:
        StickerError: the file is damaged, has changed since it was listed, or has more than ``most`` bytes.
    """
    if member.size > most:
        raise StickerError(file, f"{member.size / 2**20:.0f} MiB is too large (at most {most / 2**20:.0f})")
    try:
        archive = _opened(str(file), file.stat().st_mtime_ns, member.kind)
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
def _opened(file: str, changed: int, kind: str) -> zipfile.ZipFile | io.BufferedIOBase:
    """An open archive, cached because a worker reads several members in their order."""
    if kind == "zip":
        return zipfile.ZipFile(file)
    return gzip.open(file, "rb") if kind == "tar.gz" else Path(file).open("rb")


_Listing = Iterator[tuple[str, Member | str, Callable[[int], bytes] | None]]
"""Name; position, or the reason why it cannot be read; and a function that reads it now if reading later is slow."""


def _zip_members(file: Path, stream: io.BufferedIOBase) -> _Listing:
    with zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        for number, (name, info) in enumerate(zip(zip_names(infos), infos, strict=True)):
            mode = info.external_attr >> 16 if info.create_system == 3 else 0
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield name, "a link or device in an archive is not followed", None
            elif info.flag_bits & 1:
                yield name, "is encrypted", None
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield name, "is packed by another method than deflate; pack the archive anew", None
            else:
                yield name, Member("zip", number, info.compress_size, info.file_size), None


def _tar_members(file: Path, stream: io.BufferedIOBase) -> _Listing:
    with contextlib.ExitStack() as stack:
        kind: Literal["tar", "tar.gz"] = "tar"
        if stream.read(2) == b"\x1f\x8b":
            kind, stream = "tar.gz", stack.enter_context(gzip.open(file, "rb"))
        stream.seek(0)
        most = LIMITS.gzip_bytes if kind == "tar.gz" else file.stat().st_size
        guarded: Any = _Guarded(stream, LIMITS.header_bytes, most)
        archive = stack.enter_context(tarfile.open(fileobj=guarded, mode="r:"))
        last = -1
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # otherwise it keeps all members in memory
            if info.size < 0 or info.offset_data <= last:
                raise ValueError("a size that leads backwards")
            last = info.offset_data
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                yield info.name, "a link, device or sparse file in an archive is not followed", None
            elif info.offset_data + info.size > most:
                yield info.name, "the archive is cut short within it; fetch it again", None
            else:
                member = Member(kind, info.offset_data, info.size, info.size)
                if kind == "tar":
                    yield info.name, member, None
                else:
                    stream.seek(member.offset)
                    yield info.name, member, stream.read


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
