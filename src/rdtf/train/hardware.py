"""What the machine at hand does best."""

from __future__ import annotations

import ctypes
import platform
import time

import torch


def bf16_is_faster(device: torch.device) -> bool:
    """Whether bf16 pays here: on a GPU if it has it; on a CPU by timing a matrix product of a usual size.

    Processors that list avx512_bf16 differ from twice as fast to half as fast, so that the list does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()

    def best(dtype: torch.dtype) -> float:
        a = torch.randn(1024, 512, dtype=dtype)
        b = torch.randn(512, 512, dtype=dtype)
        times = []
        for _ in range(6):
            began = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - began)
        return min(times)

    return best(torch.float32) > 1.5 * best(torch.bfloat16)


def keep_freed_memory() -> None:
    """Tell glibc to keep large freed blocks; else every activation is mapped and cleared anew, 15 % of a step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        trim_threshold, mmap_threshold = -1, -3
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
