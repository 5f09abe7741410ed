"""The training loop of the generator."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from rdtf.batch import ClipBatch
from rdtf.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_latest,
    load_optimizer_tensors,
    optimizer_tensors,
    part_like,
    save_checkpoint,
    step_of,
    whole,
)
from rdtf.codec import load_codec
from rdtf.curriculum import Curriculum, SampleLoss
from rdtf.data.dataset import StickerDataset, read_manifest
from rdtf.data.write import save_sticker
from rdtf.faults import reach
from rdtf.files import check_space, check_writable, disk_errors, folder_lock, mend, publish, write_text
from rdtf.masks import Task, loss_mask, masked_sum
from rdtf.model import DFGN
from rdtf.pipeline import StickerPipeline
from rdtf.progress import bars, console
from rdtf.rng import torch_rng
from rdtf.sheets import preview_grid
from rdtf.text import TextEncoder, load_text_encoder
from rdtf.train.devices import Devices, is_first, watched
from rdtf.train.exact import changed_data, conditions, cut_log, data_facts, exactness_doubt
from rdtf.train.hardware import bf16_is_faster, keep_freed_memory
from rdtf.train.latents import LatentCache, cache_folder
from rdtf.train.optim import averages, lr_factor, make_optimizers
from rdtf.train.settings import TrainSettings, changed_settings
from rdtf.train.source import ClipSource, Share

_STATUS_SECONDS = 60.0  # between lines in a log file, where there is no bar
_TASKS = list(Task)


class TrainingError(RuntimeError):
    """Training cannot go on; the text says why and what to do."""


class OutOfMemoryError(TrainingError):
    """A step does not fit into memory."""


class _Interrupted(Exception):
    """A preview is given up, for the run was asked to stop."""


@dataclass(frozen=True)
class TrainReport:
    """How a run ended.

    Attributes:
        steps: optimiser steps done in total. seconds: time of this call's steps, previews and saves left out.
        finished: False if it was stopped by a signal before its end; ``resume`` goes on from there.
    """

    run: Path
    steps: int
    seconds: float
    finished: bool


def train(data: Path, run: Path, settings: TrainSettings) -> TrainReport:
    """Train a generator on a prepared dataset.

    The run's folder gets ``config.json`` (the resolved settings), ``log.jsonl`` (a line a step), ``checkpoints/``,
    ``previews/`` and ``pipeline/``, the saved :class:`~rdtf.pipeline.StickerPipeline` of the averaged weights. Ctrl-C
    or SIGTERM finishes the step, saves and returns; a second one acts at once.

    Raises:
        ValueError: the folder already holds a run, or is in use by one, or data and codec do not fit.
        DiskError: the folder cannot be written to, or a checkpoint does not fit on the disk.
        TrainingError: the loss is not finite, or a step does not fit into memory.
        LostProcessError: of several processes, another one has ended.
    """
    if (run / "config.json").exists():
        raise ValueError(f"{run} already holds a run; go on with --resume or choose another folder")
    with _held(run), watched():
        return Trainer(data, run, settings).fit()


def resume(data: Path, run: Path, *, start: str | None = None, **changed: Any) -> TrainReport:
    """Go on from a run's newest checkpoint that verifies, with the settings saved in the run, in any number of
    processes. A run that has no checkpoint yet begins again. What differs from an unbroken run is told in a line.

    Args:
        start: this checkpoint and no other: its step, or its folder. Newer ones of the run are put aside.
        changed: other values of settings, for example ``steps``; None stands for "as it was".

    Raises:
        ValueError: no run or no usable checkpoint there, a setting that must not change, or other data.
        DiskError, TrainingError, LostProcessError: as :func:`train`.
    """
    config = run / "config.json"
    if not config.is_file():
        raise ValueError(f"{run} holds no run to resume (no config.json); start one without --resume")
    with _held(run), watched():
        saved = json.loads(config.read_text(encoding="utf-8"))
        if other := changed_data(saved.get("dataset", saved), data_facts(read_manifest(data))):
            raise ValueError(
                f"{data} is not the data that {run} was trained on ({saved['data']}): {other}. "
                "Resume it on that, or start a new run"
            )
        trainer = Trainer(data, run, changed_settings(saved["settings"], changed))
        trainer.restore(start)
        return trainer.fit()


@contextmanager
def _held(run: Path) -> Iterator[None]:
    """The run's folder: writable, for this run alone, and without what a crash left in it."""
    if not is_first():
        yield
        return
    check_writable(run)
    with folder_lock(run, "this run"):
        mend(run, "config.json")
        mend(run, "pipeline")
        mend(run / "checkpoints", "step-*")
        yield


class _Network(nn.Module):
    """Network and text encoder as one module: what a pass of training calls."""

    def __init__(self, dfgn: DFGN, text: TextEncoder) -> None:
        super().__init__()
        self.dfgn, self.text = dfgn, text

    def forward(self, batch: ClipBatch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """The output for noised clips of the batch."""
        text = self.dfgn.text_context(*self.text(batch.text))
        return self.dfgn(noisy, timestep, batch.video, batch.known, batch.valid, batch.loop, text)


class Trainer:
    """One run: everything it is made of, and its loop."""

    def __init__(self, data: Path, run: Path, settings: TrainSettings) -> None:
        run.mkdir(parents=True, exist_ok=True)
        keep_freed_memory()
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.devices = Devices()
        self.device = self.devices.device
        if settings.batch_size < self.devices.count:
            raise ValueError(
                f"{self.devices.count} processes have nothing to share in a batch_size of {settings.batch_size}; "
                "raise it, or start fewer"
            )
        self.share = Share(self.devices.rank, self.devices.count, settings.accumulate)
        wanted = settings.precision == "bf16" or (settings.precision == "auto" and bf16_is_faster(self.device))
        self.bf16 = bool(self.devices.from_first(wanted))
        # As timed now, so that a resumed run does not decide anew.
        settings = settings.model_copy(update={"precision": "bf16" if self.bf16 else "fp32"})
        self.run, self.settings = run, settings

        dataset = StickerDataset(data, "train")
        self.codec = load_codec(settings.codec)
        if dataset.size % self.codec.downscale:
            raise ValueError(f"stickers of {dataset.size} px do not divide by codec {settings.codec}'s downscale")
        torch.manual_seed(settings.seed)  # initial weights; nothing later draws from the global generator
        network = settings.network()
        self.text = load_text_encoder(settings.text, network["text_width"]).to(self.device)
        network |= {"latent_channels": self.codec.latent_channels, "text_width": self.text.width}
        self.dfgn = DFGN(**network).to(self.device)
        if settings.gradient_checkpointing:
            self.dfgn.enable_gradient_checkpointing()
        self.net = _Network(self.dfgn, self.text)
        self.sharded = self.devices.count > 1 and (settings.shard or self.devices.asked_to_shard)
        self.unsharded = copy.deepcopy(self.net) if self.sharded and self.devices.first else self.net
        self.model = self.devices.share(self.net, self.sharded)
        self.curriculum = Curriculum(settings.curriculum, settings.task_weights)
        with self.devices.first_goes_ahead():
            latents = LatentCache(dataset, self.codec, cache_folder(data, run), settings.copies)
        self.source = ClipSource(latents, self.text, self.curriculum, settings)
        some = range(0, len(latents), max(1, len(latents) // 97))
        self.preview_captions = sorted({latents.record(i).caption for i in some})
        self.sample_size = dataset.size

        self.named = {name: parameter for name, parameter in self.net.named_parameters() if parameter.requires_grad}
        self.optimizers = make_optimizers(
            self.named.items(),
            muon=settings.muon,
            lr=settings.lr,
            muon_lr=settings.muon_lr,
            weight_decay=settings.weight_decay,
            bf16=self.bf16,
        )
        if settings.ema_on_disk and self.device.type != "cpu":
            raise ValueError("ema_on_disk is for training on the processor; leave it out on a GPU")
        self.ema = EMAModel([], decay=settings.ema_decay, foreach=not settings.ema_on_disk)
        self.ema.shadow_params = averages(self.named.values(), run / "ema.bin" if settings.ema_on_disk else None)
        self.data, self.manifest = data, dataset.manifest
        self.step, self.seconds = 0, 0.0
        self.saved = -1  # the last step that this process has saved

    def fit(self) -> TrainReport:
        """Train to the end, or until a signal."""
        settings = self.settings
        facts = {"settings": settings.model_dump(), "data": str(self.data.resolve())}
        facts["dataset"] = data_facts(self.manifest)
        if self.devices.first:
            check_space(self.run, self.bytes())
            write_text(self.run / "config.json", json.dumps(facts, indent=1))
        limit = settings.minutes * 60 if settings.minutes else math.inf
        parameters = sum(p.numel() for p in self.named.values()) / 1e6
        console.print(
            f"Training {parameters:.1f} M parameters on {len(self.source.latents)} stickers, "
            f"{'bf16' if self.bf16 else 'fp32'}, {torch.get_num_threads()} threads, {self.device}"
            + (f", {self.devices.count} processes" if self.devices.count > 1 else "")
        )
        preview, told = self.run / "previews", -math.inf
        with (
            bars() as progress,
            (self.run / "log.jsonl" if self.devices.first else Path(os.devnull)).open("a", encoding="utf-8") as log,
            stop_signals() as stop,
        ):
            task = progress.add_task("Training", total=settings.steps, completed=self.step, note="")
            stopped = False
            while self.step < settings.steps and not stopped:
                began = time.monotonic()
                share = max(self.step / settings.steps, self.seconds / limit)
                if share >= 1:
                    break
                line = self._guarded_step(share)
                self.seconds = self.devices.from_first(self.seconds + time.monotonic() - began)
                line["seconds"] = round(self.seconds, 3)
                with disk_errors(self.run):
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                reach("log.append")
                done = max(self.step / settings.steps, self.seconds / limit)
                progress.update(task, completed=round(done * settings.steps), note=f"loss {line['loss']:.3f}")
                if not console.is_terminal and time.monotonic() - told > _STATUS_SECONDS:
                    told = time.monotonic()
                    console.print(f"step {self.step}, {done:.0%}, loss {line['loss']:.3f}, {self.seconds:.0f} s")
                if self.step % settings.checkpoint_every == 0 and done < 1:
                    self.save()
                if settings.previews and self.step % settings.preview_every == 0 and done < 1:
                    self._preview(preview / f"step-{self.step:08d}.webp", stop)
                stopped = self.devices.any(stop.is_set())
            finished = not stopped
            if self.saved != self.step:
                self.save()
            if settings.previews and finished:
                self._preview(preview / f"step-{self.step:08d}.webp", stop)
        return TrainReport(self.run, self.step, self.seconds, finished)

    def _guarded_step(self, progress: float) -> dict[str, Any]:
        """One optimiser step; of the many ways in which memory ends there comes one error."""
        try:
            return self._train_step(progress)
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
                raise
            settings = self.settings
            more = "" if settings.gradient_checkpointing else ", or set gradient_checkpointing=true"
            raise OutOfMemoryError(
                f"step {self.step}: out of memory. {self._last_good()}. Lower frames (now {settings.frames}), raise "
                f"accumulate (now {settings.accumulate}) or lower batch_size (now {settings.batch_size}){more}"
            ) from error

    def _last_good(self) -> str:
        folder = self.run / "checkpoints"
        found = checkpoints(folder)
        return f"The last checkpoint, {found[-1]}, is good" if found else f"There is no checkpoint in {folder} yet"

    def _train_step(self, progress: float) -> dict[str, Any]:
        """One optimiser step; returns its log line."""
        settings = self.settings
        factor = lr_factor(self.step, progress, warm_up=settings.warm_up, decay=settings.decay)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * factor
        weights = self.curriculum.weights(progress)
        batches = [batch.to(self.device) for batch in self.source.batches(self.step, progress, self.share)]
        reach("data.next")
        masks = [loss_mask(batch.valid, batch.known, settings.loss_on_known) for batch in batches]
        counted = self.devices.sum(torch.tensor(sum(int(mask.sum()) for mask in masks)))
        elements = max(1, int(counted)) * batches[0].video[0, :, 0].numel()

        # A row a clip of the whole batch: error, elements, noise level, unknown frames, task.
        table = torch.zeros(settings.batch_size, 5, dtype=torch.float64)
        passes = self.devices.passes(len(batches), self.model)
        for i in range(passes):
            own = i < len(batches)  # otherwise it is another process's pass, in which all have to take part
            batch, mask = (batches[i], masks[i]) if own else (batches[-1], masks[-1])
            with self.devices.gradients(self.model, last=i == passes - 1):
                # Gradients are averaged over the processes, where the sum is wanted.
                sums, counts, t = self.backward(batch, mask, elements, self.devices.count if own else 0)
            if own:
                unknown = (batch.valid & ~batch.known).sum(1)
                task = torch.tensor([_TASKS.index(task) for task in batch.tasks])
                columns = [column.cpu().double() for column in (sums, counts, t, unknown, task)]
                table[list(batch.positions)] = torch.stack(columns, 1)
        table = self.devices.sum(table)
        total = float(table[:, 0].sum()) / elements
        samples = [
            SampleLoss(_TASKS[int(task)], int(unknown), level, error / max(1.0, count))
            for error, count, level, unknown, task in table.tolist()
        ]
        reach("step.after_backward")
        norm = float(whole(nn.utils.clip_grad_norm_(self.named.values(), settings.clip_norm)))
        if not (math.isfinite(total) and math.isfinite(norm)):
            clips = self.devices.gather([(p, i) for b in batches for p, i in zip(b.positions, b.ids, strict=True)])
            report = self._report_failure(total, norm, factor, samples, dict(clips))
            raise TrainingError(
                f"step {self.step}: loss {total}, gradient norm {norm}. The step was not applied. {self._last_good()}. "
                f"Lower lr or muon_lr, or look at the stickers of this step, listed in {report}"
            )
        self.update()
        self.curriculum.observe(samples)
        self.step += 1

        by_task: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            by_task[sample.task.value].append(sample.loss)
        return {
            "step": self.step,
            "loss": round(total, 6),
            "loss_by_task": {name: round(sum(values) / len(values), 6) for name, values in by_task.items()},
            "weights": {task.value: round(weight, 4) for task, weight in weights.items()},
            "row": self.curriculum.row,
            "lr_factor": round(factor, 5),
            "grad_norm": round(norm, 4),
            "stickers": len(samples),
        }

    def backward(self, batch: ClipBatch, mask: Tensor, elements: int, weight: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """One pass, forward and backward, of clips on this device; its gradients are added to what there is.

        Args:
            mask: which frames count.
            elements: how many elements the whole step counts. weight: multiplies the loss.

        Returns:
            of each clip the summed error, the number of counted elements, and the noise level.
        """
        t, eps = self._noise(batch)
        sums, counts = self._errors(batch, mask, t.to(self.device), eps.to(self.device))
        (sums.sum() / elements * weight).backward()
        return sums.detach(), counts.detach(), t

    def update(self) -> None:
        """Move the weights along the gradients, which are used up, and average them."""
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        reach("step.after_opt")
        self.ema.step(self.named.values())

    def _report_failure(
        self, loss: float, norm: float, factor: float, samples: list[SampleLoss], ids: dict[int, str]
    ) -> Path:
        """A file with all that is needed to look into a step whose loss or gradient is not finite."""
        path = self.run / f"not-finite-step-{self.step:08d}.json"
        clips = [
            {"sticker": ids[i], "stream": f"noise/{i}", **asdict(s), "loss": str(s.loss)} for i, s in enumerate(samples)
        ]
        facts = {"step": self.step, "seed": self.settings.seed, "stream": "clips", "lr_factor": factor}
        facts |= {"loss": str(loss), "grad_norm": str(norm), "clips": clips}
        if self.devices.first:
            write_text(path, json.dumps(facts, indent=1))
        return path

    def _noise(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Noise levels and noise (0 in padding); each clip's from a stream of its position in the whole batch, so that
        it is the same in whatever company and process the clip is worked off.
        """
        levels, eps = [], torch.zeros(batch.video.shape)
        c, _, h, w = batch.video.shape[1:]
        for i, (position, frames) in enumerate(zip(batch.positions, batch.valid.sum(1).tolist(), strict=True)):
            stream = torch_rng(self.settings.seed, self.step, f"noise/{position}")
            levels.append(self.settings.objective.draw_t(1, stream))
            eps[i, :, :frames] = torch.randn(frames, c, h, w, generator=stream).movedim(0, 1)
        return torch.cat(levels), eps

    def _errors(self, batch: ClipBatch, mask: Tensor, t: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Per clip the summed error over counted elements, and their number."""
        objective = self.settings.objective
        noisy = objective.add_noise(batch.video, eps, t)
        # Autocast keeps every weight in bf16 until the pass is over; where memory is short, that is not wanted.
        keep = not self.settings.gradient_checkpointing
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=keep):
            output = self.model(batch, noisy, objective.timestep(t))
        return masked_sum(objective.error(output.float(), batch.video, eps, t), mask)

    def pipeline(self, net: _Network) -> StickerPipeline:
        """A pipeline around live modules."""
        return StickerPipeline(
            net.dfgn,
            self.codec,
            net.text,
            self.settings.objective.make_scheduler(),
            self.sample_size,
            prediction=self.settings.objective.prediction,
            **self.settings.sampling.model_dump(),
        )

    @contextmanager
    def averaged(self) -> Iterator[_Network]:
        """The network with the averaged weights, in evaluation mode; for the first process, while the others wait."""
        if self.sharded:
            for name, average in zip(self.named, self.ema.shadow_params, strict=True):
                full = whole(average)
                if self.devices.first:
                    self.unsharded.get_parameter(name).data.copy_(full)
        else:
            self._swap()
        try:
            yield self.unsharded.eval()
        finally:
            self.unsharded.train()
            if not self.sharded:
                self._swap()
            self.devices.wait()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange live and averaged weights, one parameter after the other: a copy of all would need their memory."""
        for parameter, average in zip(self.named.values(), self.ema.shadow_params, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def _preview(self, path: Path, stop: threading.Event) -> None:
        """Same captions, same seeds each time; from streams of its own, so that training is the same without it."""

        def watch(_done: int, _total: int) -> None:
            if stop.is_set():
                raise _Interrupted

        captions, frames = self.preview_captions[: self.settings.previews], min(8, self.settings.frames)
        with self.averaged() as net, suppress(_Interrupted):
            if self.devices.first:
                pipeline = self.pipeline(net)
                stickers = pipeline(captions, seed=0, num_frames=frames, callback_on_step_end=watch).stickers
                save_sticker(preview_grid(stickers, columns=4), path)

    def save(self) -> None:
        """Write a checkpoint, and the pipeline of the averaged weights.

        Raises:
            DiskError: they do not fit, or cannot be written; the earlier ones are untouched.
            TrainingError: a weight is not finite, so that going on from it would be of no use.
        """
        shadow = dict(zip(self.named, self.ema.shadow_params, strict=True))
        parts = {"weights": dict(self.named), "ema": shadow}
        for i, optimizer in enumerate(self.optimizers):
            parts[f"optimizer-{i}"] = optimizer_tensors(optimizer)
        tensors = {name: self._gathered(group) for name, group in parts.items()}
        if self.devices.first:
            state = {
                "seconds": self.seconds,
                "ema_steps": self.ema.optimization_step,
                "curriculum": self.curriculum.state_dict(),
                **self._frame(),
            }
            with (self.run / "log.jsonl").open("ab") as log:
                os.fsync(log.fileno())  # no checkpoint may know steps that the log does not
            try:
                save_checkpoint(self.run / "checkpoints", Checkpoint(self.step, tensors, state))
            except ValueError as error:
                raise TrainingError(f"{error}. {self._last_good()}. Lower lr or muon_lr") from error
        with self.averaged() as net:
            if self.devices.first:
                self._save_pipeline(net)
        self.saved = self.step

    def _frame(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint is made under, to tell when it is taken up under something else."""
        return {
            "settings": self.settings.model_dump(mode="json"),
            "conditions": conditions(self.device, self.bf16, self.devices.count),
            "frozen": {"codec": self.codec.fingerprint, "text": self.text.fingerprint},
        }

    def bytes(self) -> int:
        """About what a checkpoint and a pipeline take: weights, their average, one or two moments; the average."""
        trained = sum(p.numel() * p.element_size() for p in self.named.values())
        codec = self.codec.parameters() if isinstance(self.codec, nn.Module) else ()
        return 5 * trained + sum(p.numel() * p.element_size() for p in codec)

    def _gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sharded tensors put together in the memory of the first process; others as they are."""
        if not self.sharded:
            return tensors
        gathered = {}
        for name, tensor in tensors.items():
            full = whole(tensor)
            if self.devices.first:
                gathered[name] = full.cpu()
        return gathered

    def _save_pipeline(self, net: _Network) -> None:
        mend(self.run, "pipeline")
        with disk_errors(self.run):
            self.pipeline(net).save_pretrained(self.run / "pipeline.partial")
            reach("pipeline.before_rename")
            publish(self.run / "pipeline.partial", self.run / "pipeline")

    def restore(self, start: str | None = None) -> None:
        """Take up the newest whole checkpoint, or the one named by ``start``; without any, begin again.

        Raises:
            ValueError: the one asked for, or all there are, are damaged; or they are not of this run's settings.
        """
        checkpoint = self._find(start)
        if checkpoint is None:
            _note("There is no checkpoint yet; the run begins again.")
        else:
            if doubt := exactness_doubt(checkpoint.state, self._frame()):
                _note(doubt)
            try:
                self._take(checkpoint)
            except (KeyError, RuntimeError) as error:
                raise ValueError(
                    f"the checkpoint of step {checkpoint.step} does not fit this version or these settings ({error})"
                ) from error
        if self.devices.first:
            if start is not None:
                self._put_newer_aside()
            if gap := cut_log(self.run / "log.jsonl", self.step):
                _note(gap)

    def _find(self, start: str | None) -> Checkpoint | None:
        folder = self.run / "checkpoints"
        if start is None:
            found = load_latest(folder)
            for line in found[1] if found else ():
                _note(f"Skipped a damaged checkpoint: {line}")
            return found[0] if found else None
        return load_checkpoint(folder / f"step-{int(start):08d}" if start.isdecimal() else Path(start))

    def _put_newer_aside(self) -> None:
        """Checkpoints of a future that is given up; the next start would take them for the newest."""
        folder = self.run / "checkpoints"
        for newer in [path for path in checkpoints(folder) if step_of(path) > self.step]:
            aside = next(a for n in count(1) if not (a := newer.with_name(f"{newer.name}.aside-{n}")).exists())
            newer.rename(aside)
            _note(f"Put aside a newer checkpoint: {aside}; delete it if you do not want it")

    def _take(self, checkpoint: Checkpoint) -> None:
        """Everything that a step depends on, from a checkpoint."""
        with torch.no_grad():
            for (name, parameter), average in zip(self.named.items(), self.ema.shadow_params, strict=True):
                parameter.copy_(part_like(checkpoint.tensors["weights"][name], parameter))
                average.copy_(part_like(checkpoint.tensors["ema"][name], average))
        self.ema.optimization_step = checkpoint.state["ema_steps"]
        for i, optimizer in enumerate(self.optimizers):
            load_optimizer_tensors(optimizer, checkpoint.tensors[f"optimizer-{i}"])
        self.curriculum.load_state_dict(checkpoint.state["curriculum"])
        self.step, self.seconds = checkpoint.step, checkpoint.state["seconds"]


def _note(text: str) -> None:
    console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; a second signal acts at once. Outside the main thread it is never set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _frame: Any) -> None:
        console.print("Stopping after this step and saving; press again to stop at once.")
        stop.set()
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in previous:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
