"""The layers of our networks that adapters fit."""

from __future__ import annotations

from collections.abc import Iterator

from einops import rearrange
from jaxtyping import Float
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


def inner_width(attention: SelfAttention) -> int:
    """Channels of the queries."""
    return attention.qkv.out_features // 3


def query_weight(attention: SelfAttention) -> Tensor:
    """The weight of the query projection, the first third of a joint weight."""
    return attention.qkv.weight[: inner_width(attention)]


def keys_values(
    attention: SelfAttention, x: Float[Tensor, "n l c"]
) -> tuple[Float[Tensor, "n l e"], Float[Tensor, "n l e"]]:
    """Project to keys and values."""
    keys, values = nn.functional.linear(x, attention.qkv.weight[inner_width(attention) :]).chunk(2, -1)
    return keys, values
