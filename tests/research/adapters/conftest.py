"""Networks to tune: ours and the three of diffusers, tiny and awake, with clips of different lengths to run them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel
from torch import Tensor, nn

from rdtf.model import DFGN
from rdtf.research.adapters.networks import FrameWise
from tests.conftest import TINY_NETWORK, awaken

LENGTHS = (2, 4)
SIZE = (4, 6)

DIFFUSERS: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "norm_num_groups": 8,
    "sample_size": 8,
}


@dataclass
class Bench:
    """A network and inputs for it: clips of 2 and 4 frames where the network knows padding, otherwise both of 4."""

    network: nn.Module
    seed: int = 0

    @property
    def pads(self) -> bool:
        return isinstance(self.network, DFGN | FrameWise)

    def inputs(self) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        b, f = len(LENGTHS), max(LENGTHS)
        lengths = torch.tensor(LENGTHS if self.pads else [f] * b)
        return {
            "video": torch.randn(b, 4, f, *SIZE, generator=generator),
            "clean": torch.randn(b, 4, f, *SIZE, generator=generator),
            "text": torch.randn(b, 5, 16, generator=generator),
            "valid": torch.arange(f) < lengths[:, None],
            "known": torch.tensor([[True] + [False] * (f - 1)] * b),
            "level": torch.tensor([300.0, 700.0]),
        }

    def run(self, **changed: Tensor) -> Tensor:
        """A pass; the output's padding is 0."""
        given = self.inputs() | changed
        if isinstance(self.network, DFGN):
            loop = torch.zeros(len(given["video"]), dtype=torch.bool)
            text = self.network.text_context(given["text"], torch.ones(given["text"].shape[:2], dtype=torch.bool))
            return self.network(
                given["video"], given["level"], given["clean"], given["known"], given["valid"], loop, text
            )
        if isinstance(self.network, FrameWise):
            out = self.network(given["video"], given["level"], given["text"], given["valid"])
        else:
            text = given["text"]
            if isinstance(self.network, UNetMotionModel):  # its caller repeats the text
                text = text.repeat_interleave(given["video"].shape[2], 0)
            out = self.network(given["video"], given["level"], text).sample
        return torch.where(given["valid"][:, None, :, None, None], out, 0.0)


def _still_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **DIFFUSERS,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def _motion_unet() -> UNetMotionModel:
    return UNetMotionModel(
        **DIFFUSERS,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
    )


def _video_unet() -> UNet3DConditionModel:
    return UNet3DConditionModel(
        **DIFFUSERS,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "dfgn": lambda: DFGN(latent_channels=4, **TINY_NETWORK),
    "dfgn paper": lambda: DFGN(latent_channels=4, **TINY_NETWORK, norm="group", temporal_encoders=True),
    "still": lambda: FrameWise(_still_unet()),
    "motion": _motion_unet,
    "video": _video_unet,
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
