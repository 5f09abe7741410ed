"""A training run: its folder, checkpoints, log, previews and signals. :mod:`rdtf.train.step` has the optimiser step."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from rdtf.data.dataset import read_manifest
from rdtf.faults import reach
from rdtf.files import check_space, check_writable, disk_errors, folder_lock, mend, publish, write_text
from rdtf.io.write import save_sticker
from rdtf.progress import bars, console
from rdtf.sheets import preview_grid
from rdtf.train.checkpoint import Checkpoint, checkpoints, load_checkpoint, load_latest, save_checkpoint, step_of
from rdtf.train.devices import is_first, watched
from rdtf.train.hardware import busy_cores_hint
from rdtf.train.heldout import HELD_OUT_LOG, HeldOut
from rdtf.train.network import Network
from rdtf.train.reproducibility import changed_data, conditions, cut_lines, data_facts, exactness_doubt, last_step
from rdtf.train.settings import TrainSettings, changed_settings
from rdtf.train.step import Learner, NotFiniteError

PREVIEW_COLUMNS = 4
"""Stickers in a row of a preview."""
_STATUS_SECONDS = 60.0  # between status lines if there is no terminal for a progress bar


class TrainingError(RuntimeError):
    """Training cannot go on; the text says why and what to do."""

    exit_code = 70


class OutOfMemoryError(TrainingError):
    """A step does not fit into memory."""

    exit_code = 71


class _Interrupted(Exception):
    """Ends a preview after the run was asked to stop."""


@dataclass(frozen=True)
class TrainReport:
    """How a run ended.

    Attributes:
        steps: optimiser steps done in total. seconds: time of all steps, without previews and saves.
        finished: False if a signal stopped the run before its end. ``resume`` continues it.
    """

    run: Path
    steps: int
    seconds: float
    finished: bool


def train(data: Path, run: Path, settings: TrainSettings) -> TrainReport:
    """Train a generator on a prepared dataset.

    The run's folder gets ``config.json`` (the resolved settings), ``log.jsonl`` (one line for each step),
    ``eval.jsonl`` (one line for each held-out evaluation), ``checkpoints/``, ``previews/`` and ``pipeline/``, the saved
    :class:`~rdtf.pipeline.StickerPipeline` of the averaged weights. After Ctrl-C or SIGTERM the run finishes its step,
    saves and returns. A second signal stops it at once.

    Raises:
        ValueError: the folder already holds a run or is in use, or data and codec do not fit.
        DiskError: the folder cannot be written to, or a checkpoint does not fit on the disk.
        TrainingError: the loss is not finite, or a step does not fit into memory.
        LostProcessError: another process of the run has ended.
    """
    if (run / "config.json").exists():
        raise ValueError(f"{run} already holds a run; go on with --resume or choose another folder")
    with _held(run), watched():
        return Trainer(data, run, settings).fit()


def resume(data: Path, run: Path, *, start: str | None = None, **changed: Any) -> TrainReport:
    """Continue a run from its newest undamaged checkpoint with its saved settings.

    The number of processes may differ. A run without a checkpoint starts again. A line is printed if the result may
    differ from an unbroken run.

    Args:
        start: step or folder of the checkpoint to continue from. Newer checkpoints of the run are renamed.
        changed: new values of settings, for example ``steps``. None keeps the saved value.

    Raises:
        ValueError: there is no run or no usable checkpoint, a setting cannot change within a run, or the data differ.
        DiskError, TrainingError, LostProcessError: as in :func:`train`.
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
        if changed.get("precision") is None:
            trainer.learner.precision_reason = saved.get("precision_reason", "as the run began")
        trainer.restore(start)
        return trainer.fit()


@contextmanager
def _held(run: Path) -> Iterator[None]:
    """Lock the run's folder, check that it is writable, and finish saves that a crash interrupted."""
    if not is_first():
        yield
        return
    check_writable(run)
    with folder_lock(run, "this run"):
        mend(run, "config.json")
        mend(run, "pipeline")
        mend(run / "checkpoints", "step-*")
        yield


class Trainer:
    """One run: its folder and its loop. The learner does the optimiser steps."""

    def __init__(self, data: Path, run: Path, settings: TrainSettings) -> None:
        self.data, self.run = data, run
        self.learner = Learner(data, run, settings)
        self.devices, self.settings = self.learner.devices, self.learner.settings
        latents = self.learner.source.latents
        some = range(0, len(latents), max(1, len(latents) // 97))
        self.preview_captions = sorted({latents.record(i).caption for i in some})
        with self.devices.first_goes_ahead():
            self.held_out = HeldOut(self.learner, data, run)
        self.seconds = 0.0
        self.evaluated = -1  # step of the last held-out evaluation
        self.saved = -1  # step of the last checkpoint of this process

    @property
    def step(self) -> int:
        """Steps done."""
        return self.learner.step

    @property
    def progress(self) -> float:
        """How much of the training is done, by its steps or its minutes; the run ends at 1."""
        minutes = self.settings.max_minutes or math.inf
        return max(self.step / self.settings.steps, self.seconds / (60 * minutes))

    def fit(self) -> TrainReport:
        """Train until the last step or a signal."""
        self._begin()
        settings, first, reported, stopped = self.settings, self.devices.first, -math.inf, False
        with (
            bars() as progress,
            (self.run / "log.jsonl" if first else Path(os.devnull)).open("a", encoding="utf-8") as log,
            stop_signals() as stop,
        ):
            task = progress.add_task("Training", total=settings.steps, completed=self.step, note="")
            while self.progress < 1 and not stopped:
                began = time.monotonic()
                line = self._guarded_step()
                self.seconds = self.devices.from_first(self.seconds + time.monotonic() - began)
                line["seconds"] = round(self.seconds, 3)
                with disk_errors(self.run):
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                reach("log.append")
                done = self.progress
                progress.update(task, completed=round(done * settings.steps), note=f"loss {line['loss']:.3f}")
                if not console.is_terminal and time.monotonic() - reported > _STATUS_SECONDS:
                    reported = time.monotonic()
                    console.print(f"step {self.step}, {done:.0%}, loss {line['loss']:.3f}, {self.seconds:.0f} s")
                if done < 1:
                    if self.step % settings.eval_every == 0:
                        self.evaluate()
                    if self.step % settings.checkpoint_every == 0:
                        self.save()
                    if self.step % settings.preview_every == 0:
                        self._preview(stop)
                stopped = self.devices.any(stop.is_set())
            if not stopped:
                self.evaluate()
            if self.saved != self.step:
                self.save()
            if not stopped:
                self._preview(stop)
        return TrainReport(self.run, self.step, self.seconds, not stopped)

    def _begin(self) -> None:
        """Write ``config.json``, and say what is trained."""
        learner, settings = self.learner, self.settings
        config = {
            "settings": settings.model_dump(),
            "data": str(self.data.resolve()),
            "dataset": data_facts(learner.manifest),
            "precision_reason": learner.precision_reason,
            "previews": self.preview_captions[: settings.previews],
        }
        if self.devices.first:
            check_space(self.run, learner.bytes())
            write_text(self.run / "config.json", json.dumps(config, indent=1))
        count = sum(p.numel() for p in learner.named.values()) / 1e6
        trained = f"{count:.{3 if settings.by_adapter else 1}f} M parameters"
        if settings.by_adapter:
            whole = sum(p.numel() for p in learner.net.dfgn.parameters()) / 1e6
            trained += f" ({settings.tune}, in a network of {whole:.1f} M)"
        console.print(
            f"Training {trained} on {len(learner.source.latents)} stickers, "
            f"{settings.precision} ({learner.precision_reason}), {torch.get_num_threads()} threads, {learner.device}"
            + (f", {self.devices.count} processes" if self.devices.count > 1 else "")
        )
        if self.devices.count == 1 and (hint := busy_cores_hint(learner.device)):
            _note(hint)
        if learner.unread:
            _note(learner.unread)
        if settings.eval_clips and not self.held_out.clips:
            _note("No held-out loss: the dataset's val split is empty (rdtf prepare makes one of enough stickers)")

    def _guarded_step(self) -> dict[str, Any]:
        """One optimiser step. Failures become errors that name the last good checkpoint and the mend."""
        try:
            return self.learner.train_step(self.progress)
        except NotFiniteError as error:
            report = self.run / f"not-finite-step-{self.step:08d}.json"
            if self.devices.first:
                write_text(report, json.dumps(error.facts, indent=1))
            raise TrainingError(
                f"{error}. The step was not applied. {self._last_good()}. "
                f"Lower lr or muon_lr, or look at the stickers of this step, listed in {report}"
            ) from None
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
                raise
            settings = self.settings
            more = "" if settings.gradient_checkpointing else ", or set gradient_checkpointing=true"
            raise OutOfMemoryError(
                f"step {self.step}: out of memory. {self._last_good()}. Lower frames (now {settings.frames}), raise "
                f"gradient_accumulation_steps (now {settings.gradient_accumulation_steps}) or lower batch_size "
                f"(now {settings.batch_size}){more}"
            ) from error

    def _last_good(self) -> str:
        folder = self.run / "checkpoints"
        found = checkpoints(folder, finished=True)
        return f"The last checkpoint, {found[-1]}, is good" if found else f"There is no checkpoint in {folder} yet"

    def _preview(self, stop: threading.Event) -> None:
        """Generate for the same captions with the same seeds. The random streams are separate from the training's."""

        def watch(_done: int, _total: int) -> None:
            if stop.is_set():
                raise _Interrupted

        captions, frames = self.preview_captions[: self.settings.previews], min(8, self.settings.frames)
        if not captions:
            return
        with self.learner.averaged() as net, suppress(_Interrupted):
            if self.devices.first:
                stickers = self.learner.pipeline(net)(captions, seed=0, num_frames=frames, on_step=watch).stickers
                path = self.run / "previews" / f"step-{self.step:08d}.webp"
                save_sticker(preview_grid(stickers, columns=PREVIEW_COLUMNS), path)

    def evaluate(self) -> None:
        """Log the held-out loss of the averaged weights, once for each step, before the checkpoint of the step."""
        if not self.held_out.clips or self.evaluated == self.step:
            return
        with self.learner.averaged() as net:
            if self.devices.first:
                line = {"step": self.step, **self.held_out.evaluate(net)}
                with disk_errors(self.run), (self.run / HELD_OUT_LOG).open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    os.fsync(log.fileno())
        self.evaluated = self.step

    def save(self) -> None:
        """Write a checkpoint and the pipeline of the averaged weights.

        Raises:
            DiskError: they do not fit or cannot be written; earlier ones are untouched.
            TrainingError: a weight is not finite.
        """
        tensors = self.learner.tensors()
        if self.devices.first:
            state = {"seconds": self.seconds, **self.learner.state(), **self._frame()}
            with (self.run / "log.jsonl").open("ab") as log:
                os.fsync(log.fileno())  # the log must have every step before the checkpoint
            try:
                save_checkpoint(self.run / "checkpoints", Checkpoint(self.step, tensors, state))
            except ValueError as error:
                raise TrainingError(f"{error}. {self._last_good()}. Lower lr or muon_lr") from error
        with self.learner.averaged() as net:
            if self.devices.first:
                self._save_pipeline(net)
        self.saved = self.step

    def _frame(self) -> dict[str, dict[str, Any]]:
        """Settings, conditions and frozen parts of a checkpoint, to find differences when the run is resumed."""
        learner = self.learner
        frozen = {"codec": learner.codec.fingerprint, "text": learner.net.text.fingerprint}
        return {
            "settings": self.settings.model_dump(mode="json"),
            "conditions": conditions(learner.device, learner.bf16, self.devices.count),
            "frozen": frozen | ({"network": learner.base} if learner.base else {}),
        }

    def _save_pipeline(self, net: Network) -> None:
        mend(self.run, "pipeline")
        with disk_errors(self.run):
            self.learner.pipeline(net).save_pretrained(self.run / "pipeline.partial")
            reach("pipeline.before_rename")
            publish(self.run / "pipeline.partial", self.run / "pipeline")

    def restore(self, start: str | None = None) -> None:
        """Load the newest undamaged checkpoint or the one named by ``start``. Without checkpoints, start again.

        The run's folder does not change before the state is in memory.

        Raises:
            ValueError: the named checkpoint or all checkpoints are damaged, or do not fit the run's settings.
        """
        checkpoint = self._find(start)
        if checkpoint is None:
            _note("There is no checkpoint yet; the run begins again.")
            if self.devices.first and last_step(self.run / "log.jsonl") >= self.settings.checkpoint_every:
                for name in ("log.jsonl", HELD_OUT_LOG):  # they belong to checkpoints that were deleted
                    _put_aside(self.run / name)
        else:
            if doubt := exactness_doubt(checkpoint.state, self._frame()):
                _note(doubt)
            try:
                self.learner.take(checkpoint)
                self.seconds = checkpoint.state["seconds"]
            except (KeyError, RuntimeError) as error:
                raise ValueError(
                    f"the checkpoint of step {checkpoint.step} does not fit this version or these settings ({error})"
                ) from error
        if self.devices.first:
            # The next resume would take checkpoints after a named one for the newest.
            for newer in checkpoints(self.run / "checkpoints") if start is not None else []:
                if step_of(newer) > self.step:
                    _put_aside(newer)
            if (kept := cut_lines(log := self.run / "log.jsonl", self.step)) < self.step:
                _note(f"{log} ends at step {kept}; the lines up to step {self.step} are lost")
            self.evaluated = cut_lines(self.run / HELD_OUT_LOG, self.step, gaps=True)
        self.evaluated = int(self.devices.from_first(self.evaluated))

    def _find(self, start: str | None) -> Checkpoint | None:
        folder = self.run / "checkpoints"
        if start is None:
            found = load_latest(folder)
            for line in found[1] if found else ():
                _note(f"Skipped a damaged checkpoint: {line}")
            return found[0] if found else None
        return load_checkpoint(folder / f"step-{int(start):08d}" if start.isdecimal() else Path(start))


def _put_aside(path: Path) -> None:
    if path.exists():
        aside = next(a for n in count(1) if not (a := path.with_name(f"{path.name}.aside-{n}")).exists())
        path.rename(aside)
        _note(f"This run no longer uses {aside}; delete it if you do not want it")


def _note(text: str) -> None:
    console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets. A second signal acts at once. Outside the main thread it is never set."""
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
