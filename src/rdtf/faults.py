"""Faults at named points, for tests: what a crash at exactly this place leaves behind.

``RDTF_FAULT=<point>[:n][=action]`` acts the n-th time (default: the first) that this process reaches the point;
several are parted by commas. Actions: ``kill`` (the default; like ``kill -9``), ``raise`` (:class:`FaultError`),
``stall`` (sleeps until killed), ``term`` and ``int`` (the signal, to this process), ``full`` and ``readonly`` (the
disk's errors), ``memory`` (out of memory). Without the variable a point costs a look-up, about a microsecond.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

VARIABLE = "RDTF_FAULT"

POINTS = frozenset(
    {
        "cache.mid_write",
        "ckpt.tmp_open",
        "ckpt.mid_write",
        "ckpt.before_fsync",
        "ckpt.before_manifest",
        "ckpt.before_rename",
        "ckpt.after_rename",
        "ckpt.before_prune",
        "data.next",
        "export.mid_write",
        "files.before_replace",
        "files.mid_publish",
        "files.mid_remove",
        "files.probe",
        "log.append",
        "pipeline.before_rename",
        "prepare.record",
        "prepare.mid_file",
        "prepare.before_manifest",
        "prepare.after_manifest",
        "publish.before_rename",
        "step.after_backward",
        "step.after_opt",
    }
)
"""Every point there is; a fault elsewhere is refused, for it would never come."""

_reached: dict[str, Counter[str]] = {}  # under the variable's value: a new one counts from its own start


class FaultError(Exception):
    """What the action ``raise`` raises."""


def reach(point: str) -> None:
    """Mark a point that :data:`VARIABLE` can name.

    Raises:
        ValueError: the variable names an unknown point or action.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        _reached.clear()
        return
    assert point in POINTS, point
    if text not in _reached:
        _reached.clear()
        _reached[text] = Counter()
    _reached[text][point] += 1
    for fault in text.split(","):
        place, _, action = fault.partition("=")
        name, _, times = place.partition(":")
        if name not in POINTS:
            raise ValueError(f"{VARIABLE}={text}: no point {name!r}; there are {', '.join(sorted(POINTS))}")
        if name == point and _reached[text][point] == int(times or 1):
            _act(action or "kill", point)


def _act(action: str, point: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise FaultError(point)
    elif action == "stall":
        while True:
            time.sleep(60)
    elif action in ("term", "int"):
        os.kill(os.getpid(), signal.SIGTERM if action == "term" else signal.SIGINT)
    elif action in ("full", "readonly"):
        number = errno.ENOSPC if action == "full" else errno.EROFS
        raise OSError(number, os.strerror(number), point)
    elif action == "memory":
        raise MemoryError(point)
    else:
        raise ValueError(f"{VARIABLE}: unknown action {action!r} for {point}")
