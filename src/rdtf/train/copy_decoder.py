"""Training of the copy decoder on the output of a trained generator for real clips.

Latents of training clips are partly noised, and the generator denoises them around the given frames. The decoded result
has the generator's smears at the pose of the true frame, so both can be compared pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from rdtf.copy_decoder import CopyDecoder, nearest_known
from rdtf.data.augment import variant_frames
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import StickerDataset
from rdtf.diffusion.objective import TRAIN_TIMESTEPS
from rdtf.diffusion.schedulers import with_steps
from rdtf.files import atomic_file, write_text
from rdtf.loading import load_pipeline
from rdtf.masks import Task, draw_known
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import to_frames, to_tensor
from rdtf.progress import bars
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet
from rdtf.train.codec import vary
from rdtf.train.optim import make_optimizers
from rdtf.train.small_loop import ShortReport, ShortSettings, ShortTraining

EMA_DECAY = 0.998
CLIPS_AT_ONCE = 16
MIN_FRAMES = 4
TASKS = (Task.INTERPOLATION, Task.FORWARD, Task.BACKWARD, Task.IMAGE_TO_VIDEO)
TASK_WEIGHTS = (0.5, 0.15, 0.15, 0.2)
SHEET_ROWS = 24


class CopyDecoderSettings(ShortSettings):
    """What ``train_copy_decoder`` does.

    Attributes:
        base: model whose copy decoder is trained on; by default the generator's own, or a new one if it has none. The
            decoder is convolutional, so it may come from a model of another size.
        clips: number of clips of the train split that the generator denoises.
        batch: frames per step.
        frames: most frames of a clip.
        min_level, max_level: range of the noise levels that clips are denoised from.
        denoising_steps: steps from noise level 1. A clip takes the steps below its own level.
        alone: fraction of the frames that are shown without references.
        precision: ``auto`` follows the rule of :func:`~rdtf.train.hardware.choose_precision`.
    """

    base: str | None = None
    clips: int = Field(2400, ge=1)
    steps: int = Field(1500, ge=1)
    batch: int = Field(16, ge=1)
    frames: int = Field(8, ge=MIN_FRAMES, le=16)
    min_level: float = Field(0.75, gt=0, le=1)
    max_level: float = Field(1.0, gt=0, le=1)
    denoising_steps: int = Field(7, ge=1)
    alone: float = Field(0.1, ge=0, le=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class CopyDecoderReport(ShortReport[CopyDecoderSettings]):
    """Settings and quality of a training: ``copy_decoder.json`` in the new pipeline's folder.

    Attributes:
        error: mean absolute error of premultiplied RGBA in 0..255 over the unknown frames of clips of the validation
            split, by ``decoded`` and ``redrawn``; empty without such clips.
    """

    model: str
    data: str
    clips: int
    error: dict[str, float]


@dataclass(frozen=True)
class Clip:
    """A clip beside the generator's version of it.

    Attributes:
        true, drawn: the frames and the generator's frames, straight ``(f, h, w, 4)`` uint8; equal where given.
        known: ``(f,)`` bool, the given frames. level: noise level that the generator starts from.
    """

    true: np.ndarray
    drawn: np.ndarray
    known: np.ndarray
    loop: bool
    level: float


def make_clips(
    pipeline: StickerPipeline, dataset: StickerDataset, settings: CopyDecoderSettings, count: int, purpose: str
) -> list[Clip]:
    """Clips of a dataset, with the frames that the pipeline denoises from their noised latents.

    Raises:
        ValueError: no sticker has 4 frames.
    """
    usable = np.flatnonzero(np.asarray(dataset.column("num_frames")) >= MIN_FRAMES)
    if not len(usable):
        raise ValueError(f"{dataset.folder}: no sticker has {MIN_FRAMES} frames to copy between")
    rng = numpy_rng(settings.seed, 0, f"copy decoder/{purpose}")
    chosen = np.concatenate([rng.permutation(usable) for _ in range(-(-count // len(usable)))])[:count]
    levels = _levels(pipeline, settings)
    clips = [_draw(dataset, int(sticker), settings, levels, rng) for sticker in chosen]

    def alike(row: int) -> tuple[int, float]:
        return len(clips[row].true), clips[row].level

    with bars() as progress:
        bar = progress.add_task(f"Making clips ({purpose})", total=count, note="")
        for at in range(0, count, 4 * CLIPS_AT_ONCE):
            some = sorted(range(at, min(at + 4 * CLIPS_AT_ONCE, count)), key=alike)
            for _, same in groupby(some, alike):
                rows = list(same)
                for first in range(0, len(rows), CLIPS_AT_ONCE):
                    group = rows[first : first + CLIPS_AT_ONCE]
                    made = _bring_back(pipeline, [clips[row] for row in group], settings, group[0])
                    for row, drawn in zip(group, made, strict=True):
                        clips[row] = replace(clips[row], drawn=drawn)
            progress.advance(bar, len(some))
    return clips


def _levels(pipeline: StickerPipeline, settings: CopyDecoderSettings) -> list[float]:
    """Noise levels of the sampling steps that lie in the range."""
    scheduler = with_steps(pipeline.scheduler, settings.denoising_steps, torch.device("cpu"))
    levels = [float(t) / TRAIN_TIMESTEPS for t in scheduler.timesteps]
    found = [level for level in levels if settings.min_level <= level <= settings.max_level + 1e-6]
    if not found:
        raise ValueError(
            f"none of {settings.denoising_steps} denoising steps has a level from {settings.min_level} to "
            f"{settings.max_level}; raise denoising_steps"
        )
    return found


def _draw(
    dataset: StickerDataset, sticker: int, settings: CopyDecoderSettings, levels: list[float], rng: np.random.Generator
) -> Clip:
    """A clip that the generator has not drawn yet."""
    record = dataset.record(sticker)
    plan = plan_clip(record, settings.frames, rng, cluster_fraction=0.0, num_augmented=2, shorter=False)
    task = TASKS[int(rng.choice(len(TASKS), p=TASK_WEIGHTS))]
    known = draw_known(task, len(plan.frames), rng, loop=plan.loop)
    frames = variant_frames(record, dataset.frames(sticker)[list(plan.frames)], plan.variant)
    return Clip(frames, frames, known, plan.loop, float(rng.choice(levels)))


def _bring_back(
    pipeline: StickerPipeline, clips: list[Clip], settings: CopyDecoderSettings, seed: int
) -> list[np.ndarray]:
    frames = np.stack([clip.true for clip in clips])
    known = torch.from_numpy(np.stack([clip.known for clip in clips])).to(pipeline.device)
    decoded = pipeline.bring_back(
        to_tensor(frames).to(pipeline.device),
        known,
        [clip.loop for clip in clips],
        level=clips[0].level,
        steps=settings.denoising_steps,
        seed=settings.seed + seed,
    )
    return [
        np.where(clip.known[:, None, None, None], clip.true, made)
        for clip, made in zip(clips, to_frames(decoded, clean_below=0), strict=True)
    ]


def copy_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of premultiplied RGBA and of its differences along x and y, ``(n, 4, h, w)``."""
    error = output - target
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _batch(clips: list[Clip], settings: CopyDecoderSettings, step: int, references: int) -> list[Tensor]:
    """Unknown frames with a number of references that is drawn for the step; mirrored and recoloured at random.

    Returns:
        drawn frames, references, their offsets, whether they exist, and true frames.
    """
    rng = numpy_rng(settings.seed, step, "copy decoder/batch")
    count = int(rng.integers(1, references + 1))
    chosen = [clips[row] for row in rng.integers(len(clips), size=settings.batch)]
    frames = [int(rng.choice(np.flatnonzero(~clip.known))) for clip in chosen]
    pictures, offsets, exists = [], [], []
    for clip, frame in zip(chosen, frames, strict=True):
        index, away, there = nearest_known(torch.from_numpy(clip.known)[None], torch.tensor([clip.loop]), count)
        shown = [clip.drawn[frame], clip.true[frame], *clip.true[index[0, frame].numpy()]]
        shown += [shown[0]] * (count + 2 - len(shown))  # a clip with fewer frames than references
        pictures.append(vary(np.stack(shown), rng))
        pad = count - away.shape[-1]
        offsets.append(torch.nn.functional.pad(away[0, frame], (0, pad)))
        seen = torch.nn.functional.pad(there[0, frame], (0, pad))
        exists.append(seen & bool(rng.random() >= settings.alone))
    stack = to_tensor(np.stack(pictures))
    return [stack[:, 0], stack[:, 2:], torch.stack(offsets), torch.stack(exists), stack[:, 1]]


def train_copy_decoder(data: Path, model: Path | str, out: Path, settings: CopyDecoderSettings) -> CopyDecoderReport:
    """Train a copy decoder for a generator, and save the generator with it as a new pipeline in ``out``.

    Ctrl-C ends the training early; the decoder is then measured and saved as it is.

    Raises:
        ValueError: ``out`` is not empty, the data have another size than the model, or a loss is not finite.
    """
    training = ShortTraining("copy decoder", out, settings)
    pipeline = load_pipeline(model)
    dataset = StickerDataset(data, "train")
    if dataset.size != pipeline.config.sample_size:
        raise ValueError(
            f"{model} makes stickers of {pipeline.config.sample_size} px, {data} holds {dataset.size} px; prepare the "
            f"data with --size {pipeline.config.sample_size}"
        )
    torch.manual_seed(settings.seed)
    device = pipeline.device
    base = pipeline if settings.base is None else load_pipeline(settings.base)
    if settings.base is not None and base.copy_decoder is None:
        raise ValueError(f"{settings.base} has no copy decoder to begin with; leave out base")
    decoder = (CopyDecoder() if base.copy_decoder is None else base.copy_decoder).to(device).train()
    bf16 = training.choose_precision(device, max(decoder.widths))
    settings = training.settings
    clips = make_clips(pipeline, dataset, settings, settings.clips, "train")
    optimizers = make_optimizers(
        decoder.named_parameters(), muon=False, lr=settings.learning_rate, muon_lr=0.0, weight_decay=0.01
    )

    def loss_of(step: int) -> Tensor:
        *inputs, target = (tensor.to(device) for tensor in _batch(clips, settings, step, decoder.references))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = decoder(*inputs)
        return copy_loss(output.float(), target)

    average, facts = training.train(decoder, optimizers, loss_of, EMA_DECAY)
    pipeline.copy_decoder = average.eval()
    pipeline.save_pretrained(out)
    validation = StickerDataset(data, "val")
    moving = int((np.asarray(validation.column("num_frames")) >= MIN_FRAMES).sum())
    held_out = make_clips(pipeline, validation, settings, 2 * moving, "val") if moving else []
    error = _measure(average, held_out, out) if held_out else {}
    report = CopyDecoderReport(**facts, model=str(model), data=dataset.fingerprint, clips=len(clips), error=error)
    write_text(out / "copy_decoder.json", report.model_dump_json(indent=2) + "\n")
    return report


@torch.no_grad()
def _measure(decoder: CopyDecoder, clips: list[Clip], out: Path) -> dict[str, float]:
    """The errors of :class:`CopyDecoderReport`. A contact sheet of the clips goes into ``out``."""
    errors: dict[str, list[float]] = {"decoded": [], "redrawn": []}
    rows: list[np.ndarray] = []
    device = decoder.device
    for clip in clips:
        true, drawn, known = to_tensor(clip.true), to_tensor(clip.drawn), torch.from_numpy(clip.known)
        redrawn = decoder.redraw(drawn[None].to(device), known[None].to(device), torch.tensor([clip.loop]))[0].cpu()
        for name, made in (("decoded", drawn), ("redrawn", redrawn)):
            errors[name].append(float((made - true)[~known].abs().mean() * 127.5))
        if len(rows) < 3 * SHEET_ROWS:
            rows += [clip.true, clip.drawn, to_frames(redrawn)]
    given = [np.flatnonzero(clip.known).tolist() for clip in clips for _ in range(3)][: len(rows)]
    labels = ["true", "decoded", "redrawn"] * (len(rows) // 3)
    sheet = contact_sheet(rows, labels=labels, frames=max(map(len, rows)), outlined=given, background="light")
    with atomic_file(out / "copy_decoder.png") as file:
        sheet.save(file, "PNG")
    return {name: float(np.mean(values)) for name, values in errors.items()}
