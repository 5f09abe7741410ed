"""The discrete frame generation network and its layers."""

from rdtf.model.dfgn import DFGN

__all__ = ["DFGN"]
