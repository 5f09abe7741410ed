"""The clips of a network's current pass, for added layers, which get no such arguments from the network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rdtf.model import DFGN


@dataclass(frozen=True)
class Clips:
    """The clips of a pass.

    Attributes:
        valid: frames that exist, the first ones of each clip.
        first: the frame that others attend to: the first given one, or frame 0 for networks without a condition mask.
            has_first: whether there is one.
        size: height and width of the latents.
    """

    valid: Bool[Tensor, "b f"]
    first: Int[Tensor, " b"]
    has_first: Bool[Tensor, " b"]
    size: tuple[int, int]

    @property
    def frames(self) -> int:
        """Number of frame slots."""
        return self.valid.shape[1]

    def exists(self, dtype: torch.dtype) -> Float[Tensor, "b f"]:
        """1 for frames that exist, 0 for padding."""
        return self.valid.to(dtype)

    def map_size(self, pixels: int) -> tuple[int, int]:
        """Height and width of the map with this number of pixels: the latents' size, halved (rounded up) repeatedly.

        Raises:
            ValueError: there is no such map.
        """
        height, width = self.size
        while height * width > pixels:
            height, width = -(-height // 2), -(-width // 2)
        if height * width != pixels:
            raise ValueError(f"no level of a network on latents of {self.size} has {pixels} pixels")
        return height, width


class CurrentClips:
    """Reads the clips from the arguments of a network's pass, before it starts.

    They are kept until the next pass, because gradient checkpointing computes layers again in the backward pass. So the
    backward pass must come before a forward pass of other clips.
    """

    def __init__(self, network: nn.Module) -> None:
        self._now: Clips | None = None
        self._signature = inspect.signature(type(network).forward)
        self._hook = network.register_forward_pre_hook(self.read, with_kwargs=True)

    @property
    def now(self) -> Clips:
        """The clips of the current pass."""
        assert self._now is not None, "the network itself has to be called"
        return self._now

    def read(self, network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A forward hook of the network."""
        given = self._signature.bind(network, *args, **kwargs).arguments
        if isinstance(network, DFGN):
            video, valid = given["noisy"], given["valid"]
            shown = given["known"] & valid
        else:
            video, valid = given["sample"], given.get("valid")
            if valid is None:
                valid = torch.ones(video.shape[0], video.shape[2], dtype=torch.bool, device=video.device)
            shown = valid
        self._now = Clips(valid, shown.int().argmax(1), shown.any(1), (video.shape[-2], video.shape[-1]))

    def forget(self) -> None:
        """Remove the hook from the network."""
        self._hook.remove()
