"""Faults at named points, for tests: what a crash at exactly this place leaves behind.

``RDTF_FAULT=<point>[:n][=action]`` acts the n-th time (default: the first) that this process reaches the point;
several are parted by commas. Actions: ``kill`` (the default; like ``kill -9``), ``raise`` (:class:`FaultError`),
``term`` and ``int`` (the signal, to this process), ``full`` and ``readonly`` (the disk's errors), ``memory`` (out of
memory). Without the variable a point costs a look-up, about a microsecond.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

VARIABLE = "RDTF_FAULT"
_SIGNALS = {"kill": "SIGKILL", "term": "SIGTERM", "int": "SIGINT"}
_ERRORS = {"full": errno.ENOSPC, "readonly": errno.EROFS}
_reached: dict[str, Counter[str]] = {}  # under the variable's value: a new one counts from its own start


class FaultError(Exception):
    """What the action ``raise`` raises."""


def reach(point: str) -> None:
    """Mark a point that :data:`VARIABLE` can name.

    Raises:
        ValueError: the variable names an unknown action.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        _reached.clear()
        return
    if text not in _reached:
        _reached.clear()
        _reached[text] = Counter()
    _reached[text][point] += 1
    for fault in text.split(","):
        place, _, action = fault.partition("=")
        name, _, times = place.partition(":")
        if name == point and _reached[text][point] == int(times or 1):
            _act(action or "kill", point)


def _act(action: str, point: str) -> None:
    if action in _SIGNALS:
        os.kill(os.getpid(), getattr(signal, _SIGNALS[action]))
    elif action in _ERRORS:
        raise OSError(_ERRORS[action], os.strerror(_ERRORS[action]), point)
    elif action == "memory":
        raise MemoryError(point)
    elif action == "raise":
        raise FaultError(point)
    else:
        raise ValueError(f"{VARIABLE}: unknown action {action!r} for {point}")
