"""Codecs: RGBA frames to latents and back, all of one base class.

Pixels are premultiplied RGBA in [-1, 1] as from ``pixels.to_tensor``. The method's authors use an RGB latent
diffusion autoencoder (paper section 4); stickers need alpha, so the built-in codec is a small autoencoder of RGBA
that was trained on stickers, and foreign RGB autoencoders carry alpha as a second picture.
"""

from __future__ import annotations

import abc
import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rdtf import hub
from rdtf.device import best_device
from rdtf.pixels import valid_premultiplied
from rdtf.saved_module import SavedModule, register_to_config

SHIPPED = {"f4": "assets/codec-f4", "f8": "shipped/codec"}
"""Folders of the built-in codecs within the package. ``f8`` is the codec of the shipped model."""
CHOICES = (
    "'f4' or 'f8' (built in), 'pixel' or 'pixel2' (no codec), a folder of a trained codec, "
    "or a folder or hub id (owner/name) of a diffusers autoencoder"
)


class Codec(SavedModule, abc.ABC):
    """Base class of codecs.

    Attributes:
        latent_channels: channels ``c`` of a latent.
        downscale: pixels per latent cell along each axis; frame sizes must be multiples of it.
    """

    latent_channels: int
    downscale: int

    @abc.abstractmethod
    def encode(self, frames: Float[Tensor, "n rgba h w"]) -> Float[Tensor, "n c y x"]:
        """Premultiplied RGBA in [-1, 1] to float32 latents of about zero mean and unit deviation; deterministic.

        Raises:
            ValueError: not RGBA, or a size that is no multiple of ``downscale``.
        """

    @abc.abstractmethod
    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "n 4 h w"]:
        """Latents to premultiplied RGBA in [-1, 1], float32, colour never above alpha."""

    @property
    def fingerprint(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over class, configuration and weights (read as float32)."""
        digest = hashlib.sha256(json.dumps([type(self).__name__, self.config], sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _check(self, frames: Tensor) -> Tensor:
        """The frames on this model's device and in its precision, channels last; or a ``ValueError``."""
        if frames.ndim != 4 or frames.shape[1] != 4:
            raise ValueError(f"a codec takes RGBA frames (n, 4, h, w), got {tuple(frames.shape)}")
        height, width = frames.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise ValueError(
                f"frames of {height} x {width} do not fit this codec: both must be multiples of {self.downscale}"
            )
        return frames.to(self.device, self.dtype, memory_format=torch.channels_last)


class _Residual(nn.Module):
    """A residual block of two 3x3 convolutions, the last starting at zero. Norms would take most of its time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``n c h w``, shape kept."""
        return x + self.conv2(nn.functional.silu(self.conv1(nn.functional.silu(x))))


class StickerAutoencoder(Codec):
    """The built-in codec: a small deterministic convolutional autoencoder of premultiplied RGBA.

    Pixel-unshuffle 2, then one level of residual blocks for each width, the next level at half the resolution; the
    decoder mirrors it. ``encode`` normalises each channel by stored statistics of the training set.

    Args:
        latent_channels: channels of the latent.
        widths: channels of each level from fine to coarse; the downscale is ``2 ** len(widths)``.
        encoder_blocks: residual blocks of each level of the encoder.
        decoder_blocks: residual blocks of each level of the decoder, from fine to coarse too.
    """

    latent_mean: Tensor
    latent_std: Tensor

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        widths: Sequence[int] = (48, 96),
        encoder_blocks: Sequence[int] = (1, 2),
        decoder_blocks: Sequence[int] = (3, 2),
    ) -> None:
        super().__init__()
        if not len(widths) == len(encoder_blocks) == len(decoder_blocks):
            raise ValueError("widths, encoder_blocks and decoder_blocks must be equally long")
        self.latent_channels = latent_channels
        self.downscale = 2 ** len(widths)

        self.encoder = nn.Sequential(nn.PixelUnshuffle(2))
        self.encoder.add_module("conv_in", nn.Conv2d(16, widths[0], 3, padding=1))
        for level, (width, blocks) in enumerate(zip(widths, encoder_blocks, strict=True)):
            if level:
                self.encoder.append(nn.Conv2d(widths[level - 1], width, 2, stride=2))
            self.encoder.extend(_Residual(width) for _ in range(blocks))
        self.encoder.add_module("conv_out", nn.Conv2d(widths[-1], latent_channels, 3, padding=1))

        self.decoder = nn.Sequential()
        self.decoder.add_module("conv_in", nn.Conv2d(latent_channels, widths[-1], 3, padding=1))
        for level in reversed(range(len(widths))):
            self.decoder.extend(_Residual(widths[level]) for _ in range(decoder_blocks[level]))
            if level:
                self.decoder.append(nn.Conv2d(widths[level], 4 * widths[level - 1], 1))
                self.decoder.append(nn.PixelShuffle(2))
        self.decoder.append(nn.SiLU())
        self.decoder.add_module("conv_out", nn.Conv2d(widths[0], 16, 3, padding=1))
        self.decoder.append(nn.PixelShuffle(2))

        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @classmethod
    def for_downscale(cls, downscale: int) -> StickerAutoencoder:
        """The untrained shipped shapes: 4 (8 channels, 0.90 M parameters) or 8 (16 channels, 2.70 M).

        Raises:
            ValueError: another downscale.
        """
        if downscale == 4:
            return cls()
        if downscale == 8:
            return cls(16, (48, 96, 192), (1, 1, 1), (2, 1, 2))
        raise ValueError(f"no autoencoder with downscale {downscale}; choose 4 or 8")

    def with_larger_decoder(self, decoder_blocks: Sequence[int]) -> StickerAutoencoder:
        """A copy whose decoder has more residual blocks. New blocks end in zeros, so the copy decodes as this one does.

        Args:
            decoder_blocks: of each level from fine to coarse, none fewer than now.

        Raises:
            ValueError: another number of levels, or fewer blocks.
        """
        old = self.config.decoder_blocks
        if len(old) != len(decoder_blocks) or any(a > b for a, b in zip(old, decoder_blocks, strict=True)):
            raise ValueError(f"decoder_blocks {tuple(decoder_blocks)} must be at least {tuple(old)}, level by level")
        larger = StickerAutoencoder(**{**self.config, "decoder_blocks": tuple(decoder_blocks)})
        larger.encoder.load_state_dict(self.encoder.state_dict())
        larger.latent_mean.copy_(self.latent_mean)
        larger.latent_std.copy_(self.latent_std)
        layers = iter(self.decoder)
        layer = next(layers)
        for new in larger.decoder:
            if isinstance(new, _Residual) and not isinstance(layer, _Residual):
                nn.init.zeros_(cast(Tensor, new.conv2.bias))  # a further block of this level
                continue
            new.load_state_dict(layer.state_dict())
            layer = next(layers, layer)
        return larger

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n rgba h w"]) -> Float[Tensor, "n c y x"]:
        """See :class:`Codec`."""
        latents = self.encoder(self._check(frames)).float()
        mean, std = self.latent_mean[:, None, None].float(), self.latent_std[:, None, None].float()
        return (latents - mean) / std

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "n 4 h w"]:
        """See :class:`Codec`. The decoder reads normalised latents."""
        latents = latents.to(self.device, self.dtype, memory_format=torch.channels_last)
        return valid_premultiplied(self.decoder(latents))


class PixelCodec(Codec):
    """The identity, for models that work on pixels.

    Args:
        patch: 1, or 2 for pixel-unshuffle by 2 (16 channels at half the resolution).
    """

    @register_to_config
    def __init__(self, patch: int = 1) -> None:
        super().__init__()
        if patch not in (1, 2):
            raise ValueError(f"no pixel codec with patch {patch}; choose 1 or 2")
        self.latent_channels = 4 * patch * patch
        self.downscale = patch
        # Gives this codec a device and a dtype.
        self.register_buffer("anchor", torch.zeros(1))

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n rgba h w"]) -> Float[Tensor, "n c y x"]:
        """See :class:`Codec`."""
        return nn.functional.pixel_unshuffle(self._check(frames).float(), self.downscale)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "n 4 h w"]:
        """See :class:`Codec`."""
        return valid_premultiplied(nn.functional.pixel_shuffle(latents.to(self.device), self.downscale))


class DiffusersCodec(Codec):
    """Any RGB image autoencoder of diffusers as a codec for RGBA; frozen.

    Premultiplied colour (the sticker over black) is encoded as one RGB picture, and alpha, repeated to three channels,
    as a second one. Their latents are concatenated along channels, colour first. Decoded alpha is the mean of its three
    channels, and colour is lowered to at most alpha.

    Latents are shifted and scaled by the numbers in the autoencoder's configuration.

    Args:
        autoencoder_class: diffusers class name, for example ``"AutoencoderKL"``.
        autoencoder_config: its configuration; with it the whole saves and loads as one model.
        latent_channels: twice the autoencoder's.
        downscale: the autoencoder's.
    """

    @register_to_config
    def __init__(
        self, autoencoder_class: str, autoencoder_config: dict[str, Any], latent_channels: int, downscale: int
    ) -> None:
        super().__init__()
        self.autoencoder = _autoencoder_class(autoencoder_class).from_config(autoencoder_config)
        self.requires_grad_(False)
        self.latent_channels = latent_channels
        self.downscale = downscale

    @classmethod
    def wrap(cls, autoencoder: Any) -> DiffusersCodec:
        """A codec around a copy of a loaded diffusers autoencoder.

        Raises:
            ValueError: it does not turn RGB pictures into latents and back.
        """
        name = type(autoencoder).__name__
        probe = torch.zeros(1, 3, 64, 64, dtype=autoencoder.dtype, device=autoencoder.device)
        try:
            with torch.no_grad():
                latents = _mode(autoencoder.encode(probe))
                decoded = autoencoder.decode(latents).sample
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{name} is no autoencoder of RGB pictures: {error}") from error
        if decoded.shape != probe.shape:
            raise ValueError(f"{name} gives back {tuple(decoded.shape)} for pictures of {tuple(probe.shape)}")
        expected = inspect.signature(type(autoencoder).__init__).parameters
        config = {key: value for key, value in dict(autoencoder.config).items() if key in expected}
        # A round trip through JSON, so that saving does not change the fingerprint.
        codec = cls(name, json.loads(json.dumps(config)), 2 * latents.shape[1], 64 // latents.shape[-1])
        codec.autoencoder.load_state_dict(autoencoder.state_dict())
        return codec.to(autoencoder.device, autoencoder.dtype).eval()

    def _shift_scale(self) -> tuple[Tensor | float, Tensor | float]:
        config = self.autoencoder.config
        shift: Tensor | float = config.get("shift_factor") or 0.0
        scale: Tensor | float = config.get("scaling_factor") or 1.0
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            shift = torch.tensor(config["latents_mean"], device=self.device).reshape(-1, 1, 1)
            scale = scale / torch.tensor(config["latents_std"], device=self.device).reshape(-1, 1, 1)
        return shift, scale

    @torch.no_grad()
    def encode(self, frames: Float[Tensor, "n rgba h w"]) -> Float[Tensor, "n c y x"]:
        """See :class:`Codec`; the mode of the posterior where the autoencoder has one."""
        frames = self._check(frames)
        pictures = torch.cat([frames[:, :3], frames[:, 3:].expand(-1, 3, -1, -1)])
        shift, scale = self._shift_scale()
        latents = (_mode(self.autoencoder.encode(pictures)).float() - shift) * scale
        return torch.cat(latents.chunk(2), dim=1)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "n c y x"]) -> Float[Tensor, "n 4 h w"]:
        """See :class:`Codec`."""
        shift, scale = self._shift_scale()
        stacked = torch.cat(latents.to(self.device).float().chunk(2, dim=1)) / scale + shift
        colour, alpha = self.autoencoder.decode(stacked.to(self.dtype)).sample.chunk(2)
        return valid_premultiplied(torch.cat([colour, alpha.mean(dim=1, keepdim=True)], dim=1))


def _mode(encoded: Any) -> Tensor:
    """The deterministic latents in any of the outputs that diffusers autoencoders give."""
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mode()
    return encoded.latents if hasattr(encoded, "latents") else encoded.latent


def load_codec(spec: str | Path) -> Codec:
    """The codec of that name, folder or hub id, in evaluation mode and float32, on the GPU if there is one.

    Args:
        spec: ``"f4"`` or ``"f8"`` (built in), ``"pixel"`` or ``"pixel2"`` (none), a folder that ``save_pretrained``
            or ``rdtf train-codec`` wrote, or a folder or hub id (``owner/name``) of a diffusers autoencoder. Only a
            hub id can need the network, and only if it is not in the hub's cache.

    Raises:
        ValueError: none of these.
    """
    name = str(spec)
    if name in ("pixel", "pixel2"):
        codec: Codec = PixelCodec(patch=2 if name == "pixel2" else 1).eval()
    elif name in SHIPPED:
        codec = _load_folder(Path(__file__).parent / SHIPPED[name])
    elif (Path(spec) / hub.CONFIG).is_file():
        codec = _load_folder(Path(spec))
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(spec).exists():
        codec = _load_folder(hub.fetch(name))
    else:
        raise ValueError(f"no codec {name!r}; choose {CHOICES}")
    return codec.to(best_device())


def _load_folder(folder: Path) -> Codec:
    name = str(hub.read_config(folder / hub.CONFIG).get("_class_name"))
    for ours in (StickerAutoencoder, PixelCodec, DiffusersCodec):
        if name == ours.__name__:
            return ours.from_pretrained(folder)
    kind = _autoencoder_class(name)
    hub.check_foreign(folder, kind.from_config)
    # Without low_cpu_mem_usage, weights of any precision become float32, and accelerate is not needed.
    offline: dict[str, Any] = {"local_files_only": True, "low_cpu_mem_usage": False, "use_safetensors": True}
    codec = DiffusersCodec.wrap(kind.from_pretrained(folder, **offline))
    hub.check_finite(codec, folder)
    return codec


def _autoencoder_class(name: str) -> Any:
    """An autoencoder of diffusers.

    Raises:
        ValueError: the name is that of another thing.
    """
    import diffusers  # takes seconds

    allowed = re.fullmatch(r"(Asymmetric)?Autoencoder\w*|VQModel", name)
    kind = getattr(diffusers, name, None) if allowed else None
    if kind is None:
        raise ValueError(f"{name!r} is no autoencoder of diffusers; choose {CHOICES}")
    return kind
