"""Writing of outputs, and rules about what they may replace.

A named file is replaced. A folder is replaced only if it is empty, or if its :data:`MARK` proves that RDTF wrote it: it
lists every file with its SHA-256, and no file is missing, changed or added. Inputs are never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rdtf.faults import reach
from rdtf.files import atomic_file, check_space, sync
from rdtf.sticker import StickerError

MARK = "durations.json"
"""File in a folder of frames with the durations and the proof that RDTF wrote the folder."""
_FORMAT = "rdtf frames 1"
_MAX_MARK_BYTES = 16 * 2**20
_MAX_NAME = 255  # bytes of a file name, on every common file system


def check_file(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that a file can be written, before computing anything for it.

    Raises:
        ValueError: ``path`` is an input, or something that may not be replaced.
        StickerError: the folder is not writable.
    """
    with _disk_refuses(path):
        _check_place(path, inputs)
        if os.path.lexists(path) and not path.is_file():
            raise ValueError(f"{path}: is a folder or a device; choose another name")


def check_folder(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Check that a folder of frames can be written, before computing anything for it.

    Raises:
        ValueError: ``path`` holds an input, or anything that :func:`replace_folder` has not written.
        StickerError: the folder above is not writable.
    """
    with _disk_refuses(path):
        _check_place(path, inputs)
        _own_files(path, path)


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically. ``durable`` waits until it is on the disk."""
    with _disk_refuses(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, durable=durable) as file:
            file.write(data)
            reach("export.mid_write")


def replace_folder(path: Path, files: Mapping[str, bytes], durations: Mapping[str, float]) -> None:
    """Write a folder of files and its :data:`MARK` atomically.

    Raises:
        ValueError: ``path`` holds anything that this function has not written.
        StickerError: the folder cannot be written.
    """
    with _disk_refuses(path):
        _own_files(path, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, old = _beside(path), _beside(path)
        mark = {
            "format": _FORMAT,
            "durations": dict(durations),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        everything = {**files, MARK: (json.dumps({**mark, "seal": _seal(mark)}, indent=1) + "\n").encode()}
        try:
            temporary.mkdir()
            for name, data in everything.items():
                _write(temporary / name, data)
            reach("export.mid_write")
            if path.exists():
                path.rename(old)
                own = _own_files(old, path)  # check again after renaming, when nobody else writes into it
                temporary.rename(path)
                _remove(old, own)
            else:
                temporary.rename(path)
            sync(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            if temporary.exists():
                _remove(temporary, everything)


def _check_place(path: Path, inputs: Iterable[Path]) -> None:
    if path.parts and path.parts[0].startswith("~"):
        raise ValueError(f"{path}: '~' was not replaced by the shell; write the home folder in full")
    if any(len(os.fsencode(part)) > _MAX_NAME for part in path.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    if path.is_symlink():
        raise ValueError(f"{path}: is a symbolic link; name the file or folder itself")
    for source in inputs:
        if source.exists() and source.resolve().is_relative_to(path.resolve()):
            raise ValueError(f"{path}: would replace the input {source}; choose another name")
        if source.is_file() and path.is_file() and source.samefile(path):
            raise ValueError(f"{path}: is the input {source} by another name; choose another name")
    above = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise ValueError(f"{path}: {above} is no folder; choose another name")
    with tempfile.TemporaryFile(dir=above):  # permissions alone do not prove that a folder is writable
        check_space(above, 0)


def _own_files(folder: Path, shown: Path) -> list[str]:
    """The files of a folder that RDTF wrote and nobody changed; empty if there is no folder.

    Raises:
        ValueError: there is no proof that RDTF wrote the folder and its files.
    """
    if not os.path.lexists(folder):
        return []
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{shown}: is there already and is no folder; choose another name")
    names = sorted(entry.name for entry in folder.iterdir())
    if not names:
        return []
    refused = f"{shown}: is there already and is no folder of frames that rdtf wrote"
    try:
        if (folder / MARK).stat().st_size > _MAX_MARK_BYTES:
            raise ValueError("too large")
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        seal = mark.pop("seal")
        sums = mark["sha256"]
        if mark["format"] != _FORMAT or seal != _seal(mark) or MARK in sums:
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{refused} ({MARK} does not say so); choose another name") from None
    if names != sorted([*sums, MARK]):
        other = min(set(names) ^ {*sums, MARK})
        raise ValueError(f"{refused} ({other!r} was added or removed); choose another name")
    for name, digest in sums.items():
        file = folder / name
        if file.is_symlink() or not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{refused} ({name!r} was changed); choose another name")
    return names


def _seal(mark: Mapping[str, object]) -> str:
    """A checksum of the mark, because durations that a user edited must not be lost."""
    return hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files by name, then the folder. The system refuses if the folder has other files."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _beside(path: Path) -> Path:
    return path.with_name(f".rdtf-{secrets.token_hex(8)}.tmp")  # as long as for every other name


@contextlib.contextmanager
def _disk_refuses(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StickerError(path, f"cannot be written: {error.strerror or error}") from error
