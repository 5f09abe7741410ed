"""What the machine at hand does best."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_CLEARLY = 1.15  # what rounds more coarsely has to be faster beyond chance
_EMULATED = 4  # times as long as in fp32: no processor with instructions for bf16 is so far behind
_TIMED = 3  # calls, of which the first makes the kernels
_PRODUCTS = 10  # likewise; where other programs run, some of these short calls are late
_LOOKED_FOR = 0.5  # seconds, at what other programs do


def bf16_is_faster(device: torch.device, work: Callable[[], object]) -> bool:
    """Whether bf16 autocast pays here: on a GPU if it has it; on a CPU by timing ``work`` in both precisions.

    What a processor lists does not tell: with avx512_bf16 some are twice as fast and some half as fast, and even where
    large matrix products are nine times as fast (AMX), a small network can be slower, of many small ones.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if bf16_is_emulated(device):
        return False

    def best(bf16: bool) -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return best_seconds(work, _TIMED)

    return best(False) > _CLEARLY * best(True)


def bf16_is_emulated(device: torch.device) -> bool:
    """Whether a device multiplies in bf16 without instructions for it, by the clock: some seventy times slower.

    It takes a fraction of a second, where a pass of a network that is computed so can take minutes.
    """
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported()

    def best(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, dtype=dtype)
        return best_seconds(lambda: matrix @ matrix, _PRODUCTS)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other wherever another program has one's core
    try:
        return best(torch.bfloat16) > _EMULATED * best(torch.float32)
    finally:
        torch.set_num_threads(threads)


def worthwhile_precisions(device: torch.device) -> list[str]:
    """``fp32``, and ``bf16`` where it is not emulated."""
    return ["fp32"] if bf16_is_emulated(device) else ["fp32", "bf16"]


def best_seconds(work: Callable[[], object], calls: int) -> float:
    """The shortest of some calls on a processor; the first one may make kernels."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def threads_in_the_way(device: torch.device) -> str | None:
    """A line if other programs keep cores of this machine busy that torch's threads are meant to run on.

    Threads spin while they wait for each other, so that one without a core holds up all: beside a single busy process a
    step in two threads takes four times as long, in one thread no longer than alone (``benchmarks/busy_cores.py``).
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return None
    loads = psutil.cpu_percent(_LOOKED_FOR, percpu=True)
    if hasattr(os, "sched_getaffinity"):  # of these alone this process has the use
        loads = [load for core, load in enumerate(loads) if core in os.sched_getaffinity(0)]
    cores, busy = len(loads), round(sum(loads) / 100)
    if threads <= cores - busy:
        return None
    return (
        f"Other programs keep {busy} of {cores} cores busy, and threads that wait for each other there take several "
        f"times as long: --threads {max(1, cores - busy)} may well be faster"
    )


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks; else every activation is mapped and cleared anew, 15 % of a step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take on a device: of a GPU, or of the machine or its control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such group, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, free)


def peak_memory(device: torch.device, *, now: bool = False) -> int:
    """The most bytes that this process has held on a device since :func:`reset_peak_memory`, or those it holds now.

    On a CPU these are resident bytes, pages of mapped files included, as far as the system keeps them in memory.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) if now else torch.cuda.max_memory_reserved(device)
    if now:
        return psutil.Process().memory_info().rss
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak anew from what is held now; without effect where the system cannot (a CPU, but on Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
