"""Frame features of the paper: VGG-16's first fully connected layer, from a local file of torchvision's weights.

The network has the names of torchvision's ``vgg16``, so its weights fit and torchvision is not needed. The paper's
release uses the same layer, but reads BGR as RGB without ImageNet's normalisation. Here the input is RGB and
normalised.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.pixels import composite

WIDTH = 64
"""Channels of torchvision's first layer; a network with another width is built alike, larger or smaller throughout."""
_LAYERS = (1, 1, "M", 2, 2, "M", 4, 4, 4, "M", 8, 8, 8, "M", 8, 8, 8, "M")  # widths in first widths; M halves the map
_SIDE = 224
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNUSED = re.compile(r"classifier\.[36]\.(weight|bias)")
_AT_ONCE = 8


class Vgg16(nn.Module):
    """VGG-16 up to its first fully connected layer ("fc6"), before the ReLU.

    Args:
        width: channels of the first layer.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for factor in _LAYERS:
            if isinstance(factor, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(channels, factor * width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = factor * width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(channels * 7 * 7, 64 * width))

    def forward(self, pictures: Tensor) -> Tensor:
        """``(b, 64 * width)`` features of RGB pictures ``(b, 3, h, w)`` with ImageNet's normalisation."""
        maps = F.adaptive_avg_pool2d(self.features(pictures), 7)
        return self.classifier(maps.flatten(1))


@lru_cache(maxsize=1)
def load_vgg16(path: Path) -> Vgg16:
    """The network with torchvision's weights (``.pth`` or ``.safetensors``), which are memory-mapped.

    Raises:
        ValueError: the file has no such weights; the text names the difference.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch and safetensors raise many types for damaged files
        raise ValueError(f"{path} cannot be read as weights: {str(error)[:200]}") from error
    first = state.get("features.0.weight") if isinstance(state, dict) else None
    if not isinstance(first, Tensor) or first.ndim != 4:
        raise ValueError(f"{path} does not hold weights of vgg16: features.0.weight is not among them")
    with torch.device("meta"):
        network = Vgg16(len(first))
    try:
        # Assigned, not copied: several processes that map the file share its memory.
        network.load_state_dict({k: v for k, v in state.items() if not _UNUSED.fullmatch(k)}, assign=True)
    except RuntimeError as error:
        found = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ValueError(f"{path} does not hold weights of vgg16 (without batch norm): {found}") from error
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
    seen = composite(frames, (255, 255, 255))
    different, place = np.unique(seen.reshape(len(seen), -1), axis=0, return_inverse=True)
    pictures = torch.from_numpy(different.reshape(-1, *seen.shape[1:])).movedim(-1, 1).float() / 255
    mean, spread = (torch.tensor(values)[:, None, None] for values in (_MEAN, _SPREAD))
    found = []
    with torch.inference_mode():
        for at in range(0, len(pictures), _AT_ONCE):
            sized = F.interpolate(pictures[at : at + _AT_ONCE], (_SIDE, _SIDE), mode="bilinear", antialias=True)
            found.append(network((sized - mean) / spread))
    return torch.cat(found).numpy()[place.reshape(-1)]
