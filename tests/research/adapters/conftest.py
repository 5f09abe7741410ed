"""Networks to tune, tiny and awake, with clips of different lengths to run them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from rdtf.model import DFGN
from tests.conftest import TINY_NETWORK, awaken

LENGTHS = (2, 4)
SIZE = (4, 6)


@dataclass
class Bench:
    """A network and inputs for it: clips of 2 and 4 frames."""

    network: nn.Module
    seed: int = 0

    def inputs(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        b, f = len(LENGTHS), max(LENGTHS)
        return {
            "video": torch.randn(b, 4, f, *SIZE, generator=generator),
            "clean": torch.randn(b, 4, f, *SIZE, generator=generator),
            "text": torch.randn(b, 5, 16, generator=generator),
            "valid": torch.arange(f) < torch.tensor(LENGTHS)[:, None],
            "known": torch.tensor([[True] + [False] * (f - 1)] * b),
            "level": torch.tensor([300.0, 700.0]),
        }

    def run(self, **changed: Tensor) -> Tensor:
        """A pass; the output's padding is 0."""
        given = self.inputs() | changed
        loop = torch.zeros(len(given["video"]), dtype=torch.bool)
        text = self.network.text_context(given["text"], torch.ones(given["text"].shape[:2], dtype=torch.bool))
        out = self.network(given["video"], given["level"], given["clean"], given["known"], given["valid"], loop, text)
        return torch.where(given["valid"][:, None, :, None, None], out, 0.0)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dfgn": lambda: DFGN(latent_channels=4, **TINY_NETWORK),
    "dfgn paper": lambda: DFGN(latent_channels=4, **TINY_NETWORK, norm="group", temporal_encoders=True),
}


@pytest.fixture
def make_bench() -> Callable[[str], Bench]:
    """A bench for a network of :data:`NETWORKS`, with nothing left at zero, in training mode."""

    def make(name: str) -> Bench:
        torch.manual_seed(0)
        network = awaken(NETWORKS[name]()).train()
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return Bench(network)

    return make
