"""Alpha arithmetic: straight uint8 frames for people and files, premultiplied [-1, 1] tensors for networks.

Networks see premultiplied colour because the colour under a transparent pixel means nothing: premultiplied, all
such pixels are the same value, and filtering (resizing, convolving) them brings no fringes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:  # torch takes longer to import than all that a decoding worker needs
    import torch

Background = tuple[int, int, int]

_REDUCING_GAP = 3.0
"""Large frames are first averaged down to so many times the size wanted: half the time, and a difference of 59 dB."""


def premultiply(frames: np.ndarray) -> np.ndarray:
    """Straight ``(..., 4)`` uint8 to premultiplied ``(..., 4)`` uint8, rounded to nearest."""
    flat = np.ascontiguousarray(frames).reshape(-1, frames.shape[-2], 4)
    return np.array(Image.fromarray(flat, "RGBA").convert("RGBa")).reshape(frames.shape)


def unpremultiply(frames: np.ndarray) -> np.ndarray:
    """Premultiplied ``(..., 4)`` uint8 to straight uint8; colour under alpha 0 becomes 0."""
    out = frames.copy()
    alpha = frames[..., 3:].astype(np.float32)
    colour = frames[..., :3].astype(np.float32) * 255.0 / np.maximum(alpha, 1.0)
    out[..., :3] = np.where(alpha > 0, np.minimum(np.rint(colour), 255), 0).astype(np.uint8)
    return out


def to_tensor(frames: np.ndarray) -> torch.Tensor:
    """Straight ``(..., h, w, 4)`` uint8 to premultiplied ``(..., 4, h, w)`` float32 in [-1, 1]."""
    import torch

    premultiplied = frames.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255.0
    return torch.from_numpy(np.moveaxis(premultiplied, -1, -3) / 127.5 - 1.0).contiguous()


def valid_premultiplied(frames: torch.Tensor) -> torch.Tensor:
    """Clip ``(..., 4, h, w)`` to valid premultiplied RGBA: float32 in [-1, 1], no colour above its alpha."""
    import torch

    frames = frames.float().clamp(-1, 1)
    colour, alpha = frames[..., :3, :, :], frames[..., 3:, :, :]
    return torch.cat([torch.minimum(colour, alpha), alpha], dim=-3)


def sharpen_edges(frames: torch.Tensor, contrast: float, reach: int = 1) -> torch.Tensor:
    """Premultiplied ``(..., 4, h, w)`` in [-1, 1] with narrower edges of alpha; straight colours stay the same.

    A decoder's edges are wider than those of art. Between the smallest value ``l`` and the largest value ``h`` of alpha
    around a pixel, alpha in 0..1 becomes ``m + contrast (alpha - m)`` with ``m = (l + h) / 2``, clipped to ``l`` and
    ``h``. So even areas do not change, half-transparent ones neither.

    Args:
        contrast: 1 = no change. reach: pixels to each side that count as around.
    """
    import torch

    alpha = frames[..., 3:, :, :]
    flat, side = alpha.reshape(-1, 1, *alpha.shape[-2:]), 2 * reach + 1
    high, low = (
        (sign * torch.max_pool2d(sign * flat, side, stride=1, padding=reach)).view_as(alpha) for sign in (1, -1)
    )
    middle = (low + high) / 2
    sharp = torch.minimum(torch.maximum(middle + contrast * (alpha - middle), low), high)
    colour = (frames[..., :3, :, :] + 1) * (sharp + 1) / (alpha + 1).clamp_min(1e-4) - 1
    return valid_premultiplied(torch.cat([colour, sharp], dim=-3))


def to_frames(video: torch.Tensor, clean_below: int = 6) -> np.ndarray:
    """Premultiplied ``(..., 4, h, w)`` in [-1, 1] (clipped) to straight ``(..., h, w, 4)`` uint8.

    Alpha below ``clean_below`` becomes 0 and above ``255 - clean_below`` becomes 255: a network's small errors
    must not leave a grey veil over what should be empty, nor holes in what should be solid.
    """
    unit = ((video.detach().float().cpu().clamp(-1, 1) + 1) / 2).movedim(-3, -1).numpy()
    alpha = unit[..., 3:]
    alpha = np.where(alpha * 255 < clean_below, 0.0, np.where(alpha * 255 > 255 - clean_below, 1.0, alpha))
    colour = np.where(alpha > 0, unit[..., :3] / np.maximum(alpha, 1 / 255), 0.0)
    return np.rint(np.concatenate([colour.clip(0, 1), alpha], axis=-1) * 255).astype(np.uint8)


def fit(frames: np.ndarray, size: int) -> np.ndarray:
    """Scale straight ``(n, h, w, 4)`` frames into a ``size`` x ``size`` canvas, aspect kept, centred, transparent.

    Filtering happens on premultiplied colour, so that no fringe appears at soft edges.
    """
    _, height, width, _ = frames.shape
    if (height, width) == (size, size):
        return frames
    scale = size / max(height, width)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - new_h) // 2, (size - new_w) // 2
    out = np.zeros((len(frames), size, size, 4), np.uint8)
    out[:, top : top + new_h, left : left + new_w] = resize(frames, new_h, new_w)
    return out


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale straight ``(n, h, w, 4)`` frames to a size; filtering happens on premultiplied colour."""
    out = np.zeros((len(frames), height, width, 4), np.uint8)
    down = height < frames.shape[1] or width < frames.shape[2]
    for source, target in zip(frames, out, strict=True):
        # "RGBa" is Pillow's premultiplied mode: resize() then does not premultiply a second time.
        image = Image.frombuffer("RGBA", source.shape[1::-1], np.ascontiguousarray(source), "raw", "RGBA", 0, 1)
        resized = image.convert("RGBa").resize(
            (width, height),
            Image.Resampling.LANCZOS if down else Image.Resampling.BICUBIC,
            reducing_gap=_REDUCING_GAP,
        )
        target[:] = np.frombuffer(resized.tobytes(), np.uint8).reshape(height, width, 4)
        target[..., :3] = np.minimum(target[..., :3], target[..., 3:])  # filter overshoot
    return unpremultiply(out)


def turn_hue(frame: np.ndarray, steps: int) -> np.ndarray:
    """A straight frame ``(h, w, 4)`` uint8 with all hues turned by 1/256 of the circle a step. Greys and alpha stay."""
    hsv = hue_saturation_value(frame)
    hsv[..., 0] += np.uint8(steps % 256)  # wraps, as hue does
    return np.dstack([np.asarray(Image.fromarray(hsv, "HSV").convert("RGB")), frame[..., 3]])


def hue_saturation_value(frame: np.ndarray) -> np.ndarray:
    """``(h, w, 3)`` uint8, each 0 to 255, of a straight frame ``(h, w, 4)``."""
    return np.array(Image.fromarray(np.ascontiguousarray(frame[..., :3]), "RGB").convert("HSV"))


def transform(frame: np.ndarray, affine: Sequence[float]) -> np.ndarray:
    """A premultiplied frame ``(s, s, 4)`` uint8, moved and filtered (bicubic). What leaves the canvas is lost.

    Args:
        affine: ``(a, b, c, d, e, f)``: the pixel at x, y shows the frame at ``a x + b y + c``, ``d x + e y + f``.
    """
    image = Image.frombuffer("RGBa", frame.shape[1::-1], np.ascontiguousarray(frame), "raw", "RGBa", 0, 1)
    moved = image.transform(image.size, Image.Transform.AFFINE, tuple(affine), Image.Resampling.BICUBIC)
    out = np.frombuffer(moved.tobytes(), np.uint8).reshape(frame.shape).copy()
    out[..., :3] = np.minimum(out[..., :3], out[..., 3:])  # filter overshoot
    return out


def composite(frames: np.ndarray, background: Background | np.ndarray) -> np.ndarray:
    """Straight RGBA ``(..., h, w, 4)`` uint8 over a colour or an ``(h, w, 3)`` picture: ``(..., h, w, 3)`` uint8."""
    alpha = frames[..., 3:].astype(np.float32) / 255.0
    over = frames[..., :3] * alpha + np.asarray(background, np.float32) * (1 - alpha)
    return np.rint(over).astype(np.uint8)
