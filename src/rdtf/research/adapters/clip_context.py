"""The clips of a network's current pass, for added layers, which get no such arguments from the network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Clips:
    """The clips of a pass.

    Attributes:
        valid: frames that exist, the first ones of each clip.
        first: the frame that others attend to: the first given one.
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
        network.register_forward_pre_hook(self.read, with_kwargs=True)

    @property
    def now(self) -> Clips:
        """The clips of the current pass."""
        assert self._now is not None, "the network itself has to be called"
        return self._now

    def read(self, network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A forward hook of the network."""
        given = self._signature.bind(network, *args, **kwargs).arguments
        video, valid = given["noisy"], given["valid"]
        shown = given["known"] & valid
        self._now = Clips(valid, shown.int().argmax(1), shown.any(1), (video.shape[-2], video.shape[-1]))
