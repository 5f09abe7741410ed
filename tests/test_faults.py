from __future__ import annotations

import errno
import os
import signal

import pytest

from rdtf.faults import VARIABLE, FaultError, reach


def test_the_nth_time_at_the_named_point(monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):  # a new fault counts anew
        monkeypatch.setenv(VARIABLE, "log.append:3=raise")
        reach("log.append")
        reach("data.next")
        reach("log.append")
        with pytest.raises(FaultError, match=r"log\.append"):
            reach("log.append")
        reach("log.append")
        monkeypatch.delenv(VARIABLE)
        reach("log.append")


def test_several_faults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "data.next=full,data.next:2=readonly,log.append=memory")
    for number in (errno.ENOSPC, errno.EROFS):
        with pytest.raises(OSError, match=os.strerror(number)) as error:
            reach("data.next")
        assert error.value.errno == number
    with pytest.raises(MemoryError):
        reach("log.append")


def test_signals(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        monkeypatch.setenv(VARIABLE, "data.next=term")
        reach("data.next")
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == [signal.SIGTERM]
    monkeypatch.setenv(VARIABLE, "data.next=int")
    # What a shell starts in the background ignores Ctrl-C from the start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            reach("data.next")
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_unknown_action_is_no_empty_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "data.next=explode")
    with pytest.raises(ValueError, match=VARIABLE):
        reach("data.next")
