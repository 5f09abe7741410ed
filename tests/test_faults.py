from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rdtf
from rdtf.faults import POINTS, VARIABLE, FaultError, reach


def test_nothing_happens_without_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    for point in POINTS:
        reach(point)


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


def test_kill_and_stall():
    """In another process, for it does not live on."""
    code = (
        "from rdtf.faults import reach; reach('data.next'); print('alive', flush=True); reach('log.append'); print(1)"
    )

    def run(fault: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code], env={**os.environ, VARIABLE: fault}, stdout=subprocess.PIPE, text=True
        )

    killed, stalled = run("log.append"), run("log.append=stall")
    assert killed.communicate(timeout=60)[0] == "alive\n"
    assert killed.returncode == -signal.SIGKILL
    assert stalled.stdout is not None
    assert stalled.stdout.readline() == "alive\n"
    with pytest.raises(subprocess.TimeoutExpired):
        stalled.wait(0.3)
    stalled.kill()
    assert stalled.communicate()[0] == ""


@pytest.mark.parametrize("fault", ["ckpt.nowhere", "data.next=explode", ":2"])
def test_mistakes_are_no_empty_tests(monkeypatch: pytest.MonkeyPatch, fault: str):
    monkeypatch.setenv(VARIABLE, fault)
    with pytest.raises(ValueError, match=VARIABLE):
        reach("data.next")


def test_every_point_is_somewhere():
    source = Path(rdtf.__file__).parent
    code = "".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py") if path.name != "faults.py")
    assert set(re.findall(r'reach\("([\w.]+)"\)', code)) == POINTS
