from __future__ import annotations

import platform

import pytest
import torch

import rdtf.train.hardware as hardware
from rdtf.train.hardware import bf16_is_faster, keep_freed_memory


def test_bf16_is_chosen_by_the_clock(monkeypatch: pytest.MonkeyPatch):
    assert isinstance(bf16_is_faster(torch.device("cpu")), bool)

    for slower, expected in ((torch.bfloat16, False), (torch.float32, True)):
        now, durations = [0.0], {}
        randn = torch.randn

        def drawn(*size: int, dtype: torch.dtype, durations=durations, randn=randn, slower=slower) -> torch.Tensor:
            durations["last"] = 2.0 if dtype is slower else 1.0
            return randn(1, 1, dtype=dtype)

        def clock(now=now, durations=durations) -> float:
            now[0] += durations["last"]
            return now[0]

        with monkeypatch.context() as patch:
            patch.setattr(hardware.torch, "randn", drawn)
            patch.setattr(hardware.time, "perf_counter", clock)
            assert bf16_is_faster(torch.device("cpu")) is expected


def test_a_gpu_says_itself_whether_it_has_bf16(monkeypatch: pytest.MonkeyPatch):
    for answer in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda answer=answer: answer)
        assert bf16_is_faster(torch.device("cuda")) is answer


def test_freed_memory_is_kept_however_often_it_is_asked_for():
    for _ in range(2):
        keep_freed_memory()
        assert torch.ones(64, 1024, 1024).sum() == 2**26  # a block of 256 MiB, which had been mapped


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: pytest.fail("no mallopt here"))
    keep_freed_memory()
