"""A forecast of a training from a few measured passes: memory, time and disk, and what to change if it does not fit."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from rdtf.batch import ClipBatch
from rdtf.codec import load_codec
from rdtf.device import best_device
from rdtf.model import DFGN
from rdtf.presets import SIZES
from rdtf.progress import console
from rdtf.train.checkpoint import Checkpoint, save_checkpoint
from rdtf.train.hardware import free_memory, peak_memory, reset_peak_memory
from rdtf.train.run import Trainer
from rdtf.train.settings import TrainSettings

_SECONDS = 40.0  # for measuring steps, about
_MEASURED = 12  # steps at most
_LOOKED_AT = 40  # steps whose clips are drawn, to know the work of an average step
_USABLE = 0.92  # of the free memory
_PROBED = 1 << 28  # bytes written to measure the disk, if a checkpoint is larger than
_SAVED = 1 << 30


@dataclass(frozen=True)
class Plan:
    """A forecast, in bytes and seconds.

    Attributes:
        free: memory that training can take on this device. held: memory of weights, gradients, moments and averages.
        peak: largest memory in steps, saves and previews.
        step: seconds of an average step. training: seconds of all steps.
        steps: their number, until ``steps`` or ``max_minutes`` end the run.
        save, save_disk: a checkpoint with its pipeline. saves: their number. preview, previews: the same for previews.
            evaluation, evaluations: the same for held-out losses.
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
    save: float
    saves: int
    save_disk: int
    preview: float
    previews: int
    evaluation: float
    evaluations: int
    largest: tuple[int, int]
    room: int
    advice: tuple[str, ...]

    @property
    def total(self) -> float:
        """Seconds from start to end."""
        rest = self.previews * self.preview + self.evaluations * self.evaluation
        return self.training + self.saves * self.save + rest

    def facts(self) -> dict[str, Any]:
        """Values for JSON."""
        return {**asdict(self), "total": self.total}

    def table(self) -> Table:
        """A table for the terminal."""
        end = datetime.now() + timedelta(seconds=self.total)
        clips, frames = self.largest
        table = Table("what", "", title=f"Plan for {self.parameters / 1e6:.1f} M parameters on {self.device}")
        for name, value in (
            ("memory at most", f"{_size(self.peak)} of {_size(self.free)} free"),
            ("of it for weights, gradients, moments, averages", _size(self.held)),
            ("largest pass", f"{clips} clips of {frames} frames; {self.room} would fit"),
            ("a step", f"{self.step:.2f} s"),
            (f"{self.steps} steps", _time(self.training)),
            (f"{self.saves} checkpoints", f"{self.save:.1f} s each, {_size(self.save_disk)} of disk for the last two"),
            (f"{self.previews} previews", f"{self.preview:.1f} s each"),
            (f"{self.evaluations} held-out losses", f"{self.evaluation:.1f} s each"),
            ("from start to end", f"{_time(self.total)}; if it starts now, {end:%Y-%m-%d %H:%M}"),
        ):
            table.add_row(name, value)
        return table


def make_plan(data: Path, settings: TrainSettings, folder: Path = Path()) -> Plan:
    """Measure a few passes of a training, a checkpoint and a preview, with the real data and the real network.

    Only the data's cache of latents is kept, which the training will use.

    Args:
        folder: a folder on the disk that the run will write to.

    Raises:
        ValueError: the training does not fit into memory. The text says what would fit.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".plan-") as run:
        _refuse_what_cannot_fit(settings)
        trainer = Trainer(data, Path(run), settings)
        if trainer.devices.count > 1:
            raise ValueError("a plan is made in one process: start it without torchrun or accelerate launch")
        return _Measurement(trainer).plan()


def _held(parameters: int, settings: TrainSettings) -> int:
    """Bytes of weights, gradients, moments (two of AdamW, one of Muon) and averages."""
    copies = 1 + 1 + (1 if settings.muon else 2) + (0 if settings.ema_on_disk else 1)
    return 4 * parameters * copies


def _refuse_what_cannot_fit(settings: TrainSettings) -> None:
    """Refuse a network whose weights, gradients, moments and averages do not fit. Nothing is built for that."""
    if settings.start_from is not None:
        return  # the network has been trained before, so it fits
    device = best_device()
    free = free_memory(device)
    channels = load_codec(settings.codec).latent_channels

    def need(changed: TrainSettings) -> int:
        with torch.device("meta"):
            network = DFGN(**{**changed.network(), "latent_channels": channels})
        return _held(sum(parameter.numel() for parameter in network.parameters()), changed)

    needed = need(settings)
    if needed <= _USABLE * free:
        return
    mends = []
    on_disk = settings.model_copy(update={"ema_on_disk": True})
    if device.type == "cpu" and not settings.ema_on_disk and need(on_disk) <= _USABLE * free:
        mends.append("--set ema_on_disk=true keeps the averaged weights on disk")
    names = list(SIZES)[: list(SIZES).index(settings.size)]
    fitting = [name for name in names if need(settings.model_copy(update={"size": name})) <= _USABLE * free]
    if fitting:
        mends.append(f"--size {fitting[-1]} fits")
    raise ValueError(
        f"size {settings.size} needs at least {_size(needed)} for weights, gradients, moments and averages, and "
        f"{_size(free)} are free on {device}; {', or '.join(mends) or 'it takes a machine with more memory'}"
    )


class _Measurement:
    """Timed passes of one trainer, and the forecast from them."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.learner, self.settings = trainer, trainer.learner, trainer.settings
        self.device = self.learner.device
        began = time.perf_counter()
        self.drawn = [
            [_shape(b) for b in self.learner.source.batches(s, 0.0, self.learner.share)] for s in range(_LOOKED_AT)
        ]
        self.drawing = (time.perf_counter() - began) / _LOOKED_AT
        self.free = free_memory(self.device) + peak_memory(self.device, now=True)
        self.parameters = sum(parameter.numel() for parameter in self.learner.named.values())
        self.timed: list[tuple[int, float]] = []  # clips x frames of a pass, seconds

    def plan(self) -> Plan:
        step, index = max(
            ((s, i) for s, shapes in enumerate(self.drawn) for i in range(len(shapes))),
            key=lambda place: math.prod(self.drawn[place[0]][place[1]]),
        )
        largest = self.learner.source.batches(step, 0.0, self.learner.share)[index]
        clips, frames = _shape(largest)
        base, slope = self._memory(largest)
        room = int((_USABLE * self.free - base) / slope) + 1 if base <= _USABLE * self.free else 0
        if room < clips:
            self._refuse(base + slope * (clips - 1), clips, frames, room)
        self._steps([step])
        save, disk = self._save()
        preview = self._preview() if self.settings.previews else 0.0
        return self._forecast(save, disk, preview, self._evaluation(), (clips, frames), room)

    def _pass(self, batch: ClipBatch) -> None:
        """Forward and backward, timed."""
        recorded = self.learner.recorded
        before = recorded.count if recorded else 0
        began = time.perf_counter()
        batch = batch.to(self.device)
        self.learner.backward(batch, int(batch.valid.sum()))
        self._finish()
        if recorded is None or recorded.count == before:  # recording a CUDA graph takes longer than the pass
            self.timed.append((math.prod(_shape(batch)), time.perf_counter() - began))

    def _update(self) -> float:
        began = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(self.learner.named.values(), self.settings.max_grad_norm)
        self.learner.update()
        self._finish()
        return time.perf_counter() - began

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _memory(self, largest: ClipBatch) -> tuple[float, float]:
        """Peak memory with one clip of the largest pass, and the memory that each further clip adds."""
        one = _first(largest, 1)
        self._pass(one)
        self._update()  # creates the moments
        reset_peak_memory(self.device)
        self._pass(one)
        self._pass(one)  # gradients exist from the start, as in gradient accumulation
        base = peak_memory(self.device)
        slope = max(0, base - _held(self.parameters, self.settings))  # an upper bound of what a second clip adds
        if len(largest) > 1 and base + slope < _USABLE * self.free:
            self._pass(_first(largest, 2))
            slope = peak_memory(self.device) - base
        self.update_seconds = self._update()
        self.timed.clear()  # first passes are slower
        # The peak may not grow at all: then the pass fits into memory that is kept anyway.
        return base, max(slope, base * 0.001)

    def _steps(self, first: Sequence[int]) -> None:
        """Real steps while there is time, first the step with the largest pass."""
        began, updates = time.perf_counter(), []
        for step in (*first, *range(_MEASURED)):
            for batch in self.learner.source.batches(step, 0.0, self.learner.share):
                self._pass(batch)
                if self._late(began) and len(self.timed) >= 3:
                    break
            updates.append(self._update())
            if self._late(began):
                break
        self.update_seconds = float(np.mean(updates))

    @staticmethod
    def _late(began: float) -> bool:
        return time.perf_counter() - began > _SECONDS

    def _step_seconds(self) -> float:
        """Seconds of an average step: a pass takes a + b * frames, with a and b fitted by least squares."""
        sizes, seconds = (np.array(column, float) for column in zip(*self.timed, strict=True))
        each, per_frame = 0.0, float(seconds.sum() / sizes.sum())
        if len(set(sizes)) > 1:
            fit = np.polyfit(sizes, seconds, 1)
            if min(fit) >= 0:
                per_frame, each = map(float, fit)
        steps = [sum(each + per_frame * math.prod(shape) for shape in shapes) for shapes in self.drawn]
        return float(np.mean(steps)) + self.update_seconds + self.drawing

    def _save(self) -> tuple[float, int]:
        """Seconds and bytes of a save. For a large save they are extrapolated from a part."""
        trainer = self.trainer
        total = trainer.learner.bytes()
        began = time.perf_counter()
        if total <= _SAVED:
            (trainer.run / "log.jsonl").touch()
            trainer.save()
            written = sum(file.stat().st_size for file in trainer.run.rglob("*") if file.is_file())
            return time.perf_counter() - began, written
        probe = Checkpoint(0, {"probe": {"zeros": torch.zeros(_PROBED // 4)}}, {})
        save_checkpoint(trainer.run / "probe", probe)
        return (time.perf_counter() - began) * total / _PROBED, total

    def _preview(self) -> float:
        """Seconds of a preview, from two of its steps, or from training passes if two steps would take long."""
        trainer, steps = self.trainer, self.settings.sampling.steps
        captions = trainer.preview_captions[: self.settings.previews]
        frames = min(8, self.settings.frames)
        sizes, seconds = (np.array(column, float) for column in zip(*self.timed, strict=True))
        forward = float(seconds.sum() / sizes.sum()) / 3 * len(captions) * frames * 2  # with and without the caption
        if 2 * forward > _SECONDS:
            return steps * forward
        moments: list[float] = []
        began = time.perf_counter()
        with trainer.learner.averaged() as net:
            trainer.learner.pipeline(net)(
                captions,
                num_frames=frames,
                num_inference_steps=2,
                on_step=lambda done, total: moments.append(time.perf_counter()),
            )
        each = moments[1] - moments[0]
        return time.perf_counter() - began + (steps - 2) * each

    def _evaluation(self) -> float:
        """Seconds of a held-out evaluation, from one round of it."""
        held_out = self.trainer.held_out
        if not held_out.clips:
            return 0.0
        began = time.perf_counter()
        with self.learner.averaged() as net:
            held_out.evaluate(net, rounds=1)
        return (time.perf_counter() - began) * held_out.rounds

    def _forecast(
        self, save: float, disk: int, preview: float, evaluation: float, largest: tuple[int, int], room: int
    ) -> Plan:
        settings, step = self.settings, self._step_seconds()
        steps = settings.steps
        if settings.max_minutes is not None:
            steps = min(steps, math.ceil(settings.max_minutes * 60 / step))
        plan = Plan(
            device=f"{self.device}, {torch.get_num_threads()} threads, {'bf16' if self.learner.bf16 else 'fp32'}",
            parameters=self.parameters,
            free=self.free,
            held=_held(self.parameters, settings),
            peak=peak_memory(self.device),
            step=step,
            steps=steps,
            training=steps * step,
            save=save,
            saves=(steps - 1) // settings.checkpoint_every + 1,
            save_disk=2 * disk,
            preview=preview,
            previews=((steps - 1) // settings.preview_every + 1) if settings.previews else 0,
            evaluation=evaluation,
            evaluations=((steps - 1) // settings.eval_every + 1) if self.trainer.held_out.clips else 0,
            largest=largest,
            room=room,
            advice=(),
        )
        return replace(plan, advice=tuple(self._advice(plan)))

    def _advice(self, plan: Plan) -> list[str]:
        clips = plan.largest[0]
        advice = []
        if plan.room >= 2 * clips:
            larger = self.settings.batch_size * (plan.room // clips)
            if self.settings.gradient_accumulation_steps > 1:
                fewer = max(1, math.ceil(self.settings.gradient_accumulation_steps * clips / plan.room))
                advice.append(
                    f"memory is left: --set gradient_accumulation_steps={fewer} does the same in fewer passes"
                )
            else:
                network = "" if self.settings.start_from else ", or for a larger --size"
                advice.append(f"memory is left for batches of up to about {larger}{network}")
        if plan.training and plan.saves * plan.save > 0.1 * plan.training:
            every = math.ceil(10 * plan.save / plan.step)
            advice.append(f"checkpoints take over a tenth of the time: --checkpoint-every {every} or more")
        if plan.training and plan.previews * plan.preview > 0.1 * plan.training:
            every = math.ceil(10 * plan.preview / plan.step)
            advice.append(f"previews take over a tenth of the time: --preview-every {every} or more, or fewer of them")
        return advice

    def _refuse(self, needed: float, clips: int, frames: int, room: int) -> None:
        if room >= 1:
            parts = self.settings.gradient_accumulation_steps * math.ceil(clips / room)
            mend = f"--set gradient_accumulation_steps={parts} does the same step in smaller passes"
        else:
            mends = [] if self.settings.gradient_checkpointing else ["--set gradient_checkpointing=true"]
            mends += [f"--frames {frames // 2}"] if frames > 1 else []
            smaller = list(SIZES)[: list(SIZES).index(self.settings.size)]
            mends += [f"--size {smaller[-1]}"] if smaller else []
            mend = f"even one clip is too much: try {', or '.join(mends) or 'a machine with more memory'}"
        raise ValueError(
            f"a pass of {clips} clips of {frames} frames needs about {_size(needed)} of memory, and {_size(self.free)} "
            f"can be had; {mend}"
        )


def _shape(batch: ClipBatch) -> tuple[int, int]:
    return len(batch), batch.video.shape[2]


def _first(batch: ClipBatch, count: int) -> ClipBatch:
    """The first clips of a batch, at its padded length."""
    return ClipBatch(
        batch.video[:count],
        batch.valid[:count],
        batch.known[:count],
        batch.loop[:count],
        batch.tasks[:count],
        batch.text[:count],
        batch.ids[:count],
        batch.positions[:count],
    )


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"


def announce(plan: Plan) -> None:
    """Print the table and the advice."""
    console.print(plan.table())
    for line in plan.advice:
        console.print(f"- {line}", markup=False, highlight=False)
