"""Estimates: a value with its confidence interval and the number of independent samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rdtf.rng import numpy_rng

DRAWS = 1000  # resamples of a bootstrap


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval.

    Attributes:
        n: number of independent samples (clips); with two sets, the number in the smaller one.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """``f"{estimate:.2f}"`` is ``value [low, high]``."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws ``(k,)``."""
    low, high = np.quantile(draws, [(1 - 0.95) / 2, (1 + 0.95) / 2])
    return float(low), float(high)


def resamples(n: int, seed: int, purpose: str) -> np.ndarray:
    """Counts of the ``n`` samples in each bootstrap resample: ``(DRAWS, n)`` float64, rows that sum to ``n``."""
    return numpy_rng(seed, n, f"bootstrap {purpose}").multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)


def mean_estimate(values: Sequence[float] | np.ndarray, seed: int = 0) -> Estimate:
    """Mean over clips with a bootstrap interval over clips (percentile method).

    ``values`` ``(n,)`` has one value for each clip: the interval treats the values as independent.

    Raises:
        ValueError: fewer than 2 values, or a value that is not finite.
    """
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        raise ValueError(f"an interval needs the values of at least 2 clips, got {array.size}")
    if not np.isfinite(array).all():
        raise ValueError("a mean of values that are not all finite says nothing")
    low, high = interval(resamples(len(array), seed, "mean") @ array / len(array))
    return Estimate(float(array.mean()), low, high, len(array))


def finite_mean(values: Sequence[float], seed: int) -> Estimate | None:
    """:func:`mean_estimate` of the finite values; None if fewer than 2 are finite."""
    array = np.asarray(values, np.float64)
    array = array[np.isfinite(array)]
    return mean_estimate(array, seed) if len(array) >= 2 else None


def mean_ratio(above: np.ndarray, below: np.ndarray, seed: int) -> Estimate:
    """Ratio of means, with a bootstrap interval that resamples both sets."""
    draws = [resamples(len(x), seed, f"ratio {i}") @ x / len(x) for i, x in enumerate((above, below))]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = draws[0] / draws[1]
    low, high = interval(ratios[np.isfinite(ratios)])
    return Estimate(float(above.mean() / below.mean()), low, high, min(len(above), len(below)))
