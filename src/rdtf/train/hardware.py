"""What training needs to know about the machine: precision, busy cores, memory."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

AMX_WIDTH = 96
"""Channels of the widest layer from which bf16 is taken with AMX. With 144 channels a step in bf16 is 1.5 to 1.8 times
as fast as in fp32; with 96 bf16 is faster too. Nothing narrower has been measured."""
_LOAD_SECONDS = 0.5  # for which the load of the cores is measured


def choose_precision(device: torch.device, width: int) -> tuple[str, str]:
    """``bf16`` or ``fp32`` with the reason, by a rule on the device and the channels of the network's widest layer.

    Nothing is timed, so the same command on the same machine always trains in the same precision.
    ``benchmarks/train_step.py`` compares the rule with measured steps.
    """
    if device.type == "cuda":
        found = has_bf16(device)
        return ("bf16", "the GPU has bf16 instructions") if found else ("fp32", "the GPU has no bf16 instructions")
    if device.type != "cpu":
        return "fp32", f"bf16 has not been measured on {device.type}"
    if _cpu_has("_is_amx_tile_supported"):
        if width >= AMX_WIDTH:
            return "bf16", f"the processor has AMX, and the widest layer has {width} channels ({AMX_WIDTH} or more)"
        return "fp32", f"the processor has AMX, but the widest layer has {width} channels (fewer than {AMX_WIDTH})"
    if _cpu_has("_is_avx512_bf16_supported"):
        # A step in bf16 takes 0.87 times as long as in fp32 on an AMD EPYC, and twice as long on an Intel Xeon.
        if "AMD" in _cpu_vendor():
            return "bf16", "the processor is AMD's and has avx512_bf16"
        return "fp32", "the processor has avx512_bf16 and no AMX, and is not AMD's"
    return "fp32", "the processor has no bf16 instructions"


def has_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 instructions; a processor without them emulates bf16, some seventy times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (_cpu_has("_is_amx_tile_supported") or _cpu_has("_is_avx512_bf16_supported"))


def _cpu_has(feature: str) -> bool:
    """Whether torch finds a feature of this processor. False if the version of torch does not know the feature."""
    return bool(getattr(torch.cpu, feature, lambda: False)())


def _cpu_vendor() -> str:
    """``AuthenticAMD``, ``GenuineIntel`` or another name; empty if the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("vendor_id"):
                return line.split(":", 1)[1].strip()
    return platform.processor()  # names the vendor on Windows


def busy_cores_hint(device: torch.device) -> str | None:
    """A warning if other programs use cores that torch's threads need; None otherwise.

    Threads spin while they wait for each other, so one thread without a core delays all. Beside one busy process, a
    step with two threads took four times as long, and a step with one thread took as long as before
    (``benchmarks/busy_cores.py``).
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return None
    loads = psutil.cpu_percent(_LOAD_SECONDS, percpu=True)
    if hasattr(os, "sched_getaffinity"):  # only these cores may be used by this process
        loads = [load for core, load in enumerate(loads) if core in os.sched_getaffinity(0)]
    cores, busy = len(loads), round(sum(loads) / 100)
    if threads <= cores - busy:
        return None
    return (
        f"Other programs keep {busy} of {cores} cores busy, and threads that wait for each other there take several "
        f"times as long: --threads {max(1, cores - busy)} may well be faster"
    )


def set_threads(threads: int | None) -> int:
    """Set torch's number of threads (None: torch's default) and return it. It changes the last bits of sums."""
    if threads:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks. Otherwise each activation is mapped and cleared anew: 15 % of a step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still take: of a GPU, or of the machine or its control group."""
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
    """Peak memory of this process in bytes since :func:`reset_peak_memory`, or its memory ``now``.

    On a processor this is resident memory, with the pages of mapped files.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) if now else torch.cuda.max_memory_reserved(device)
    info = psutil.Process().memory_info()
    if now:
        return info.rss
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return getattr(info, "peak_wset", info.rss)  # peak_wset: Windows


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak to the current memory. Does nothing for processors on systems other than Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
