"""Where this process computes."""

from __future__ import annotations

import os

import torch


def best_device() -> torch.device:
    """The first GPU that torch sees, otherwise the processor.

    ``CUDA_VISIBLE_DEVICES`` chooses among GPUs (empty: none), ``ACCELERATE_USE_CPU=1`` takes the processor.
    """
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return torch.device("cuda" if torch.cuda.is_available() and not unwanted else "cpu")
