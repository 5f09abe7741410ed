"""Where the files of a comparison are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BASE = "base"
"""Stands for the run of the pretrained base where a variant is named."""


@dataclass(frozen=True)
class Place:
    """Where the files of a comparison are.

    Attributes:
        out: its folder. target, judged: prepared datasets to train on and to measure on.
        judge: for :func:`rdtf.evaluate.judge.load_judge`.
    """

    out: Path
    target: Path
    judged: Path
    judge: str = "builtin"

    @property
    def source(self) -> Path:
        """What the base is pretrained on."""
        return self.out / "source"

    def rates(self, variant: str) -> Path:
        """The file of a tuned method's held-out losses by its learning rate."""
        return self.out / "runs" / variant / "rates.json"

    def rate_run(self, variant: str, rate: float) -> Path:
        """The folder of a trial of a learning rate."""
        return self.out / "runs" / variant / "rates" / f"{rate:g}"

    def run(self, variant: str, seed: int) -> Path:
        """The folder of one run; the base has a single one."""
        return self.out / BASE if variant == BASE else self.out / "runs" / variant / str(seed)
