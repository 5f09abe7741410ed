"""A forecast of a training from a few measured steps: memory, time and disk, and what to change if it does not fit."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from rich.table import Table

from rdtf.batch import ClipBatch
from rdtf.codec import load_codec
from rdtf.data.dataset import StickerDataset
from rdtf.device import best_device
from rdtf.model import DFGN
from rdtf.progress import duration
from rdtf.train.hardware import free_memory, peak_memory, reset_peak_memory
from rdtf.train.network import network_arguments
from rdtf.train.run import Trainer
from rdtf.train.settings import TrainSettings
from rdtf.train.step import Learner

_SECONDS = 40.0  # for measuring steps, about
_FEWEST, _MOST = 3, 12  # measured steps
_DRAWN = 40  # steps whose clips are drawn to find the largest pass
_USABLE = 0.92  # of the free memory


@dataclass(frozen=True)
class Plan:
    """A forecast, in bytes and seconds.

    Attributes:
        free: memory that training can take on this device. held: memory of weights, gradients, moments and averages.
        peak: largest memory in steps.
        step: seconds of an average step. training: seconds of all steps, without previews, checkpoints and held-out
            losses.
        steps: their number, until ``steps`` or ``max_minutes`` end the run.
        disk: a checkpoint with its pipeline. Two checkpoints are kept.
        largest: clips and frames of the largest pass. room: most clips of that length that fit into a pass.
    """

    device: str
    parameters: int
    free: int
    held: int
    peak: int
    step: float
    steps: int
    training: float
    disk: int
    largest: tuple[int, int]
    room: int

    def table(self) -> Table:
        """A table for the terminal."""
        clips, frames = self.largest
        table = Table("what", "", title=f"Plan for {self.parameters / 1e6:.1f} M parameters on {self.device}")
        table.add_row("memory at most", f"{_size(self.peak)} of {_size(self.free)} free")
        table.add_row("of it for weights, gradients, moments, averages", _size(self.held))
        table.add_row("largest pass", f"{clips} clips of {frames} frames; {self.room} would fit")
        table.add_row("a step", f"{self.step:.2f} s")
        table.add_row(f"{self.steps} steps", duration(self.training))
        table.add_row("checkpoints", f"{_size(2 * self.disk)} of disk for the last two")
        return table


def make_plan(data: Path, settings: TrainSettings, folder: Path = Path()) -> Plan:
    """Measure a few steps of a training, with the real data and the real network.

    Only the data's cache of latents is kept, which the training will use.

    Args:
        folder: a folder on the disk that the run will write to.

    Raises:
        ValueError: the training does not fit into memory. The text says what would fit.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as run:
        _refuse_large_network(data, settings)
        learner = Trainer(data, Path(run), settings).learner
        if learner.devices.count > 1:
            raise ValueError("a plan is made in one process: start it without torchrun or accelerate launch")
        settings, device = learner.settings, learner.device
        free = free_memory(device) + peak_memory(device, now=True)
        drawn = (
            (step, batch) for step in range(_DRAWN) for batch in learner.source.batches(step, 0.0, learner.rank_slice)
        )
        step, largest = max(drawn, key=lambda item: math.prod(_shape(item[1])))
        room = _room(learner, largest, free)
        seconds = _step_seconds(learner, step)
        steps = settings.steps
        if settings.max_minutes:
            steps = min(steps, math.ceil(settings.max_minutes * 60 / seconds))
        parameters = sum(parameter.numel() for parameter in learner.named.values())
        return Plan(
            device=f"{device}, {torch.get_num_threads()} threads, {settings.precision}",
            parameters=parameters,
            free=free,
            held=_held(parameters, settings),
            peak=peak_memory(device),
            step=seconds,
            steps=steps,
            training=steps * seconds,
            disk=learner.bytes(),
            largest=_shape(largest),
            room=room,
        )


def _held(parameters: int, settings: TrainSettings) -> int:
    """Bytes of weights, gradients, moments (two of AdamW, one of Muon) and averages."""
    return 4 * parameters * (1 + 1 + (1 if settings.muon else 2) + 1)


def _refuse_large_network(data: Path, settings: TrainSettings) -> None:
    """Refuse a network whose weights, gradients, moments and averages do not fit. Nothing is built for that."""
    if settings.start_from is not None:
        return  # the network has been trained before, so it fits
    device = best_device()
    free = free_memory(device)
    arguments = network_arguments(settings, load_codec(settings.codec), StickerDataset(data, "train").size)
    with torch.device("meta"):
        network = DFGN(**arguments)
    needed = _held(sum(parameter.numel() for parameter in network.parameters()), settings)
    if needed > _USABLE * free:
        raise ValueError(
            f"size {settings.size} needs at least {_size(needed)} for weights, gradients, moments and averages, and "
            f"{_size(free)} are free on {device}; take a smaller --size"
        )


def _room(learner: Learner, largest: ClipBatch, free: int) -> int:
    """Most clips that fit into a pass, read off passes of one clip and of two; the moments exist afterwards.

    Raises:
        ValueError: the clips of the largest pass do not fit.
    """
    clips, frames = _shape(largest)
    one = _first(largest, 1)
    learner.backward(one.to(learner.device), frames)
    learner.update()  # creates the moments
    reset_peak_memory(learner.device)
    for _ in range(2):  # gradients exist in the second pass, as in gradient accumulation
        learner.backward(one.to(learner.device), frames)
    base = peak_memory(learner.device)
    learner.backward(_first(largest, 2).to(learner.device), frames)
    learner.update()
    # The peak may not grow at all. Then the pass fits into memory that is kept anyway.
    slope = max(peak_memory(learner.device) - base, base // 1000)
    room = int((_USABLE * free - base) / slope) + 1 if base <= _USABLE * free else 0
    if room >= clips:
        return room
    if room:
        parts = learner.settings.gradient_accumulation_steps * math.ceil(clips / room)
        mend = f"--set gradient_accumulation_steps={parts} does the same step in smaller passes"
    else:
        mend = "even one clip is too much: try --set gradient_checkpointing=true, fewer --frames or a smaller --size"
    raise ValueError(
        f"a pass of {clips} clips of {frames} frames needs about {_size(base + slope * (clips - 1))} of memory, and "
        f"{_size(free)} can be had; {mend}"
    )


def _step_seconds(learner: Learner, largest: int) -> float:
    """Seconds of an average step. The step with the largest pass comes first; a first step is slow and not counted."""
    learner.step = largest
    learner.train_step(0.0)
    learner.step = done = 0
    began = time.perf_counter()
    while done < _FEWEST or (done < _MOST and time.perf_counter() - began < _SECONDS):
        learner.train_step(0.0)
        done += 1
    return (time.perf_counter() - began) / done


def _shape(batch: ClipBatch) -> tuple[int, int]:
    return len(batch), batch.video.shape[2]


def _first(batch: ClipBatch, count: int) -> ClipBatch:
    """The first clips of a batch, at its padded length."""
    return ClipBatch(*(getattr(batch, field.name)[:count] for field in fields(batch)))


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"
