"""Where this process computes."""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The first CUDA GPU that torch sees, or Apple's GPU (``mps``), otherwise the processor.

    ``CUDA_VISIBLE_DEVICES`` chooses among GPUs (empty: none), ``ACCELERATE_USE_CPU=1`` takes the processor.
    """
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    if unwanted:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
