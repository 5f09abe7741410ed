"""The layers of our networks that adapters fit, and the clips of a network's current pass."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rdtf.model import DFGN
from rdtf.model.dfgn import Level
from rdtf.model.layers import CrossAttention, SelfAttention, SpatialTransformer
from rdtf.model.temporal import PlainConvolution, SpatialTemporalInteraction, TemporalTransformer

_TEMPORAL = (TemporalTransformer, SpatialTemporalInteraction, PlainConvolution)


def levels(network: nn.Module) -> Iterator[Level]:
    """All levels on the way down, in the middle and on the way up. The middle's second residual block is left out.

    Raises:
        ValueError: a network of another kind.
    """
    if not isinstance(network, DFGN):
        raise ValueError(f"adapters do not fit a {type(network).__name__}")
    yield from (level for level in network.modules() if isinstance(level, Level) and level is not network.middle_out)


def width_of(level: Level) -> int:
    """Channels of a level."""
    return level.residual.conv1.out_channels


def transformers(network: nn.Module) -> Iterator[tuple[SpatialTransformer, int]]:
    """All spatial transformers with their channels."""
    for level in levels(network):
        for module in level.spatial.modules() if level.spatial is not None else ():
            if isinstance(module, SpatialTransformer):
                yield module, width_of(level)


def temporal_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The outermost layers that mix frames, by name."""
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, _TEMPORAL) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def attention_projections(network: nn.Module) -> dict[str, bool]:
    """Names of all linear layers of attentions (queries, keys, values, output), and whether they mix frames.

    Raises:
        ValueError: a network of another kind.
    """
    next(levels(network))
    temporal = tuple(f"{name}." for name in temporal_layers(network))
    return {
        f"{name}.{inner}": name.startswith(temporal)
        for name, module in network.named_modules()
        if isinstance(module, SelfAttention | CrossAttention)
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def heads_of(tokens: Float[Tensor, "n l c"], heads: int) -> Float[Tensor, "n heads l d"]:
    """Split the channels into heads."""
    return rearrange(tokens, "n l (h d) -> n h l d", h=heads)


def query_weight(attention: SelfAttention) -> Float[Tensor, "e c"]:
    """The weight of the query projection, the first third of the joint weight."""
    return attention.qkv.weight.chunk(3)[0]


def keys_values(
    attention: SelfAttention, x: Float[Tensor, "n l c"]
) -> tuple[Float[Tensor, "n l e"], Float[Tensor, "n l e"]]:
    """Project to keys and values."""
    both = attention.qkv.weight[attention.qkv.out_features // 3 :]
    keys, values = nn.functional.linear(x, both).chunk(2, -1)
    return keys, values


@dataclass(frozen=True)
class Clips:
    """The clips of a pass.

    Attributes:
        valid: frames that exist, the first ones of each clip.
        first: the frame that others attend to: the first given one. has_first: whether there is one.
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
        """Height and width of the map with this number of pixels: the latents' size, halved (rounded up) repeatedly."""
        height, width = self.size
        while height * width > pixels:
            height, width = -(-height // 2), -(-width // 2)
        assert height * width == pixels, f"no level of a network on latents of {self.size} has {pixels} pixels"
        return height, width


class CurrentClips:
    """Reads the clips from the arguments of a network's pass, for added layers, which the network gives no clips.

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
