"""Ways of tuning a pretrained network that the paper compares with, under one contract (see :class:`Tuning`)."""

from rdtf.baselines.networks import FrameWise, load_network
from rdtf.baselines.tuned import TunedDFGN
from rdtf.baselines.tuning import BASELINES, Tuning, attach

__all__ = ["BASELINES", "FrameWise", "TunedDFGN", "Tuning", "attach", "load_network"]
