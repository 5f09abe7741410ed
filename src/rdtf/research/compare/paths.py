"""Paths of the files of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BASE = "base"
"""Name of the pretrained base in place of a variant's."""


@dataclass(frozen=True)
class Paths:
    """Paths of the files of a comparison.

    Attributes:
        out: folder of the comparison. target, judged: prepared datasets for training and for measuring.
        judge: name for :func:`rdtf.evaluate.judge.load_judge`.
    """

    out: Path
    target: Path
    judged: Path
    judge: str = "builtin"

    @property
    def source(self) -> Path:
        """Dataset of the base's pretraining."""
        return self.out / "source"

    def rates(self, variant: str) -> Path:
        """The file of a tuned method's held-out losses by its learning rate."""
        return self.out / "runs" / variant / "rates.json"

    def rate_run(self, variant: str, rate: float) -> Path:
        """The folder of a trial of a learning rate."""
        return self.out / "runs" / variant / "rates" / f"{rate:g}"

    def run(self, variant: str, seed: int) -> Path:
        """The folder of a run. The base has a single run."""
        return self.out / BASE if variant == BASE else self.out / "runs" / variant / str(seed)
