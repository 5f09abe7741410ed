"""Training of the copy decoder on the output of a trained generator for real clips.

Latents of training clips are partly noised, and the generator denoises them around the given frames. The decoded result
has the generator's smears at the pose of the true frame, so both can be compared pixel by pixel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rdtf.copy_decoder import CopyDecoder, nearest_known
from rdtf.data.augment import variant_frames
from rdtf.data.clips import plan_clip
from rdtf.data.dataset import StickerDataset
from rdtf.diffusion.objective import TRAIN_TIMESTEPS
from rdtf.diffusion.schedulers import with_steps
from rdtf.files import atomic_file, check_new_folder, write_text
from rdtf.loading import load_pipeline
from rdtf.masks import Task, draw_known
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import to_frames, to_tensor
from rdtf.progress import bars
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet
from rdtf.train.hardware import choose_precision, keep_freed_memory, with_threads
from rdtf.train.optim import make_optimizers
from rdtf.train.small_loop import train_shortly

EMA_DECAY = 0.998
CLIPS_AT_ONCE = 16
MIN_FRAMES = 4
TASKS = (Task.INTERPOLATION, Task.FORWARD, Task.BACKWARD, Task.IMAGE_TO_VIDEO)
TASK_WEIGHTS = (0.5, 0.15, 0.15, 0.2)
SHEET_ROWS = 24


class CopyDecoderSettings(BaseModel):
    """What ``train_copy_decoder`` does.

    Attributes:
        base: model whose copy decoder is trained on; by default the generator's own, or a new one if it has none. The
            decoder is convolutional, so it may come from a model of another size.
        clips: number of clips of the train split that the generator denoises.
        steps: optimiser steps.
        minutes: stop earlier, at this wall-clock time. The learning rate then follows the clock, so two runs differ.
        batch: frames per step.
        frames: most frames of a clip.
        min_level, max_level: range of the noise levels that clips are denoised from.
        denoising_steps: steps from noise level 1. A clip takes the steps below its own level.
        alone: fraction of the frames that are shown without references.
        learning_rate: peak rate of AdamW.
        seed: of weights, clips and draws.
        precision: ``auto`` follows the rule of :func:`~rdtf.train.hardware.choose_precision`.
        threads: CPU threads; None stands for torch's default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str | None = None
    clips: int = Field(2400, ge=1)
    steps: int = Field(1500, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch: int = Field(16, ge=1)
    frames: int = Field(8, ge=MIN_FRAMES, le=16)
    min_level: float = Field(0.75, gt=0, le=1)
    max_level: float = Field(1.0, gt=0, le=1)
    denoising_steps: int = Field(7, ge=1)
    alone: float = Field(0.1, ge=0, le=1)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int | None = Field(None, ge=1)


class CopyDecoderReport(BaseModel):
    """Settings and quality of a training: ``copy_decoder.json`` in the new pipeline's folder.

    Attributes:
        error: mean absolute error of premultiplied RGBA in 0..255 over the unknown frames of clips of the validation
            split, by ``decoded`` and ``redrawn``; empty without such clips.
    """

    model: str
    data: str
    settings: CopyDecoderSettings
    parameters: int
    clips: int
    steps: int
    seconds: float
    stopped_early: bool
    final_loss: float
    error: dict[str, float]


@dataclass(frozen=True)
class Smears:
    """True frames beside the generator's frames, all straight ``(h, w, 4)`` uint8.

    Attributes:
        true, drawn: ``(n, f, h, w, 4)``; given frames are equal in both, frames beyond a clip's end are empty.
        known: ``(n, f)`` bool, the given frames; False beyond the end.
        length: ``(n,)`` frames of each clip. loop: ``(n,)`` bool.
    """

    true: np.ndarray
    drawn: np.ndarray
    known: np.ndarray
    length: np.ndarray
    loop: np.ndarray

    def __len__(self) -> int:
        return len(self.length)


@dataclass(frozen=True)
class _Clip:
    frames: np.ndarray
    known: np.ndarray
    loop: bool
    level: float


def make_smears(
    pipeline: StickerPipeline, dataset: StickerDataset, settings: CopyDecoderSettings, clips: int, purpose: str
) -> Smears:
    """Clips of a dataset, with the frames that the pipeline denoises from their noised latents.

    Raises:
        ValueError: no sticker has 4 frames.
    """
    size, most = dataset.size, settings.frames
    usable = np.flatnonzero(np.asarray(dataset.column("num_frames")) >= MIN_FRAMES)
    if not len(usable):
        raise ValueError(f"{dataset.folder}: no sticker has {MIN_FRAMES} frames to copy between")
    rng = numpy_rng(settings.seed, 0, f"copy decoder/{purpose}")
    chosen = np.concatenate([rng.permutation(usable) for _ in range(-(-clips // len(usable)))])[:clips]
    true, drawn = (np.zeros((clips, most, size, size, 4), np.uint8) for _ in range(2))
    known, loop = np.zeros((clips, most), bool), np.zeros(clips, bool)
    length = np.zeros(clips, int)
    levels = _levels(pipeline, settings)
    with bars() as progress:
        bar = progress.add_task(f"Making clips ({purpose})", total=clips, note="")
        for at in range(0, clips, 4 * CLIPS_AT_ONCE):
            rows = np.arange(at, min(at + 4 * CLIPS_AT_ONCE, clips))
            drawn_clips = {int(row): _draw(dataset, int(chosen[row]), settings, levels, rng) for row in rows}
            for group in _alike(drawn_clips):
                made = _bring_back(pipeline, [drawn_clips[row] for row in group], settings, group[0])
                for row, frames in zip(group, made, strict=True):
                    clip = drawn_clips[row]
                    n = len(clip.frames)
                    true[row, :n], drawn[row, :n], known[row, :n] = clip.frames, frames, clip.known
                    length[row], loop[row] = n, clip.loop
            progress.advance(bar, len(rows))
    return Smears(true, drawn, known, length, loop)


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
) -> _Clip:
    record = dataset.record(sticker)
    plan = plan_clip(record, settings.frames, rng, cluster_fraction=0.0, num_augmented=2, shorter=False)
    task = TASKS[int(rng.choice(len(TASKS), p=TASK_WEIGHTS))]
    known = draw_known(task, len(plan.frames), rng, loop=plan.loop)
    frames = variant_frames(record, dataset.frames(sticker)[list(plan.frames)], plan.variant)
    return _Clip(frames, known, plan.loop, float(rng.choice(levels)))


def _alike(clips: dict[int, _Clip]) -> Iterator[list[int]]:
    """Rows of clips with equally many frames and one noise level, at most :data:`CLIPS_AT_ONCE` each."""

    def key(row: int) -> tuple[int, float]:
        return len(clips[row].frames), clips[row].level

    for _, rows in groupby(sorted(clips, key=key), key):
        group = list(rows)
        yield from (group[i : i + CLIPS_AT_ONCE] for i in range(0, len(group), CLIPS_AT_ONCE))


def _bring_back(
    pipeline: StickerPipeline, clips: list[_Clip], settings: CopyDecoderSettings, seed: int
) -> list[np.ndarray]:
    frames = np.stack([clip.frames for clip in clips])
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
        np.where(clip.known[:, None, None, None], clip.frames, made)
        for clip, made in zip(clips, to_frames(decoded, clean_below=0), strict=True)
    ]


def copy_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of premultiplied RGBA and of its differences along x and y, ``(n, 4, h, w)``."""
    error = output - target
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@dataclass(frozen=True)
class _Batch:
    drawn: Tensor
    references: Tensor
    offsets: Tensor
    exists: Tensor
    target: Tensor


def _batch(smears: Smears, settings: CopyDecoderSettings, step: int, references: int) -> _Batch:
    """Unknown frames with a number of references that is drawn for the step; mirrored and recoloured at random."""
    rng = numpy_rng(settings.seed, step, "copy decoder/batch")
    count = int(rng.integers(1, references + 1))
    rows = rng.integers(len(smears), size=settings.batch)
    frames = [int(rng.choice(np.flatnonzero(~smears.known[row, : smears.length[row]]))) for row in rows]
    pictures, offsets, exists = [], [], []
    for row, frame in zip(rows, frames, strict=True):
        n = int(smears.length[row])
        index, away, there = nearest_known(
            torch.from_numpy(smears.known[row : row + 1, :n]), torch.tensor([bool(smears.loop[row])]), count
        )
        chosen = [smears.drawn[row, frame], smears.true[row, frame], *smears.true[row, index[0, frame].numpy()]]
        chosen += [chosen[0]] * (count + 2 - len(chosen))  # a clip with fewer frames than references
        pictures.append(_changed(np.stack(chosen), rng))
        pad = count - away.shape[-1]
        offsets.append(torch.nn.functional.pad(away[0, frame], (0, pad)))
        seen = torch.nn.functional.pad(there[0, frame], (0, pad))
        exists.append(seen & bool(rng.random() >= settings.alone))
    stack = to_tensor(np.stack(pictures))
    return _Batch(stack[:, 0], stack[:, 2:], torch.stack(offsets), torch.stack(exists), stack[:, 1])


def _changed(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures ``(n, h, w, 4)`` changed alike: mirrored, and at times with exchanged colour channels."""
    if rng.random() < 0.5:
        pictures = pictures[:, :, ::-1]
    if rng.random() < 0.3:
        pictures = pictures[..., [*rng.permutation(3), 3]]
    return np.ascontiguousarray(pictures)


def train_copy_decoder(data: Path, model: Path | str, out: Path, settings: CopyDecoderSettings) -> CopyDecoderReport:
    """Train a copy decoder for a generator, and save the generator with it as a new pipeline in ``out``.

    Ctrl-C ends the training early; the decoder is then measured and saved as it is.

    Raises:
        ValueError: ``out`` is not empty, the data have another size than the model, or a loss is not finite.
    """
    started = time.monotonic()
    check_new_folder(out)
    keep_freed_memory()
    settings = with_threads(settings)
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
    if settings.precision == "auto":
        precision, _ = choose_precision(device, max(decoder.widths))
        settings = settings.model_copy(update={"precision": precision})
    smears = make_smears(pipeline, dataset, settings, settings.clips, "train")
    average = deepcopy(decoder)
    optimizers = make_optimizers(
        decoder.named_parameters(), muon=False, lr=settings.learning_rate, muon_lr=0.0, weight_decay=0.01
    )

    def loss_of(step: int) -> Tensor:
        batch = _batch(smears, settings, step, decoder.references)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            output = decoder(
                batch.drawn.to(device), batch.references.to(device), batch.offsets.to(device), batch.exists.to(device)
            )
        return copy_loss(output.float(), batch.target.to(device))

    trained = train_shortly(
        "copy decoder",
        decoder,
        average,
        optimizers,
        loss_of,
        steps=settings.steps,
        minutes=settings.minutes,
        ema_decay=EMA_DECAY,
    )
    pipeline.copy_decoder = average.eval()
    pipeline.save_pretrained(out)
    error = {}
    validation = StickerDataset(data, "val")
    moving = int((np.asarray(validation.column("num_frames")) >= MIN_FRAMES).sum())
    if moving:
        error = _measure(average, make_smears(pipeline, validation, settings, 2 * moving, "val"), out)
    report = CopyDecoderReport(
        model=str(model),
        data=dataset.fingerprint,
        settings=settings,
        parameters=sum(parameter.numel() for parameter in average.parameters()),
        clips=len(smears),
        steps=trained.steps,
        seconds=round(time.monotonic() - started, 1),
        stopped_early=trained.stopped_early,
        final_loss=trained.loss,
        error=error,
    )
    write_text(out / "copy_decoder.json", report.model_dump_json(indent=2) + "\n")
    return report


@torch.no_grad()
def _measure(decoder: CopyDecoder, smears: Smears, out: Path) -> dict[str, float]:
    """The errors of :class:`CopyDecoderReport`. A contact sheet of the clips goes into ``out``."""
    errors: dict[str, list[float]] = {"decoded": [], "redrawn": []}
    rows: list[np.ndarray] = []
    labels: list[str] = []
    given: list[list[int]] = []
    for i in range(len(smears)):
        n = int(smears.length[i])
        known, true = smears.known[i, :n], to_tensor(smears.true[i, :n])
        drawn = to_tensor(smears.drawn[i, :n])
        device = decoder.device
        redrawn = decoder.redraw(
            drawn[None].to(device), torch.from_numpy(known)[None].to(device), torch.tensor([bool(smears.loop[i])])
        )[0].cpu()
        for name, made in (("decoded", drawn), ("redrawn", redrawn)):
            errors[name].append(float((made - true)[~known].abs().mean() * 127.5))
        if len(rows) < 3 * SHEET_ROWS:
            rows += [smears.true[i, :n], smears.drawn[i, :n], to_frames(redrawn)]
            labels += ["true", "decoded", "redrawn"]
            given += [np.flatnonzero(known).tolist()] * 3
    sheet = contact_sheet(rows, labels=labels, frames=smears.true.shape[1], outlined=given, background="light")
    with atomic_file(out / "copy_decoder.png") as file:
        sheet.save(file, "PNG")
    return {name: float(np.mean(values)) for name, values in errors.items()}
