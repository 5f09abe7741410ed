"""The layers of networks that adapters fit: ours, and Stable Diffusion U-Nets of diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rdtf.model import DFGN
from rdtf.model.dfgn import Level
from rdtf.model.layers import CrossAttention, SelfAttention, SpatialTransformer
from rdtf.model.temporal import PlainConvolution, SpatialTemporalInteraction, TemporalTransformer


@cache
def _diffusers() -> SimpleNamespace:
    """Classes of diffusers, for networks other than DFGN. Importing them takes seconds."""
    from diffusers import UNet2DConditionModel, UNet3DConditionModel, UNetMotionModel
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.attention_processor import Attention
    from diffusers.models.resnet import TemporalConvLayer
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    return SimpleNamespace(
        stills=UNet2DConditionModel,
        clips=(UNet3DConditionModel, UNetMotionModel),
        attention=Attention,
        transformer_block=BasicTransformerBlock,
        temporal=(AnimateDiffTransformer3D, TransformerTemporalModel, TemporalConvLayer),
    )


_TEMPORAL = (TemporalTransformer, SpatialTemporalInteraction, PlainConvolution)


class FrameWise(nn.Module):
    """A network for still images, applied to each frame of a clip.

    Args:
        unet: a ``UNet2DConditionModel`` of diffusers.
    """

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        sample: Float[Tensor, "b c f h w"],
        timestep: Tensor | float,
        encoder_hidden_states: Float[Tensor, "b l e"],
        valid: Bool[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, "b d f h w"]:
        """One denoising prediction.

        Args:
            sample: noised latents.
            timestep: one noise level for all clips, or one for each.
            encoder_hidden_states: text states.
            valid: frames that exist, the first ones of each clip (default: all); adapters read it.
        """
        b, f = sample.shape[0], sample.shape[2]
        times = torch.as_tensor(timestep, device=sample.device).expand(b).repeat_interleave(f)
        texts = encoder_hidden_states.repeat_interleave(f, 0)
        out = self.unet(rearrange(sample, "b c f h w -> (b f) c h w"), times, texts).sample
        return rearrange(out, "(b f) c h w -> b c f h w", b=b)


@dataclass(frozen=True)
class Unit:
    """A residual block of a U-Net, with the spatial transformer after it if there is one.

    Attributes:
        width: channels.
        last: the last layer.
    """

    residual: nn.Module
    transformer: nn.Module | None
    last: nn.Module
    width: int


@dataclass(frozen=True)
class Block:
    """One block of a spatial transformer.

    Attributes:
        attention: the self-attention within each frame.
        norm, feed_forward: the feed-forward layer and the norm before it.
        width: channels.
    """

    attention: Any
    norm: nn.Module
    feed_forward: nn.Module
    width: int


def units(network: nn.Module) -> Iterator[Unit]:
    """All units on the way down, in the middle and on the way up. The middle's second residual block is left out.

    Raises:
        ValueError: a network of another kind.
    """
    if isinstance(network, DFGN):
        for level in network.modules():
            if isinstance(level, Level) and level is not network.middle_out:
                yield Unit(level.residual, level.spatial, level, level.residual.conv1.out_channels)
        return
    if not isinstance(network, (FrameWise, *_diffusers().clips)):
        hint = "; wrap it in FrameWise" if isinstance(network, _diffusers().stills) else ""
        raise ValueError(f"adapters do not fit a {type(network).__name__}{hint}")
    unet: Any = network.unet if isinstance(network, FrameWise) else network
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        transformers = list(getattr(block, "attentions", []))
        residuals: list[Any] = list(block.resnets)[: len(transformers) if block is unet.mid_block else None]
        for residual, transformer in zip_longest(residuals, transformers):
            yield Unit(residual, transformer, residual if transformer is None else transformer, residual.out_channels)


def blocks(network: nn.Module) -> Iterator[Block]:
    """The blocks of all spatial transformers."""
    for unit in units(network):
        for module in unit.transformer.modules() if unit.transformer is not None else ():
            if isinstance(module, SpatialTransformer):
                yield Block(module.self_attention, module.norm3, module.feed_forward, unit.width)
            elif not isinstance(network, DFGN) and isinstance(module, _diffusers().transformer_block):
                yield Block(_plain(module.attn1), module.norm3, module.ff, unit.width)


def _plain(attention: Any) -> Any:
    """An attention without other layers than its projections.

    Raises:
        ValueError: it has norms or factors.
    """
    extras = (attention.group_norm, attention.spatial_norm, attention.norm_q, attention.norm_k)
    if any(extra is not None for extra in extras) or attention.residual_connection:
        raise ValueError("networks whose self-attention has norms of its own are no Stable Diffusion class U-Nets")
    return attention


def temporal_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The outermost layers that mix frames, by name."""
    kinds = _TEMPORAL if isinstance(network, DFGN) else _diffusers().temporal
    found: dict[str, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, kinds) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    return found


def attention_projections(network: nn.Module) -> dict[str, bool]:
    """Names of all linear layers of attentions (queries, keys, values, output), and whether they mix frames."""
    temporal = tuple(f"{name}." for name in temporal_layers(network))
    attentions = (SelfAttention, CrossAttention) if isinstance(network, DFGN) else _diffusers().attention
    return {
        f"{name}.{inner}": name.startswith(temporal)
        for name, module in network.named_modules()
        if isinstance(module, attentions)
        for inner, layer in module.named_modules()
        if isinstance(layer, nn.Linear)
    }


def heads_of(tokens: Float[Tensor, "n l c"], heads: int) -> Float[Tensor, "n heads l d"]:
    """Split the channels into heads."""
    return rearrange(tokens, "n l (h d) -> n h l d", h=heads)


def inner_width(attention: Any) -> int:
    """Channels of the queries."""
    return attention.qkv.out_features // 3 if isinstance(attention, SelfAttention) else attention.to_q.out_features


def query_weight(attention: Any) -> Tensor:
    """The weight of the query projection. In our networks it is the first third of a joint weight."""
    if isinstance(attention, SelfAttention):
        return attention.qkv.weight[: inner_width(attention)]
    return attention.to_q.weight


def queries(attention: Any, x: Float[Tensor, "n l c"]) -> Float[Tensor, "n l e"]:
    """Project to queries."""
    return nn.functional.linear(x, query_weight(attention))


def keys_values(attention: Any, x: Float[Tensor, "n l c"]) -> tuple[Float[Tensor, "n l e"], Float[Tensor, "n l e"]]:
    """Project to keys and values."""
    if isinstance(attention, SelfAttention):
        keys, values = nn.functional.linear(x, attention.qkv.weight[inner_width(attention) :]).chunk(2, -1)
        return keys, values
    return attention.to_k(x), attention.to_v(x)


def output(attention: Any, x: Float[Tensor, "n l e"]) -> Float[Tensor, "n l c"]:
    """Project back."""
    return attention.out(x) if isinstance(attention, SelfAttention) else attention.to_out[0](x)
