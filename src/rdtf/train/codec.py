"""Training of the built-in codec, ``StickerAutoencoder``, on the frames of prepared datasets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor, nn

from rdtf.codec import Codec, StickerAutoencoder, load_codec
from rdtf.data.dataset import StickerDataset
from rdtf.device import best_device
from rdtf.files import atomic_file, write_text
from rdtf.pixels import to_frames, to_tensor
from rdtf.rng import numpy_rng, torch_rng
from rdtf.sheets import contact_sheet, evenly
from rdtf.train.optim import make_optimizers
from rdtf.train.small_loop import ShortReport, ShortSettings, ShortTraining

FRAMES_PER_VISIT = 2  # reading a sticker costs more than cutting a frame out of it
L2_WEIGHT = 4.0  # after 120 steps 0.8 dB better than a weight of 1 with an L1 term on finite differences
STATISTICS_MOMENTUM = 0.01  # of the running mean and deviation of the latents
EMA_DECAY = 0.998
SHEET_COLUMNS = 12


class CodecTrainSettings(ShortSettings):
    """What ``train_codec`` does.

    Attributes:
        downscale: 4 (8 channels, for 64 px) or 8 (16 channels, for 128 px and more).
        base: name or folder of a trained codec to start from. ``downscale`` then follows the codec.
        freeze_encoder: train only the decoder of ``base``. The latents do not change, so a generator that was trained
            with ``base`` works with the new codec.
        decoder_blocks: residual blocks of each decoder level, from fine to coarse, at least as many as in ``base``.
        batch: frames per step.
        crop: side of the square that is cut out of larger frames. Smaller crops make faster steps.
        muon: train the hidden convolutions with Muon (``optim.Muon``).
        muon_rate: peak rate of Muon.
        latent_noise: standard deviation of noise that is added to the latents, relative to the latents' own deviation.
            It makes the decoder robust to the errors of a generator.
        max_latent_noise: if given, each frame's deviation is drawn log-uniformly between ``latent_noise`` and this.
        scale_equivariance: weight of a second loss. Latents averaged over 2x2 or 4x4 cells should decode to the frame
            averaged over the same cells, so that latents hold coarse and fine structure as pixels do
            (arXiv 2502.14831, 2502.09509).
        precision: ``auto`` follows the rule of :func:`~rdtf.train.hardware.choose_precision`.
    """

    downscale: Literal[4, 8] = 4
    base: str | None = None
    freeze_encoder: bool = False
    decoder_blocks: tuple[int, ...] | None = None
    steps: int = Field(10_000, ge=1)
    batch: int = Field(16, ge=1)
    crop: int = Field(64, ge=16)
    muon: bool = True
    muon_rate: float = Field(0.02, gt=0)
    latent_noise: float = Field(0.05, ge=0)
    max_latent_noise: float | None = Field(None, gt=0)
    scale_equivariance: float = Field(0.25, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class Fidelity(BaseModel):
    """Reconstruction quality, as means over frames.

    Attributes:
        rgba, on_white, on_black: PSNR in dB of premultiplied RGBA, and of RGB over a background.
        alpha_error: mean absolute error of alpha in [0, 1].
    """

    frames: int
    rgba: float
    on_white: float
    on_black: float
    alpha_error: float


class CodecReport(ShortReport[CodecTrainSettings]):
    """Settings, data and quality of a training: ``report.json`` beside the weights."""

    data: dict[str, str]
    fingerprint: str
    frames_seen: int
    held_out: dict[str, Fidelity]


def reconstruction_loss(output: Tensor, target: Tensor, background: Tensor) -> Tensor:
    """L1 and weighted L2 of premultiplied RGBA, and of RGB over a background.

    Args:
        output, target: ``(n, 4, h, w)``, premultiplied in [-1, 1].
        background: ``(n, 3, 1, 1)`` colours in [0, 1].
    """
    error = output - target
    # Compositing is linear in premultiplied RGBA.
    error = torch.cat([error, error[:, :3] - error[:, 3:] * background], dim=1)
    return error.abs().mean() + L2_WEIGHT * error.square().mean()


def draw_batch(datasets: Sequence[StickerDataset], settings: CodecTrainSettings, step: int) -> Tensor:
    """The augmented training frames of a step, ``(batch, 4, crop, crop)`` premultiplied in [-1, 1].

    Datasets are drawn equally often, and so are the stickers within a dataset, whatever their number of frames. Frames
    are cropped, shifted by up to an eighth, flipped and changed in brightness. Some swap colour channels or fade.
    """
    rng = numpy_rng(settings.seed, step, "codec/data")
    frames: list[np.ndarray] = []
    while len(frames) < settings.batch:
        dataset = datasets[int(rng.integers(len(datasets)))]
        clip = dataset.frames(int(rng.integers(len(dataset))))
        frames += [augment(clip[rng.integers(len(clip))], settings.crop, rng) for _ in range(FRAMES_PER_VISIT)]
    return torch.stack([to_tensor(frame) for frame in frames[: settings.batch]])


def augment(frame: np.ndarray, crop: int, rng: np.random.Generator) -> np.ndarray:
    """An augmented straight RGBA frame ``(s, s, 4)`` uint8 with ``s <= crop``."""
    side = min(crop, len(frame))
    margin = side // 8
    padded = np.pad(frame, ((margin, margin), (margin, margin), (0, 0)))
    top, left = rng.integers(len(padded) - side + 1, size=2)
    out = vary(padded[top : top + side, left : left + side].astype(np.float32), rng)
    gains = np.append(rng.uniform(0.7, 1.0, 3), rng.uniform(0.2, 1.0) if rng.random() < 0.1 else 1.0)
    return np.rint(out * gains).astype(np.uint8)


def vary(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """RGBA pictures ``(..., h, w, 4)`` changed alike: half are mirrored, and a third have exchanged colour channels."""
    if rng.random() < 0.5:
        pictures = pictures[..., ::-1, :]
    if rng.random() < 0.3:
        pictures = pictures[..., [*rng.permutation(3), 3]]
    return pictures


def train_codec(data: Sequence[Path], out: Path, settings: CodecTrainSettings) -> CodecReport:
    """Train an autoencoder on the train splits of prepared datasets and measure it on their other splits.

    Writes into ``out``: ``config.json`` and weights (float16), ``report.json``, ``reconstructions.png``. Ctrl-C ends
    the training early; the codec is then measured and saved as it is.

    Raises:
        ValueError: ``out`` is not empty, there are no training frames, or a loss is not finite.
    """
    training = ShortTraining("codec", out, settings)
    model = _untrained(settings)
    training.settings = settings = training.settings.model_copy(update={"downscale": model.downscale})
    datasets = [StickerDataset(folder, "train") for folder in data]
    for folder, dataset in zip(data, datasets, strict=True):
        if not len(dataset):
            raise ValueError(f"{folder}: its train split has no stickers")
        if min(settings.crop, dataset.size) % settings.downscale:
            raise ValueError(f"crop and the size of {folder} must be multiples of downscale {settings.downscale}")
    if len({min(settings.crop, dataset.size) for dataset in datasets}) != 1:
        raise ValueError("give one or more prepared folders, of one frame size or not smaller than crop")
    device = best_device()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = training.choose_precision(device, max(model.config.widths))
    settings = training.settings
    optimizers = make_optimizers(
        [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad],
        muon=settings.muon,
        lr=settings.learning_rate,
        muon_lr=settings.muon_rate,
        weight_decay=0.01,
        bf16=bf16,
    )

    def loss_of(step: int) -> Tensor:
        frames = draw_batch(datasets, settings, step)
        generator = torch_rng(settings.seed, step, "codec/noise")
        cells = [side // settings.downscale for side in frames.shape[-2:]]
        noise = torch.randn(len(frames), model.latent_channels, *cells, generator=generator)
        background = torch.rand(len(frames), 3, 1, 1, generator=generator)
        level = torch.rand(len(frames), 1, 1, 1, generator=generator)
        pooled = 2 ** int(torch.randint(1, 3, (), generator=generator))
        if settings.max_latent_noise:
            noise *= (settings.max_latent_noise / settings.latent_noise) ** level
        frames, noise, background = (drawn.to(device) for drawn in (frames, settings.latent_noise * noise, background))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            momentum = STATISTICS_MOMENTUM if settings.base else max(STATISTICS_MOMENTUM, 1 / (1 + step))
            return codec_loss(model, frames, noise, background, settings.scale_equivariance, pooled, momentum)

    average, facts = training.train(model, optimizers, loss_of, EMA_DECAY)
    if not settings.freeze_encoder:
        store_statistics(average, (draw_batch(datasets, settings, -1 - i) for i in range(32)))
    average.half().save_pretrained(out)
    saved = cast(StickerAutoencoder, StickerAutoencoder.from_pretrained(out)).to(device)
    held_out = {str(folder): kept for folder in data if len(kept := _held_out(folder))}
    report = CodecReport(
        **facts,
        data={str(folder): dataset.fingerprint for folder, dataset in zip(data, datasets, strict=True)},
        fingerprint=saved.fingerprint,
        frames_seen=facts["steps"] * settings.batch,
        held_out={name: fidelity(saved, kept) for name, kept in held_out.items()},
    )
    write_text(out / "report.json", report.model_dump_json(indent=2) + "\n")
    for name, kept in held_out.items():
        for shade in ("light", "dark"):
            sheet = reconstructions(saved, kept, shade)
            with atomic_file(out / f"reconstructions-{Path(name).name}-{shade}.png") as file:
                sheet.save(file, "PNG")
    return report


def _untrained(settings: CodecTrainSettings) -> StickerAutoencoder:
    """The initial codec.

    Raises:
        ValueError: ``base`` is not one of ours, or settings contradict each other.
    """
    if settings.base is not None:
        model = load_codec(settings.base)
        if not isinstance(model, StickerAutoencoder):
            raise ValueError(f"{settings.base} is a {type(model).__name__}; only a StickerAutoencoder can be trained")
    elif settings.freeze_encoder:
        raise ValueError("freeze_encoder trains the decoder of a trained codec; give base too")
    else:
        model = StickerAutoencoder.for_downscale(settings.downscale)
    if settings.decoder_blocks:
        model = model.with_larger_decoder(settings.decoder_blocks)
    model.train().requires_grad_(True)
    model.encoder.requires_grad_(not settings.freeze_encoder)
    return model


def codec_loss(
    model: StickerAutoencoder,
    frames: Tensor,
    noise: Tensor,
    background: Tensor,
    scale_equivariance: float = 0.0,
    pooled: int = 2,
    momentum: float = STATISTICS_MOMENTUM,
) -> Tensor:
    """The reconstruction loss of frames after ``noise`` was added to their normalised latents.

    If the encoder is trained, the stored latent statistics move towards those of the batch.

    Args:
        frames, background: as in :func:`reconstruction_loss`. noise: ``(n, c, h / downscale, w / downscale)``.
        scale_equivariance: weight of the loss between averaged frames and decoded averaged latents.
        pooled: side of the squares of the averaging, in cells of the latents.
        momentum: weight of the batch in the stored statistics.
    """
    frames = frames.to(memory_format=torch.channels_last)
    if next(model.encoder.parameters()).requires_grad:
        raw = model.encoder(frames).float()
        std, mean = torch.std_mean(raw, dim=(0, 2, 3))
        with torch.no_grad():
            model.latent_mean.lerp_(mean, momentum)
            model.latent_std.lerp_(std, momentum)
        # Batch statistics would make a frame's latents depend on the rest of its batch, and the decoder could not
        # reproduce flat colours exactly. So the running statistics normalise.
        latents = (raw - model.latent_mean[:, None, None]) / model.latent_std[:, None, None]
        # The noise grows with the spread of the latents, so larger latents do not drown the noise.
        noise = noise * (std / model.latent_std)[:, None, None]
    else:
        latents = model.encode(frames)
    loss = reconstruction_loss(model.decoder(latents + noise).float(), frames, background)
    if scale_equivariance:
        small, target = (nn.functional.avg_pool2d(x, pooled) for x in (latents, frames))
        loss = loss + scale_equivariance * reconstruction_loss(model.decoder(small).float(), target, background)
    return loss


@torch.no_grad()
def store_statistics(model: StickerAutoencoder, batches: Iterable[Tensor]) -> None:
    """Set the model's latent mean and deviation (of each channel) to those of these frames."""
    latents = torch.cat([model.encoder(frames.to(model.device)).movedim(1, -1).flatten(0, -2) for frames in batches])
    std, mean = torch.std_mean(latents, dim=0)
    model.latent_mean.copy_(mean)
    model.latent_std.copy_(std + 1e-5)


def fidelity(codec: Codec, frames: np.ndarray) -> Fidelity:
    """Reconstruction quality of straight RGBA frames ``(n, h, w, 4)`` uint8."""
    rows = []  # of each frame: the measures
    for chunk in np.array_split(frames, math.ceil(len(frames) / 64)):
        target = to_tensor(chunk)
        error = (codec.decode(codec.encode(target)).cpu() - target) / 2
        psnrs = [_psnr(part) for part in (error, error[:, :3] - error[:, 3:], error[:, :3])]
        rows.append(torch.stack([*psnrs, error[:, 3].abs().mean(dim=(1, 2))], 1))
    rgba, white, black, alpha = torch.cat(rows).mean(0).tolist()
    return Fidelity(frames=len(frames), rgba=rgba, on_white=white, on_black=black, alpha_error=alpha)


def _psnr(error: Tensor) -> Tensor:
    """PSNR of each frame, from errors in units of the peak. At most 60 dB, the value of an equal frame."""
    return (-10 * error.square().mean(dim=(1, 2, 3)).log10()).clamp(max=60.0)


def _held_out(folder: Path, limit: int = 8) -> np.ndarray:
    """Up to ``limit`` evenly spaced frames of every sticker outside of the train split."""
    datasets = [StickerDataset(folder, split) for split in ("val", "test")]
    stickers = (dataset.frames(i) for dataset in datasets for i in range(len(dataset)))
    clips = [frames[evenly(len(frames), limit)] for frames in stickers]
    return np.concatenate(clips) if clips else np.zeros((0, 8, 8, 4), np.uint8)


def reconstructions(codec: Codec, frames: np.ndarray, background: str) -> Image.Image:
    """Evenly spaced frames with their reconstructions below, over one of ``sheets.BACKGROUNDS``."""
    chosen = frames[np.linspace(0, len(frames) - 1, 2 * SHEET_COLUMNS).round().astype(int)]
    back = to_frames(codec.decode(codec.encode(to_tensor(chosen))))
    scale = max(1, 128 // frames.shape[1])
    chosen, back = (clip.repeat(scale, 1).repeat(scale, 2) for clip in (chosen, back))
    rows = [kind[half] for half in (slice(SHEET_COLUMNS), slice(SHEET_COLUMNS, None)) for kind in (chosen, back)]
    return contact_sheet(rows, labels=("original", "codec") * 2, frames=SHEET_COLUMNS, background=background)
