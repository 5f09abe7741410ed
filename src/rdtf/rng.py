"""Randomness as a pure function of (seed, step, purpose), so that nothing needs to be saved to resume it."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def _key(seed: int, step: int, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{purpose}".encode(), digest_size=8).digest(), "little")


def numpy_rng(seed: int, step: int, purpose: str) -> np.random.Generator:
    """An independent numpy stream for this seed, step and purpose (for example ``"masks"``)."""
    return np.random.Generator(np.random.Philox(_key(seed, step, purpose)))


def torch_rng(seed: int, step: int, purpose: str) -> torch.Generator:
    """An independent CPU torch stream; noise is drawn on the CPU so that every device starts from the same."""
    return torch.Generator().manual_seed(_key(seed, step, purpose) >> 1)
