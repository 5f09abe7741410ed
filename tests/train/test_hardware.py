from __future__ import annotations

import platform
import re
import time

import pytest
import torch

import rdtf.train.hardware as hardware
from rdtf.train.hardware import busy_cores_hint, choose_precision, has_bf16, keep_freed_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "features", "width", "expected"),
    [
        ("GenuineIntel", (), 1280, "fp32"),
        ("GenuineIntel", ("avx512",), 1280, "fp32"),
        ("AuthenticAMD", ("avx512", "avx512_bf16"), 32, "bf16"),
        ("GenuineIntel", ("avx512", "avx512_bf16"), 32, "fp32"),
        ("GenuineIntel", ("avx512", "avx512_bf16", "amx_tile"), 64, "fp32"),
        ("GenuineIntel", ("avx512", "avx512_bf16", "amx_tile"), 96, "bf16"),
        ("", ("amx_tile",), 144, "bf16"),
    ],
)
def test_precision_follows_processor_and_width_and_no_clock(
    vendor: str, features: tuple[str, ...], width: int, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "_cpu_vendor", lambda: vendor)
    for feature in ("avx512", "avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{feature}_supported", lambda feature=feature: feature in features)
    for clock in ("time", "monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, clock, lambda: pytest.fail("the precision hangs on a clock"))
    precision, reason = choose_precision(CPU, width)
    assert precision == expected
    assert reason
    assert has_bf16(CPU) is bool({"avx512_bf16", "amx_tile"} & {*features})


def test_a_torch_that_does_not_know_a_feature_gets_fp32(monkeypatch: pytest.MonkeyPatch):
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{feature}_supported", raising=False)
    assert choose_precision(CPU, 1280)[0] == "fp32"


@pytest.mark.skipif(platform.system() != "Linux", reason="/proc/cpuinfo is Linux's")
def test_the_vendor_of_this_processor_is_found():
    assert hardware._cpu_vendor() or platform.machine() not in ("x86_64", "AMD64")


def test_a_gpu_says_itself_whether_it_has_bf16(monkeypatch: pytest.MonkeyPatch):
    for answer in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, answer=answer: answer)
        assert choose_precision(torch.device("cuda"), 32)[0] == ("bf16" if answer else "fp32")
        assert has_bf16(torch.device("cuda")) is answer
    assert choose_precision(torch.device("mps"), 1280)[0] == "fp32"


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
    line = busy_cores_hint(torch.device(device))
    assert line is None if told is None else re.search(told, line)


def test_freed_memory_is_kept_however_often_it_is_asked_for():
    for _ in range(2):
        keep_freed_memory()
        assert torch.ones(64, 1024, 1024).sum() == 2**26  # a block of 256 MiB, which had been mapped


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(hardware.ctypes, "CDLL", lambda name: pytest.fail("no mallopt here"))
    keep_freed_memory()
