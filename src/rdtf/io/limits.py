"""Limits of processes that decode untrusted files, and the causes of their ends.

Two kinds of processes have these limits. The child of :mod:`rdtf.io.wall` only decodes. It works in any program, also
without ``if __name__ == "__main__"``, and imports no torch. The workers of :mod:`rdtf.data.workers` are parallel, and
compute everything that a dataset needs from a file.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

WAITING_FACTOR = 10
"""Wall-clock limit of a file, as a multiple of its limit of processor time. Machines may be busy."""
KILLED = "its process was killed, most likely for want of memory"


def ending(code: int | None) -> str:
    """How a process ended, such as ``SIGKILL`` (killed from outside) or ``SIGXCPU`` (at its limit of time)."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def limit_time(seconds: float) -> None:
    """Let the system end this process after this much more processor time, rounded up to a second."""
    _limit("RLIMIT_CPU", math.ceil(time.process_time() + seconds))


def no_core_file() -> None:
    """Turn off core files for this process."""
    _limit("RLIMIT_CORE", 0)


@contextmanager
def limited_memory(mebibytes: int) -> Iterator[None]:
    """Limit the memory that this process can take in addition. Larger allocations fail.

    There is no limit on systems other than Linux, which do not tell a process's memory.
    """
    before = None
    if sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        before = _limit("RLIMIT_AS", pages * mmap.PAGESIZE + mebibytes * 2**20)
    try:
        yield
    finally:
        if before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_AS, before)


def fault_of_the_file(lacked: str, mebibytes: int) -> bool:
    """Whether a shortage under :func:`limited_memory` comes from the limit: the machine has that much memory."""
    if lacked != os.strerror(errno.ENOMEM):
        return False
    try:
        np.empty(mebibytes * 2**20, np.uint8)
    except MemoryError:
        return False
    return True


def _limit(what: str, value: int) -> Any:
    """Limit a resource of this process; returns the earlier limits. Does nothing on Windows."""
    try:
        import resource
    except ImportError:
        return None
    number = getattr(resource, what)
    before = resource.getrlimit(number)
    hard = before[1]
    resource.setrlimit(number, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    return before
