"""The namer: a small network that names what a sticker shows, among the stickers of a prepared dataset.

It measures two things that PSNR cannot see. A sticker that was made from a caption should be named as that caption.
An animation of a picture should still show on its last frame what the picture shows. A namer knows the names of one
dataset; several drawings of each (other styles) and strong augmentation let it name drawings that it never saw.
``benchmarks/train_namer.py`` trains one and reports how many left-out drawings it names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.data.index import comparable
from rdtf.data.style import FIELD, without_style
from rdtf.evaluate.estimates import Estimate, mean_estimate
from rdtf.evaluate.judge import to_frames
from rdtf.evaluate.measuring_network import MeasuringNetwork

FORMAT = "rdtf-namer/1"
TOP = 5
CAPTION = "caption"
_FRAMES_AT_ONCE = 64


class NamerConfig(BaseModel):
    """Sizes and names of a namer.

    Attributes:
        size: frames are scaled to this many pixels. widths: channels at 1/2, 1/4, 1/8, ... of the size.
        embedding: width of the layer before the names.
        name_by: ``caption``, or the metadata field that names a sticker.
        names: all names, in the order of the outputs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = Field(FORMAT, pattern=re.escape(FORMAT))
    size: int = Field(64, ge=16, le=256, multiple_of=16)
    widths: tuple[int, ...] = Field((32, 64, 128, 192), min_length=1, max_length=6)
    embedding: int = Field(192, ge=8, le=2048)
    name_by: str = CAPTION
    names: tuple[str, ...] = Field(min_length=2)


def sticker_name(caption: str, attributes: Mapping[str, Any], name_by: str) -> str:
    """The name of a sticker, or ``""``: its caption or a metadata field.

    The style at the end of a caption is no part of the name.
    """
    value = without_style(caption, attributes.get(FIELD)) if name_by == CAPTION else attributes.get(name_by)
    return comparable(str(value or ""))


class _Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``n c h w``, shape kept."""
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class Namer(MeasuringNetwork):
    """A small residual network over single frames. The names are directions in the space of its embedding."""

    config_class, kind = NamerConfig, "namer"
    config: NamerConfig

    def __init__(self, config: NamerConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.PixelUnshuffle(2)]
        before = 16
        for level, width in enumerate(config.widths):
            stride = 2 if level else 1
            layers += [nn.Conv2d(before, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(_Block(width))
            before = width
        self.layers = nn.Sequential(*layers)
        self.embed = nn.Linear(2 * before, config.embedding)
        self.names = nn.Parameter(torch.randn(len(config.names), config.embedding))
        self.scale = nn.Parameter(torch.tensor(16.0))

    def forward(self, frames: Float[Tensor, "n 4 s s"]) -> Float[Tensor, "n names"]:
        """Logits of the names; frames are premultiplied RGBA in [0, 1]."""
        x = self.layers(frames.contiguous(memory_format=torch.channels_last))
        embedding = self.embed(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
        return self.scale * F.normalize(embedding, dim=1) @ F.normalize(self.names, dim=1).t()

    @torch.no_grad()
    def chances(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities ``(n, names)`` float64 for straight RGBA frames ``(n, h, w, 4)`` uint8 of any size."""
        parts = []
        for start in range(0, len(frames), _FRAMES_AT_ONCE):
            seen = to_frames([frames[start : start + _FRAMES_AT_ONCE]], self.config.size).to(self.names.device)
            parts.append(self(seen).double().softmax(1).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self.config.names)))


def naming(namer: Namer, clips: Sequence[np.ndarray], names: Sequence[str], seed: int = 0) -> dict[str, Estimate]:
    """How often clips are named as they should be.

    Args:
        clips: ``(f, h, w, 4)`` uint8 each. names: the right name of each, one of the namer's own.

    Returns:
        ``named``: the likeliest name over all frames is the right one. ``named in top 5``: the right name is among the
        five likeliest. ``last frame named in top 5``: the same for the last frame alone.

    Raises:
        ValueError: a name that the namer does not know.
    """
    number = {name: i for i, name in enumerate(namer.config.names)}
    if unknown := [name for name in names if name not in number]:
        raise ValueError(f"this namer does not know {unknown[0]!r}; it was trained on other stickers")
    ranks = []
    for clip, name in zip(clips, names, strict=True):
        chances = namer.chances(clip)
        ranks.append([(each > each[number[name]]).sum() for each in (chances.mean(0), chances[-1])])
    rank, last_rank = np.array(ranks).T
    found = {"named": rank == 0, f"named in top {TOP}": rank < TOP, f"last frame named in top {TOP}": last_rank < TOP}
    return {key: mean_estimate(values, seed) for key, values in found.items()}
