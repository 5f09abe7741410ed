"""The discrete frame generation network (DFGN): a latent 3-D U-Net for clips of few, very different frames.

Shapes: ``b`` clips, ``c`` latent channels, ``f`` frame slots (1 to 16), ``h w`` latent size. Inside, maps are
``(b f) c h w``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rdtf.model.layers import Conv3x3, Norm, ResBlock, SpatialTransformer, make_norm, zero_init
from rdtf.model.temporal import PlainConvolution, SpatialTemporalInteraction, TemporalTransformer
from rdtf.model.text_prior import MotionPrior, TextPrior, mean_state, scaled
from rdtf.model.time_axis import TimeAxis, known_neighbours, make_time_axis
from rdtf.saved_module import SavedModule, register_to_config

TemporalLayer = Literal["sti", "conv3d"]


@dataclass(frozen=True)
class TextContext:
    """The captions of a batch as the network uses them.

    Attributes:
        keys_values: keys and values of every cross-attention, in the order of use.
        bias: ``(b, l + 1)``, -inf on padding.
        pooled: ``(b, embedding)``, added to the time embedding; None with ``pooled_text=False``.
        prior: ``(b, c, side, side)``, what :class:`TextPrior` makes of the captions; None without one.
        mean: ``(b, w)``, the mean of the text states; 0 without a caption.
    """

    keys_values: list[Tensor]
    bias: Tensor
    pooled: Tensor | None
    prior: Tensor | None
    mean: Tensor


class DFGN(SavedModule):
    """The network of the paper, in sizes for modest hardware.

    Args:
        latent_channels: channels of the codec's latents.
        widths: channels of the levels, finest first. Each level but the last halves the map.
        layers: residual blocks of a level on the way down; there is one more on the way up.
        attention: for each level, whether it has spatial and temporal transformers (the middle always has).
        head_dim: width of an attention head.
        temporal_layer: the layer after each residual block: "sti", or "conv3d" as in the paper's ablation.
        sti_heads: heads (of 32) of the STI layers' semantic branch.
        sti_pool: for each level, how far the semantic branch shrinks the map before all frames attend to each other
            (2 in the paper).
        temporal_encoders: the temporal transformers behind the input convolution and in the condition path, as in
            the paper.
        ff_multiple: width of the transformers' feed-forward layers.
        text_width: width of the text states.
        norm: "group" as in the paper, or "channel".
        condition_width, condition_out: hidden and output channels of the condition path.
        mask_channel: give the condition mask to the network, so that an unknown frame differs from an empty one.
        known_neighbours: give each slot the nearest known frame before and after it, with their distances.
        residual_to_known: factor of the cross-fade of the known frames that is added to the output: 1 if the network
            predicts the clean clip, -1 if it predicts the velocity (noise minus clip), 0 for no residual.
        pooled_text: add the mean of the text states to the time embedding, so that the caption reaches residual blocks
            without attention too.
        text_prior: hidden width of the :class:`TextPrior`, 0 for none. Its latents are a further input. Where no frame
            is known they are the reference, in place of the cross-fade.
        text_prior_side: height and width of the prior's latents. They are scaled to maps of other sizes.
        text_motion: hidden width of the :class:`MotionPrior`, 0 for none. It needs a text prior. In looping clips with
            a caption and at most one given frame, its changes over time are added to the text prior and the reference.
        text_motion_side: height and width of its latents.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        widths: Sequence[int] = (48, 96, 144),
        layers: int = 1,
        attention: Sequence[bool] = (False, False, True),
        head_dim: int = 48,
        temporal_layer: TemporalLayer = "sti",
        sti_heads: int = 4,
        sti_pool: Sequence[int] = (4, 2, 1),
        temporal_encoders: bool = False,
        ff_multiple: int = 2,
        text_width: int = 192,
        norm: Norm = "channel",
        condition_width: int = 32,
        condition_out: int = 16,
        mask_channel: bool = True,
        known_neighbours: bool = True,
        residual_to_known: float = 1.0,
        pooled_text: bool = False,
        text_prior: int = 0,
        text_prior_side: int = 8,
        text_motion: int = 0,
        text_motion_side: int = 8,
    ) -> None:
        super().__init__()
        if not len(attention) == len(sti_pool) == len(widths):
            raise ValueError(f"attention {attention} and sti_pool {sti_pool} need one entry for each of {widths}")
        if min(sti_pool) < 1 or not -1 <= residual_to_known <= 1:
            raise ValueError(f"sti_pool {sti_pool} must be 1 or more, residual_to_known {residual_to_known} in -1..1")
        if text_motion and not text_prior:
            raise ValueError("text_motion needs a text_prior")
        if temporal_layer not in get_args(TemporalLayer):
            raise ValueError(f"temporal_layer {temporal_layer!r}; choose from {', '.join(get_args(TemporalLayer))}")
        self.gradient_checkpointing = False
        first, embedding = widths[0], 4 * widths[0]
        self.embed_time = nn.Sequential(nn.Linear(first, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.embed_clip = nn.Sequential(nn.Linear(2, embedding), nn.SiLU(), zero_init(nn.Linear(embedding, embedding)))
        self.embed_text = nn.Linear(text_width, embedding) if pooled_text else None
        self.text_prior = TextPrior(text_width, text_prior, latent_channels, text_prior_side) if text_prior else None
        self.text_motion = (
            MotionPrior(text_width, text_motion, latent_channels, text_motion_side) if text_motion else None
        )
        self.no_text = nn.Parameter(torch.randn(1, 1, text_width).mul_(0.02))

        self.condition = ConditionPath(
            latent_channels,
            condition_width,
            condition_out,
            norm,
            mask_channel,
            known_neighbours,
            temporal_encoders,
        )
        self.conv_in = Conv3x3(latent_channels * (2 if text_prior else 1) + condition_out, first)
        self.temporal_in = TemporalTransformer(first, head_dim, norm, ff_multiple) if temporal_encoders else None

        level = partial(Level.of, self.config)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips, channels = [first], first
        for i, (width, attends) in enumerate(zip(widths, attention, strict=True)):
            levels = []
            for _ in range(layers):
                levels.append(level(i, channels, attends))
                channels = width
                skips.append(channels)
            last = i + 1 == len(widths)
            self.down.append(Stage(levels, None if last else Conv3x3(channels, channels, stride=2)))
            if not last:
                skips.append(channels)

        self.middle = level(len(widths) - 1, channels, True)
        self.middle_out = level(len(widths) - 1, channels, False)

        for i, (width, attends) in reversed(list(enumerate(zip(widths, attention, strict=True)))):
            levels = []
            for _ in range(layers + 1):
                levels.append(level(i, channels + skips.pop(), attends))
                channels = width
            self.up.append(Stage(levels, Conv3x3(channels, channels) if i > 0 else None))

        self.norm_out = make_norm(norm, first)
        self.conv_out = zero_init(Conv3x3(first, latent_channels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _levels(self) -> Iterator[Level]:
        """All levels in the order of the forward pass."""
        for stage in self._stages(self.down):
            yield from stage
        yield self.middle
        yield self.middle_out
        for stage in self._stages(self.up):
            yield from stage

    @staticmethod
    def _stages(stages: nn.ModuleList) -> Iterator[Stage]:
        for stage in stages:
            assert isinstance(stage, Stage)
            yield stage

    def text_context(self, states: Float[Tensor, "b l w"], mask: Bool[Tensor, "b l"]) -> TextContext:
        """Keys, values and pooled states of the captions. They are the same for all frames and sampling steps.

        A learned "no text" token is added, so an empty caption (mask all False) is valid.
        """
        mean = mean_state(states, mask)
        pooled = None if self.embed_text is None else self.embed_text(mean)
        prior = None if self.text_prior is None else self.text_prior(mean)
        states = torch.cat([self.no_text.to(states.dtype).expand(len(states), -1, -1), states], 1)
        shown = F.pad(mask, (1, 0), value=True)
        bias = torch.zeros(shown.shape, device=states.device).masked_fill(~shown, float("-inf"))
        layers = [lv.spatial.cross_attention for lv in self._levels() if lv.spatial is not None]
        return TextContext([layer.keys_values(states) for layer in layers], bias, pooled, prior, mean)

    def forward(
        self,
        noisy: Float[Tensor, "b c f h w"],
        timestep: Float[Tensor, " b"],
        known_video: Float[Tensor, "b c f h w"],
        known: Bool[Tensor, "b f"],
        valid: Bool[Tensor, "b f"],
        loop: Bool[Tensor, " b"],
        text: TextContext,
    ) -> Float[Tensor, "b c f h w"]:
        """One denoising prediction.

        Args:
            noisy: noised latents.
            timestep: noise level, 0 (clean) to 1000 (pure noise).
            known_video: clean latents; only the frames marked in ``known`` are used.
            known: condition mask.
            valid: frames that exist. Other frames are padding: they change nothing, and their output is 0.
            loop: clips whose time is circular.
            text: from :meth:`text_context`.
        """
        b, _, f, _, _ = noisy.shape
        axis = make_time_axis(valid, loop)
        exists, given = valid[:, None, :, None, None], (known & valid)[:, None, :, None, None]
        noisy = torch.where(exists, noisy, 0.0)
        known_video = torch.where(given, known_video, 0.0)

        embedding = self.embed_time(sinusoid(timestep, self.config.widths[0]).to(noisy.dtype))
        facts = torch.stack([valid.sum(1) / 8.0 - 1.0, loop.float()], 1)
        embedding = embedding + self.embed_clip(facts.to(noisy.dtype))

        if text.pooled is not None:
            embedding = embedding + text.pooled

        condition, reference = self.condition(known_video, known & valid, axis, loop)
        inputs = [rearrange(noisy, "b c f h w -> (b f) c h w"), condition]
        if text.prior is not None:
            prior = scaled(text.prior, noisy)[:, :, None].expand_as(noisy)
            alone = ~(known & valid).any(1)
            reference = torch.where(alone[:, None, None, None, None], prior.to(reference.dtype), reference)
            if self.text_motion is not None:
                moving = loop & text.mean.any(1) & ((known & valid).sum(1) <= 1)
                change = self.text_motion(text.mean, axis.valid, noisy) * moving[:, None, None, None, None]
                prior = prior + change
                at_known = torch.einsum("bcfhw,bf->bchw", change, (known & valid).to(change.dtype))
                reference = reference + (change - at_known[:, :, None]).to(reference.dtype)
            inputs.append(rearrange(prior, "b c f h w -> (b f) c h w"))
        x = torch.cat(inputs, 1)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        if self.temporal_in is not None:
            x = self.temporal_in(x, axis)

        kv, text_bias = iter(text.keys_values), text.bias
        skips = [x]
        for stage in self._stages(self.down):
            for level in stage:
                x = self._run(level, x, embedding, axis, kv, text_bias)
                skips.append(x)
            if stage.resize is not None:
                x = stage.resize(x)
                skips.append(x)
        x = self._run(self.middle, x, embedding, axis, kv, text_bias)
        x = self._run(self.middle_out, x, embedding, axis, kv, text_bias)
        for stage in self._stages(self.up):
            for level in stage:
                x = self._run(level, torch.cat([x, skips.pop()], 1), embedding, axis, kv, text_bias)
            if stage.resize is not None:
                x = stage.resize(F.interpolate(x, size=skips[-1].shape[-2:], mode="nearest"))

        x = self.conv_out(F.silu(self.norm_out(x)))
        out = rearrange(x, "(b f) c h w -> b c f h w", b=b, f=f)
        if self.config.residual_to_known:
            out = out + self.config.residual_to_known * reference.to(out.dtype)
        return torch.where(exists, out, 0.0)

    def _run(
        self,
        level: Level,
        x: Tensor,
        embedding: Tensor,
        axis: TimeAxis,
        kv: Iterator[Tensor],
        text_bias: Tensor,
    ) -> Tensor:
        level_kv = next(kv) if level.spatial is not None else None
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(level, x, embedding, axis, level_kv, text_bias, use_reentrant=False)
        return level(x, embedding, axis, level_kv, text_bias)


class Stage(nn.Module):
    """The levels at one resolution, and the convolution to the next resolution if there is one."""

    def __init__(self, levels: list[Level], resize: nn.Module | None) -> None:
        super().__init__()
        self.levels, self.resize = nn.ModuleList(levels), resize

    def __iter__(self) -> Iterator[Level]:
        for level in self.levels:
            assert isinstance(level, Level)
            yield level


class Level(nn.Module):
    """Residual block, temporal layer and, if the level has attention, spatial and temporal transformer."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        embedding: int,
        text_width: int,
        head_dim: int,
        sti_heads: int,
        sti_pool: int,
        ff_multiple: int,
        norm: Norm,
        attends: bool,
        temporal_layer: TemporalLayer = "sti",
    ) -> None:
        super().__init__()
        self.residual = ResBlock(c_in, c_out, embedding, norm)
        self.sti = (
            SpatialTemporalInteraction(c_out, 32, sti_heads, sti_pool, norm)
            if temporal_layer == "sti"
            else PlainConvolution(c_out, norm)
        )
        self.spatial = SpatialTransformer(c_out, head_dim, text_width, norm, ff_multiple) if attends else None
        self.temporal = TemporalTransformer(c_out, head_dim, norm, ff_multiple) if attends else None

    @classmethod
    def of(cls, config: Any, i: int, c_in: int, attends: bool) -> Level:
        """A level of the ``i``-th resolution of a network with this configuration."""
        return cls(
            c_in,
            config.widths[i],
            4 * config.widths[0],
            config.text_width,
            config.head_dim,
            config.sti_heads,
            config.sti_pool[i],
            config.ff_multiple,
            config.norm,
            attends,
            config.temporal_layer,
        )

    def forward(
        self, x: Tensor, embedding: Tensor, axis: TimeAxis, kv: Tensor | None, text_bias: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """The maps after this level."""
        x = self.sti(self.residual(x, embedding), axis)
        if self.spatial is not None and self.temporal is not None:
            assert kv is not None
            x = self.temporal(self.spatial(x, kv, text_bias), axis)
        return x


class ConditionPath(nn.Module):
    """Extra input channels from the given frames: a few 3x3 convolutions, then a small temporal encoder."""

    def __init__(
        self,
        latent_channels: int,
        hidden: int,
        out: int,
        norm: Norm,
        mask_channel: bool,
        neighbours: bool,
        temporal_encoder: bool,
    ) -> None:
        super().__init__()
        self.mask_channel, self.neighbours = mask_channel, neighbours
        # With neighbours: the latents of both, and for each a distance and whether the neighbour exists.
        channels = latent_channels + mask_channel + neighbours * (2 * latent_channels + 4)
        self.convs = nn.Sequential(
            Conv3x3(channels, hidden), nn.SiLU(), Conv3x3(hidden, hidden), nn.SiLU(), Conv3x3(hidden, out)
        )
        self.temporal = TemporalTransformer(out, math.gcd(out, 16), norm, 4) if temporal_encoder else None

    def forward(
        self,
        known_video: Float[Tensor, "b c f h w"],
        known: Bool[Tensor, "b f"],
        axis: TimeAxis,
        loop: Tensor,
    ) -> tuple[Float[Tensor, "n d h w"], Float[Tensor, "b c f h w"]]:
        """``known_video`` is zero where unknown.

        Returns:
            the condition maps, and the cross-fade of the known frames.
        """
        near = known_neighbours(known, axis.valid, loop)
        parts = [known_video]
        if self.mask_channel:
            parts.append(_as_maps(known[..., None], known_video))
        if self.neighbours:
            parts += [_mix(near.previous, known_video), _mix(near.next, known_video)]
            exists = torch.stack([near.previous.sum(2), near.next.sum(2)], -1)
            parts.append(_as_maps(torch.cat([near.distance, exists], -1), known_video))
        x = rearrange(torch.cat(parts, 1), "b c f h w -> (b f) c h w")
        x = self.convs(x.contiguous(memory_format=torch.channels_last))
        if self.temporal is not None:
            x = self.temporal(x, axis)
        return x, _mix(near.blend, known_video)


def _mix(matrix: Float[Tensor, "b f g"], video: Float[Tensor, "b c g h w"]) -> Float[Tensor, "b c f h w"]:
    """Weighted sums of a clip's frames, in the video's precision: a 0/1 row must return the frame unchanged."""
    with torch.autocast(video.device.type, enabled=False):
        return torch.einsum("bfg,bcghw->bcfhw", matrix.to(video.dtype), video)


def _as_maps(values: Tensor, like: Float[Tensor, "b c f h w"]) -> Float[Tensor, "b d f h w"]:
    """Constant maps of numbers ``b f d``, one for each frame and channel."""
    return rearrange(values.to(like.dtype), "b f d -> b d f 1 1").expand(-1, -1, -1, *like.shape[-2:])


def sinusoid(timestep: Float[Tensor, " b"], width: int) -> Float[Tensor, "b width"]:
    """Sinusoidal code of the noise level (0 to 1000)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=timestep.device) / half)
    angles = timestep.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], -1), (0, width - 2 * half))
