"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1 on AlexNet, from weights in a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdtf.pixels import composite

LEAST_SIZE = 35
HEADS = "alex.pth"
BACKBONE = "alexnet*.pth"
WIDTHS = (64, 192, 384, 256, 256)
BATCH = 64


class Lpips(nn.Module):
    """Weighted distance of AlexNet features, normalised over channels. It is 0 for equal pictures; lower is better.

    Args:
        backbone: state of torchvision's AlexNet (``features.0.weight`` and so on; its classifier is not used).
        heads: state of the five weightings (``lin0.model.1.weight`` and so on).

    Raises:
        ValueError: a weight is missing or has another shape.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in WIDTHS)
        state = {name: value for name, value in backbone.items() if name.startswith("features.")}
        state |= {f"heads.{i}": heads[key] for i in range(len(WIDTHS)) if (key := f"lin{i}.model.1.weight") in heads}
        try:
            self.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"these are not the weights of LPIPS on AlexNet: {error}") from error
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances ``(n,)`` of pictures ``(n, 3, h, w)`` in [-1, 1]."""
        x, y = ((picture - self.shift) / self.scale for picture in (a, b))
        total = a.new_zeros(len(a))
        heads = iter(self.heads)
        for layer in self.features:
            x, y = layer(x), layer(y)
            if isinstance(layer, nn.ReLU):
                difference = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)).square()
                total = total + (difference * next(heads)).sum(1).mean((1, 2))
        return total

    def of_frames(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distances ``(n,)`` of frames ``(n, h, w, 4)`` uint8 over white, at their own size.

        Raises:
            ValueError: frames below 35 px, for which a layer of the network has no output.
        """
        if min(a.shape[1:3]) < LEAST_SIZE:
            raise ValueError(f"LPIPS on AlexNet needs frames of at least {LEAST_SIZE} px, these have {a.shape[1:3]}")
        pictures = [
            torch.from_numpy(composite(frames, (255, 255, 255))).permute(0, 3, 1, 2).float() / 127.5 - 1
            for frames in (a, b)
        ]
        batches = zip(*(picture.split(BATCH) for picture in pictures), strict=True)
        return torch.cat([self(x, y) for x, y in batches]).numpy().astype(np.float64)


def load_lpips(folder: Path) -> Lpips:
    """LPIPS from a folder with ``alexnet*.pth`` (torchvision's ImageNet weights) and ``alex.pth`` (LPIPS 0.1's heads).

    Raises:
        ValueError: a file is missing or holds something else.
    """
    backbones = sorted(Path(folder).glob(BACKBONE))
    if len(backbones) != 1 or not (Path(folder) / HEADS).is_file():
        raise ValueError(
            f"{folder} must hold {BACKBONE} (torchvision's weights of AlexNet) and {HEADS} (the heads of LPIPS 0.1)"
        )
    return Lpips(_state(backbones[0]), _state(Path(folder) / HEADS))


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of many kinds for other files
        raise ValueError(f"{path} holds no weights of torch ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds no weights by name")
    return state
