"""Atomic writes, locks, and errors of full or read-only disks."""

from __future__ import annotations

import errno
import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from rdtf.faults import reach

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_WRITING = (errno.EROFS, errno.EACCES, errno.EPERM)
_SHORTAGES = (
    *_FULL, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN
)  # fmt: skip
_SHORTAGE_TEXTS = ("can't start new thread", *(os.strerror(number) for number in (errno.EAGAIN, errno.ENOMEM)))
_PARTIAL = ".partial"
LOCK = ".lock"
"""File in a folder that :func:`folder_lock` holds. It is never removed."""
_SLACK = 1 << 20  # bytes for folders and small files


class DiskError(OSError):
    """The disk is full or not writable. The text names the folder and the mend."""

    exit_code = 74


class ShortageError(OSError):
    """The machine lacked memory, threads, open files or a network drive. No file is the cause."""

    exit_code = 71


def shortage(error: BaseException | None) -> str | None:
    """What the machine lacked, if an error or one of its causes says so; otherwise None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError):
            return os.strerror(errno.ENOMEM)
        number = error.errno if isinstance(error, OSError) else None
        if number in _SHORTAGES:
            return os.strerror(number)
        # The text of a ValueError may quote a file.
        said = [text for text in _SHORTAGE_TEXTS if not isinstance(error, ValueError) and text in str(error)]
        if said:
            return said[0]
        error = error.__cause__ or error.__context__
    return None


def raise_shortage(error: Exception, what: object) -> None:
    """Raise a :class:`ShortageError` if the machine lacked something, and ``what`` is not the cause."""
    lacked = shortage(error)
    if lacked is not None:
        raise ShortageError(f"{what}: {lacked}; nothing is wrong with the file, try again") from error


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's list of names is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows syncs only writable files
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Write a file atomically: readers see the old file until the new one is complete.

    Args:
        path: the file's name. Its folder must exist.
        durable: wait until the file is on the disk, so that it survives a power cut. This takes some milliseconds for
            each file; a caller that writes thousands of files syncs them itself.

    Yields:
        a temporary file beside it, open for writing.

    Raises:
        ValueError: the name belongs to a folder or a device.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file; choose another name")
    # Short, because the file's own name may have the greatest length.
    temporary = path.with_name(f".{secrets.token_hex(6)}{_PARTIAL}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        reach("files.before_replace")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` by :func:`atomic_file`."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8 by :func:`atomic_file`."""
    write_bytes(path, text.encode())


def publish(partial: Path, final: Path) -> None:
    """Replace a folder by a finished one.

    After a crash in between, the old folder is ``<final>.old``, and :func:`mend` restores it.
    """
    for folder, _, names in os.walk(partial):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))
    old = final.with_name(f"{final.name}.old")
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        reach("files.mid_publish")
    partial.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a folder. After a crash in between, no incomplete folder has its name."""
    removed = folder.with_name(f"{folder.name}.removed")
    folder.rename(removed)
    reach("files.mid_remove")
    shutil.rmtree(removed)


def mend(folder: Path, name: str) -> None:
    """Clean up ``folder`` after a crash in :func:`publish`, :func:`remove` or :func:`atomic_file`.

    No other process may be writing into the folder.

    Args:
        name: name or pattern of the published or removed folders.
    """
    for leftover in folder.glob(f".????????????{_PARTIAL}"):
        leftover.unlink()
    for old in folder.glob(f"{name}.old"):
        if not old.with_suffix("").exists():
            old.rename(old.with_suffix(""))
    for ending in ("partial", "old", "removed"):
        for leftover in folder.glob(f"{name}.{ending}"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def check_writable(folder: Path) -> None:
    """Make ``folder`` if necessary, and check that files can be written into it.

    Raises:
        DiskError: they cannot.
    """
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reach("files.probe")
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        if error.errno in _FULL:
            raise DiskError(_full(folder, 0)) from error
        raise DiskError(f"{folder} cannot be written to ({error.strerror}); choose another folder") from error


def check_new_folder(folder: Path) -> None:
    """Check that a folder for new files does not exist or is empty.

    Raises:
        ValueError: the folder has files, or the path is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; choose a new folder")


def check_space(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes fit on the disk.

    Raises:
        DiskError: they do not fit.
    """
    if shutil.disk_usage(folder).free < needed + _SLACK:
        raise DiskError(_full(folder, needed))


@contextmanager
def disk_errors(folder: Path, needed: int = 0) -> Iterator[None]:
    """Turn errors of libraries about a full or read-only disk into a :class:`DiskError`."""
    try:
        yield
    except DiskError:
        raise
    except (OSError, SafetensorError) as error:
        number = getattr(error, "errno", None)
        codes = [code for code in (*_FULL, *_NO_WRITING) if f"os error {code}" in str(error)]  # by Rust libraries
        if number in _FULL or (codes and codes[0] in _FULL):
            raise DiskError(_full(folder, needed)) from error
        if number in _NO_WRITING or codes:
            raise DiskError(f"{folder} cannot be written to any more ({error})") from error
        raise


def _full(folder: Path, needed: int) -> str:
    need = f"{_megabytes(needed)} are needed, " if needed else ""
    try:
        free = _megabytes(shutil.disk_usage(folder).free)
    except OSError:
        free = "an unknown amount"
    return f"{folder}: the disk is full ({need}{free} free); free some space. What was saved before is untouched"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Lock a folder. The lock ends with the process.

    Args:
        what: name of the folder's content, for the message.

    Raises:
        ValueError: another process has the lock.
    """
    holder = folder / ".lock.json"
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        try:
            facts = json.loads(holder.read_text(encoding="utf-8"))
            who = f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        raise ValueError(f"{folder}: {what} is in use by {who}; wait for it, stop it or choose another") from None
    try:
        facts = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now().isoformat(timespec="seconds")}
        holder.write_text(json.dumps(facts), encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
