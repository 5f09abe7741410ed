"""Full fine-tuning: every weight of the network is trained on."""

from __future__ import annotations

from torch import nn

from rdtf.research.adapters.networks import places
from rdtf.research.adapters.tuning import Tuning


class Full(Tuning):
    """No layers are added, and all parameters are the method's own."""

    name = "full"

    def _build(self) -> None:
        next(places(self.network))  # raises for a network of another kind

    def _owns(self, name: str) -> bool:
        return True

    def merge(self) -> nn.Module:
        """There is nothing to fold."""
        self.clips.forget()
        return self.network
