"""Comparison of training methods at equal compute: suites, runs, tables and a page."""

from rdtf.research.compare.run import ComparisonStopped, compare
from rdtf.research.compare.runs import Comparison

__all__ = ["Comparison", "ComparisonStopped", "compare"]
