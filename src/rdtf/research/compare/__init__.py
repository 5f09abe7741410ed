"""Comparison of training methods at equal compute: suites, runs, tables and a page."""

from rdtf.research.compare.run import ComparisonStopped, compare
from rdtf.research.compare.suites import SUITES

__all__ = ["SUITES", "ComparisonStopped", "compare"]
