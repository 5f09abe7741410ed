"""Comparing ways of training a sticker generator at equal compute: suites, runs, tables, a page."""

from rdtf.compare.run import ComparisonStopped, compare
from rdtf.compare.suites import SUITES

__all__ = ["SUITES", "ComparisonStopped", "compare"]
