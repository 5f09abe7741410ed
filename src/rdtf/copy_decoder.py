"""The copy decoder: it redraws decoded frames with pixels of the given frames, which are sharper.

A small generator smears its frames. The given frames show the same things sharply. Other interpolation models have
decoders that see the given frames too (ToonCrafter, arXiv 2405.17933; LDMVFI, arXiv 2303.09508). This decoder computes
each pixel as a weighted mean of shifted pixels of the given frames and of the decoded pixel. Weighted means of
premultiplied RGBA are valid premultiplied RGBA.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rdtf.pixels import valid_premultiplied
from rdtf.saved_module import SavedModule, register_to_config

_NEIGHBOURS = 9  # 3 x 3 pixels around each shifted position
_FRAMES_AT_ONCE = 16
_OFFSET_SCALE = 8.0  # frames; an offset of a clip of 8 is below 1 in size


def nearest_known(
    known: Bool[Tensor, "b f"], loop: Bool[Tensor, " b"], count: int
) -> tuple[Int[Tensor, "b f k"], Int[Tensor, "b f k"], Bool[Tensor, "b f k"]]:
    """The nearest given frames of each frame. The time of looping clips is circular.

    Args:
        count: at most this many for each frame, ``k = min(count, f)``.

    Returns:
        positions, distances in frames (negative = earlier), and which of them exist. A given frame is its own nearest
        one. If two are equally near, the earlier one comes first.
    """
    length = known.shape[1]
    positions = torch.arange(length, device=known.device)
    away = positions[None, :] - positions[:, None]  # (frame, reference)
    around = (away + length // 2) % length - length // 2
    away = torch.where(loop[:, None, None], around, away)
    order = away.abs() * 2 + (away > 0).int()
    order = torch.where(known[:, None, :], order, 4 * length)
    value, index = order.topk(min(count, length), dim=-1, largest=False, sorted=True)
    return index, away.expand(len(known), -1, -1).gather(-1, index), value < 4 * length


class _Block(nn.Module):
    """Two 3x3 convolutions with GroupNorm and SiLU around a skip."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, channels), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``n c h w`` to ``n out h w``."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class CopyDecoder(SavedModule):
    """Redraws frames with pixels of given frames ("references").

    A small U-Net gets the decoded frame and one reference at a time. Its outputs are a shift for each 2x2 pixels and a
    score for each of 3 x 3 pixels around every shifted position. The decoded pixel, with a correction, has a score too.
    The result is the mean of all these pixels, weighted by the softmax of their scores. Any number of references is
    possible, also 0. Their order does not matter.

    Args:
        widths: channels of the U-Net at 1/2, 1/4, 1/8, ... of the size.
        reach: largest shift as a fraction of the frame's side.
        references: most references of a frame; the nearest are used.
        sharpness: factor of the scores outside of training. Above 1 the decoder chooses more than it mixes, so edges
            are less soft. With 2, unseen emoji at 128 px have 1.1 times the half-transparent pixels of the true
            frames instead of 1.5 times, and the error grows by 1 %.
        trust: outside of training, for each reference of a frame, the score of the decoded pixel is lower by this.
            Above 0 things stay whole more often and move less. Clips from captions alone do not use it.
    """

    @register_to_config
    def __init__(
        self,
        widths: Sequence[int] = (48, 64, 96, 96),
        reach: float = 0.1875,
        references: int = 3,
        sharpness: float = 2.0,
        trust: float = 0.0,
    ) -> None:
        super().__init__()
        self.widths, self.reach, self.references = tuple(widths), reach, references
        self.sharpness, self.trust = sharpness, trust
        self.conv_in = nn.Conv2d(4 * (4 + 4 + 2 + 1), widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True))
        self.shared = nn.Conv2d(widths[-1], widths[-1], 1)
        inner = list(reversed(widths))
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in pairwise(inner))
        self.coarse_shift = nn.Conv2d(widths[1], 2, 3, padding=1)
        self.fine_shift = nn.Conv2d(widths[0], 2, 3, padding=1)
        self.scores = nn.Conv2d(widths[0], 4 * _NEIGHBOURS, 3, padding=1)
        self.own = nn.Conv2d(widths[0], 4 * (1 + 4), 3, padding=1)
        for head in (self.coarse_shift, self.fine_shift, self.scores, self.own):
            for parameter in head.parameters():
                nn.init.zeros_(parameter)
        with torch.no_grad():  # score of the decoded pixel, for each of 2 x 2 pixels
            self.own.bias[:4] = 1.0  # type: ignore[index]

    def forward(
        self,
        drawn: Float[Tensor, "n rgba h w"],
        references: Float[Tensor, "n k rgba h w"],
        offsets: Int[Tensor, "n k"],
        exists: Bool[Tensor, "n k"],
        trusted: Bool[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n rgba h w"]:
        """Redrawn frames; all pixels premultiplied in [-1, 1], height and width multiples of 16.

        Args:
            drawn: decoded frames.
            references: given frames; arbitrary numbers where ``exists`` is False.
            offsets: time of the reference minus time of the frame, in frames.
            trusted: frames to which ``trust`` applies; by default all.
        """
        shift, weights, mine = self._choices(drawn, references, offsets, exists, trusted)
        pixels = self._shifted(references, shift)  # n (k 9) 4 h w
        copied = torch.einsum("npchw,nphw->nchw", pixels, weights[:, :-1])
        return copied + mine * weights[:, -1:]

    def enlarged(
        self,
        drawn: Float[Tensor, "n rgba h w"],
        references: Float[Tensor, "n k rgba h w"],
        offsets: Int[Tensor, "n k"],
        exists: Bool[Tensor, "n k"],
        large: Float[Tensor, "n k rgba hh ww"],
        trusted: Bool[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "n rgba hh ww"]:
        """Redrawn frames in a larger size, with the pixels of larger references.

        The network runs in the small size. Each reference gives one pixel, at the mean of its 3 x 3 positions weighted
        as in :meth:`forward`. A mean of nine pixels would blur, because they are far apart in the large size.

        Args:
            large: the given frames in the larger size. Other arguments are as in :meth:`forward`.
        """
        n, k, _, h, w = references.shape
        size = large.shape[-2:]
        shift, weights, mine = self._choices(drawn, references, offsets, exists, trusted)
        each = weights[:, :-1].unflatten(1, (k, _NEIGHBOURS))
        total = each.sum(2)
        steps = torch.arange(_NEIGHBOURS, device=drawn.device)
        columns, rows = (steps % 3 - 1) * (2 / w), (steps // 3 - 1) * (2 / h)
        around = torch.einsum("nkphw,pc->nkchw", each, torch.stack([columns, rows], 1)) / total[:, :, None].clamp(1e-6)
        moved = _resized(shift + around.flatten(0, 1), size)
        grid = _pixel_grid(size[0], size[1], drawn.device) + moved.movedim(1, -1)
        sampled = F.grid_sample(large.flatten(0, 1) + 1, grid, padding_mode="zeros", align_corners=False) - 1
        weights = _resized(torch.cat([total, weights[:, -1:]], 1), size)
        copied = (sampled.unflatten(0, (n, k)) * weights[:, :-1, None]).sum(1)
        return valid_premultiplied(copied + enlarge(mine, size) * weights[:, -1:])

    def _choices(
        self, drawn: Tensor, references: Tensor, offsets: Tensor, exists: Tensor, trusted: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts ``(n k) 2 h w``, weights ``n (k 9 + 1) h w`` that sum to 1, and corrected pixels ``n 4 h w``."""
        shift, scores, own = self._network(drawn, references, offsets, exists)
        scores = scores.masked_fill(~exists[:, :, None, None, None], -torch.inf)
        own_score = own[:, :1]
        if not self.training:
            count = exists.sum(1) if trusted is None else exists.sum(1) * trusted
            own_score = own_score - self.trust * count[:, None, None, None]
        scores = torch.cat([scores.flatten(1, 2), own_score], 1)
        weights = (scores if self.training else scores * self.sharpness).softmax(1)
        return shift, weights, valid_premultiplied(drawn + own[:, 1:])

    def _network(
        self, drawn: Tensor, references: Tensor, offsets: Tensor, exists: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Shifts ``(n k) 2 h w`` in units of half a side, scores ``n k 9 h w``, score and correction ``n 5 h w``."""
        n, k, _, h, w = references.shape
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, h, device=drawn.device), torch.linspace(-1, 1, w, device=drawn.device), indexing="ij"
        )
        seen = exists[:, :, None, None, None]
        parts = [
            drawn[:, None].expand(-1, k, -1, -1, -1),
            torch.where(seen, references, -torch.ones((), device=drawn.device)),
            torch.stack([rows, columns]).expand(n, k, -1, -1, -1),
            (offsets / _OFFSET_SCALE)[:, :, None, None, None].expand(-1, -1, 1, h, w),
        ]
        x = F.pixel_unshuffle(torch.cat(parts, 2).flatten(0, 1), 2)
        x = x.to(self.conv_in.weight.dtype, memory_format=torch.channels_last)
        x = self.conv_in(x)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        # Exchange features between the references.
        x = x + self.shared(self._mean(x, exists)).repeat_interleave(k, 0)
        coarse = torch.zeros((), device=drawn.device)
        for level, block in enumerate(self.up):
            skip = skips[-2 - level]
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], 1))
            if level == len(self.up) - 2:
                coarse = F.interpolate(self.coarse_shift(x), (h // 2, w // 2), mode="bilinear", align_corners=False)
        shift = (coarse + self.fine_shift(x)).float().tanh() * (2 * self.reach)
        shift = F.interpolate(shift, (h, w), mode="bilinear", align_corners=False)
        scores = F.pixel_shuffle(self.scores(x).float(), 2).unflatten(0, (n, k))
        own = F.pixel_shuffle(self.own(self._mean(x, exists)).float(), 2)
        return shift, scores, own

    @staticmethod
    def _mean(x: Tensor, exists: Tensor) -> Tensor:
        """``(n k) c h w`` to ``n c h w``: the mean over existing references, or over all if none exists."""
        n, k = exists.shape
        weight = torch.where(exists.any(1, keepdim=True), exists, torch.ones_like(exists)).to(x.dtype)
        weight = weight / weight.sum(1, keepdim=True)
        return (x.unflatten(0, (n, k)) * weight[:, :, None, None, None]).sum(1)

    @staticmethod
    def _shifted(references: Tensor, shift: Tensor) -> Tensor:
        """``n (k 9) 4 h w``: the 3 x 3 pixels around each pixel's shifted position; outside all is transparent."""
        n, k, _, h, w = references.shape
        grid = _pixel_grid(h, w, shift.device)
        # In [0, 2] instead of [-1, 1], because grid_sample pads with 0, which must be transparent.
        stack = F.unfold(references.flatten(0, 1) + 1, 3, padding=1).unflatten(-1, (h, w))
        moved = F.grid_sample(stack, grid + shift.movedim(1, -1), padding_mode="zeros", align_corners=False) - 1
        return moved.unflatten(1, (4, _NEIGHBOURS)).transpose(1, 2).unflatten(0, (n, k)).flatten(1, 2)

    def redraw(
        self,
        frames: Float[Tensor, "b f rgba h w"],
        known: Bool[Tensor, "b f"],
        loop: Bool[Tensor, " b"],
        large: Float[Tensor, "b f rgba hh ww"] | None = None,
        trusted: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b f rgba hh ww"]:
        """Redraw the unknown frames of clips. Known frames, and clips without known frames, do not change.

        Args:
            frames: known frames as given, unknown frames as decoded.
            large: the same clips in a larger size: known frames as given, unknown frames enlarged. The result then has
                this size.
            trusted: clips to which ``trust`` applies; by default all.
        """
        trusted = known.new_ones(len(known)) if trusted is None else trusted
        out = (frames if large is None else large).clone()
        index, offsets, exists = nearest_known(known, loop, self.references)
        slots = max(1, int(exists.sum(-1).max()))  # the existing references come first
        index, offsets, exists = index[..., :slots], offsets[..., :slots], exists[..., :slots]
        clips, positions = torch.nonzero(~known & exists.any(-1), as_tuple=True)
        together = max(1, _FRAMES_AT_ONCE * frames.shape[-1] ** 2 // out.shape[-1] ** 2)
        for at in range(0, len(clips), together):
            part = slice(at, at + together)
            b, f = clips[part], positions[part]
            chosen = b[:, None], index[b, f]
            arguments = frames[b, f], frames[chosen], offsets[b, f], exists[b, f]
            if large is None:
                out[b, f] = self(*arguments, trusted=trusted[b])
            else:
                out[b, f] = self.enlarged(*arguments, large[chosen], trusted=trusted[b])
        return out


def _pixel_grid(height: int, width: int, device: torch.device) -> Float[Tensor, "h w xy"]:
    """The centre of each pixel in units of half a side, as ``grid_sample`` takes it."""
    columns = (2 * torch.arange(width, device=device) + 1) / width - 1
    rows = (2 * torch.arange(height, device=device) + 1) / height - 1
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)


def _resized(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def enlarge(frames: Float[Tensor, "n rgba h w"], size: Sequence[int]) -> Float[Tensor, "n rgba hh ww"]:
    """Premultiplied frames in another size ``(hh, ww)``, bicubic."""
    return valid_premultiplied(F.interpolate(frames, tuple(size), mode="bicubic", align_corners=False))
