"""Frame features of the paper: VGG-16's first fully connected layer, from a local file of torchvision's weights.

The network has the names of torchvision's ``vgg16``, so its weights fit and torchvision is not needed. The paper's
release uses the same layer, but reads BGR as RGB without ImageNet's normalisation. Here the input is RGB and
normalised.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.pixels import composite

WIDTH = 64
"""Channels of torchvision's first layer; a network with another width is built alike, larger or smaller throughout."""
_SIDE = 224
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Vgg16(nn.Module):
    """VGG-16 up to its first fully connected layer ("fc6"), before the ReLU.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for factor, count in ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = factor * width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(channels * (_SIDE // 32) ** 2, 64 * width))

    def forward(self, pictures: Tensor) -> Tensor:
        """``(b, 64 * width)`` features of RGB pictures ``(b, 3, 224, 224)`` with ImageNet's normalisation."""
        return self.classifier(self.features(pictures).flatten(1))


@lru_cache(maxsize=1)
def load_vgg16(path: Path) -> Vgg16:
    """The network with torchvision's weights (``.pth``), which are memory-mapped.

    Raises:
        ValueError: the file has no such weights.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        with torch.device("meta"):
            network = Vgg16(len(state["features.0.weight"]))
        # Assigned, not copied: several processes that map the file share its memory.
        network.load_state_dict({name: state[name] for name in network.state_dict()}, assign=True)
    except Exception as error:  # torch raises many types for damaged files
        raise ValueError(f"{path} does not hold torchvision's weights of vgg16: {str(error)[:200]}") from error
    return network.float().eval().requires_grad_(False)


def vgg_features(frames: np.ndarray, path: Path) -> np.ndarray:
    """Features of frames on white, 224 x 224 px.

    Args:
        frames: ``(n, h, w, 4)`` uint8, straight alpha.
        path: see :func:`load_vgg16`.

    Returns:
        ``(n, 4096)`` float32; equal frames have equal features.
    """
    network = load_vgg16(path)
    mean, spread = (torch.tensor(values)[:, None, None] for values in (_MEAN, _SPREAD))
    found = []
    with torch.inference_mode():
        for picture in torch.from_numpy(composite(frames, (255, 255, 255))).movedim(-1, 1).split(1):
            sized = F.interpolate(picture.float() / 255, (_SIDE, _SIDE), mode="bilinear", antialias=True)
            found.append(network((sized - mean) / spread))
    return torch.cat(found).numpy()
