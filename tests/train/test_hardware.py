from __future__ import annotations

import platform
import re
from collections.abc import Callable

import pytest
import torch

import rdtf.train.hardware as hardware
from rdtf.train.hardware import bf16_is_emulated, bf16_is_faster, keep_freed_memory, threads_in_the_way


def test_bf16_is_chosen_by_the_clock(monkeypatch: pytest.MonkeyPatch):
    matrix = torch.ones(4, 4)
    for slower, expected in ((torch.bfloat16, False), (torch.float32, True)):
        now = [0.0]

        def work(now=now, slower=slower) -> None:
            now[0] += 2.0 if (matrix @ matrix).dtype is slower else 1.0

        with monkeypatch.context() as patch:
            patch.setattr(hardware.time, "perf_counter", lambda now=now: now[0])
            assert bf16_is_faster(torch.device("cpu"), work) is expected


def test_bf16_that_is_emulated_is_never_tried_on_a_network(monkeypatch: pytest.MonkeyPatch):
    """Small products are timed instead; a network's pass can take minutes."""
    times = {torch.bfloat16: 9.0, torch.float32: 2.0}

    def timed(call: Callable[[], torch.Tensor], calls: int) -> float:
        assert calls > 3
        return times[call().dtype]

    monkeypatch.setattr(hardware, "best_seconds", timed)
    assert bf16_is_emulated(torch.device("cpu"))
    assert not bf16_is_faster(torch.device("cpu"), lambda: pytest.fail("a network in bf16"))
    times[torch.bfloat16] = 7.0
    assert not bf16_is_emulated(torch.device("cpu"))


def test_a_gpu_says_itself_whether_it_has_bf16(monkeypatch: pytest.MonkeyPatch):
    for answer in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=answer: answer)
        assert bf16_is_faster(torch.device("cuda"), lambda: pytest.fail("nothing to time")) is answer
        assert bf16_is_emulated(torch.device("cuda")) is not answer


@pytest.mark.parametrize(
    ("device", "threads", "loads", "told"),
    [
        ("cpu", 4, (1.0, 99.0, 2.0, 3.0), "keep 1 of 4 cores busy, .*: --threads 3 may"),
        ("cpu", 2, (99.0, 99.0, 98.0, 100.0), "keep 4 of 4 cores busy, .*: --threads 1 may"),
        ("cpu", 3, (1.0, 99.0, 2.0, 3.0), None),
        ("cpu", 4, (10.0, 10.0, 10.0, 10.0), None),
        ("cpu", 4, (0.0, 0.0, 0.0, 0.0, 99.0, 99.0), None),  # cores that are not this process's
        ("cpu", 1, (99.0, 99.0, 99.0, 99.0), None),
        ("cuda", 4, (99.0, 99.0, 99.0, 99.0), None),
    ],
)
def test_cores_that_other_programs_use_are_told(
    device: str, threads: int, loads: tuple[float, ...], told: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(hardware.psutil, "cpu_percent", lambda interval, percpu: [*loads])
    line = threads_in_the_way(torch.device(device))
    assert line is None if told is None else re.search(told, line)


def test_freed_memory_is_kept_however_often_it_is_asked_for():
    for _ in range(2):
        keep_freed_memory()
        assert torch.ones(64, 1024, 1024).sum() == 2**26  # a block of 256 MiB, which had been mapped


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: pytest.fail("no mallopt here"))
    keep_freed_memory()
