"""Where this process computes: its device, and how many processor cores it may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def best_device() -> torch.device:
    """The first CUDA GPU that torch sees, or Apple's GPU (``mps``), otherwise the processor.

    ``CUDA_VISIBLE_DEVICES`` chooses among GPUs (empty: none), ``ACCELERATE_USE_CPU=1`` takes the processor.
    """
    import torch  # the processes that read stickers need no torch

    unwanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if unwanted:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def usable_cores() -> int:
    """Processor cores that this process may use, by its affinity and the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text("ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such container, or "max"
        return cores
