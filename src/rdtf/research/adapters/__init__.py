"""Ways of tuning a pretrained network that the paper compares with, under one contract (see :class:`Tuning`)."""

from rdtf.research.adapters.networks import FrameWise, load_network
from rdtf.research.adapters.tuned import TunedDFGN
from rdtf.research.adapters.tuning import BASELINES, Tuning, attach

__all__ = ["BASELINES", "FrameWise", "TunedDFGN", "Tuning", "attach", "load_network"]
