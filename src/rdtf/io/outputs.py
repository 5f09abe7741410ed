"""Writing of outputs, and rules about what they may replace.

A named file is replaced. A folder has to be new or empty. Inputs are never replaced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rdtf.faults import reach
from rdtf.files import atomic_file, check_space, sync
from rdtf.sticker import StickerError

TIMES = "durations.json"
"""File in a folder of frames with their durations in milliseconds, by name."""
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
        ValueError: ``path`` is a file, or a folder that is not empty.
        StickerError: the folder above is not writable.
    """
    with _disk_refuses(path):
        _check_place(path, inputs)
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path}: is there already and is no empty folder; choose another name")


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically. ``durable`` waits until it is on the disk."""
    with _disk_refuses(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path, durable=durable) as file:
            file.write(data)
            reach("export.mid_write")


def write_folder(path: Path, files: Mapping[str, bytes], durations: Sequence[float]) -> None:
    """Write a new folder of files and their times in milliseconds atomically.

    Raises:
        StickerError: the folder cannot be written, or has files in it.
    """
    times = {"durations": dict(zip(files, durations, strict=True))}
    with _disk_refuses(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".rdtf-{secrets.token_hex(8)}.tmp")  # as long as for every other name
        try:
            temporary.mkdir()
            for name, data in {**files, TIMES: (json.dumps(times, indent=1) + "\n").encode()}.items():
                with (temporary / name).open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            reach("export.mid_write")
            if path.exists():
                path.rmdir()  # the system refuses if anybody has put files into it
            temporary.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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


@contextlib.contextmanager
def _disk_refuses(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StickerError(path, f"cannot be written: {error.strerror or error}") from error
