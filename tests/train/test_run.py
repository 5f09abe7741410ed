from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rdtf.train.run as loop
import rdtf.train.step as step_module
from rdtf.batch import ClipBatch
from rdtf.io.read import read_sticker
from rdtf.loading import load_pipeline
from rdtf.text import BuiltinTextEncoder
from rdtf.train.checkpoint import Checkpoint, load_latest
from rdtf.train.run import Trainer, TrainingError, resume, train
from rdtf.train.settings import TrainSettings, recipe_settings
from rdtf.train.step import Learner
from tests.conftest import SMALLEST_NETWORK, TINY_NETWORK

FEW: dict[str, Any] = {
    "sampling": {"steps": 2},
    "steps": 4,
    "batch_size": 4,
    "frames": 4,
    "num_augmented": 1,
    "warmup_steps": 2,
    "precision": "fp32",
    "threads": 1,
    "checkpoint_every": 2,
    "previews": 0,
}
"""Settings of a training of four steps; they say nothing of the network."""


def settings(**overrides: Any) -> TrainSettings:
    tiny = {"size": "tiny", "model": SMALLEST_NETWORK, "codec": "pixel2"}
    return recipe_settings("fast", **{**tiny, **FEW, **overrides})


def newest(run: Path) -> Checkpoint:
    found = load_latest(run / "checkpoints")
    assert found is not None
    assert found[1] == []
    return found[0]


def log(run: Path) -> list[dict[str, Any]]:
    """The log but for the clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def assert_same_run(a: Path, b: Path) -> None:
    one, other = newest(a), newest(b)
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    for group, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[group].keys()
        different = [name for name, tensor in tensors.items() if not torch.equal(tensor, other.tensors[group][name])]
        assert different == [], group
    for key in ("ema_steps", "curriculum"):
        assert one.state[key] == other.state[key]
    assert log(a) == log(b)


def after(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Do something at the end of a training step."""
    original = Learner.train_step

    def wrapped(self: Learner, progress: float) -> dict[str, Any]:
        line = original(self, progress)
        if self.step == step:
            act()
        return line

    monkeypatch.setattr(Learner, "train_step", wrapped)


class CrashError(Exception):
    pass


def crash() -> None:
    raise CrashError


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps without a break."""
    run = tmp_path_factory.mktemp("straight") / "run"
    report = train(tiny_data, run, settings())
    assert (report.run, report.steps, report.finished) == (run, 4, True)
    assert report.seconds > 0
    return run


def test_the_runs_folder(straight: Path, tiny_data: Path):
    assert {"config.json", "log.jsonl", "checkpoints", "pipeline"} <= {path.name for path in straight.iterdir()}
    config = json.loads((straight / "config.json").read_text())
    assert TrainSettings.model_validate(config["settings"]) == TrainSettings.model_validate(
        json.loads(json.dumps(settings().model_dump()))
    )
    assert Path(config["data"]) == tiny_data
    lines = log(straight)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert line["loss"] > 0
        assert line["grad_norm"] > 0
        assert line["stickers"] == 4
        assert sum(line["weights"].values()) == pytest.approx(1, abs=1e-3)
        assert set(line["loss_by_task"]) <= set(line["weights"])
    assert [path.name for path in sorted((straight / "checkpoints").iterdir())] == ["step-00000002", "step-00000004"]
    assert set(newest(straight).tensors) == {"weights", "ema", "optimizer-0", "optimizer-1"}


def test_the_saved_pipeline_has_the_averaged_weights(straight: Path):
    pipeline, checkpoint = load_pipeline(straight), newest(straight)
    for part, module in (("dfgn", pipeline.dfgn), ("text", pipeline.text_encoder)):
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, checkpoint.tensors["ema"][f"{part}.{name}"]), name
    assert any(
        not torch.equal(checkpoint.tensors["ema"][name], weight)
        for name, weight in checkpoint.tensors["weights"].items()
    )
    assert pipeline.config.still_first  # the data hold stills and clips
    assert pipeline.known is not None and pipeline.known.names
    sticker = pipeline("a red cat", num_frames=3).stickers[0]
    assert sticker.frames.shape == (3, 16, 16, 4)


def test_the_same_again_is_the_same_to_the_bit(straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch):
    """Other draws before it, other clocks, other checkpoints and an open precision change nothing."""
    torch.manual_seed(99)
    jumps = iter(np.random.default_rng(0).uniform(0, 100, 100_000).cumsum())
    for clock in ("monotonic", "perf_counter", "process_time"):
        monkeypatch.setattr(time, clock, lambda: float(next(jumps)))
    # The rule for the precision looks at this machine alone, which may have fast bf16.
    monkeypatch.setattr("rdtf.train.step.choose_precision", lambda device, width: ("fp32", "the test says so"))
    train(tiny_data, tmp_path / "run", settings(checkpoint_every=100, precision="auto"))
    assert_same_run(straight, tmp_path / "run")


def test_stopped_by_a_signal_and_resumed(straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch):
    """SIGINT here; test_survival.py sends SIGTERM."""
    run, before = tmp_path / "run", signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        after(patch, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
        report = train(tiny_data, run, settings(checkpoint_every=100))
    assert (report.steps, report.finished) == (2, False)
    assert signal.getsignal(signal.SIGINT) is before
    assert newest(run).step == 2
    torch.manual_seed(99)
    report = resume(tiny_data, run)
    assert (report.steps, report.finished) == (4, True)
    assert_same_run(straight, run)


def test_killed_between_checkpoints_and_resumed(straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        after(patch, 3, crash)
        with pytest.raises(CrashError):
            train(tiny_data, run, settings())
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "torn')  # a step that the checkpoint does not know, cut off in the middle
    resume(tiny_data, run)
    assert_same_run(straight, run)


def test_a_damaged_checkpoint_costs_its_steps_only(straight: Path, tiny_data: Path, tmp_path: Path):
    run = Path(shutil.copytree(straight, tmp_path / "run"))
    (run / "checkpoints/step-00000004/weights.safetensors").write_bytes(b"")
    resume(tiny_data, run)
    assert_same_run(straight, run)


def test_paper_settings_resume_to_the_bit_too(tiny_data: Path, tmp_path: Path, monkeypatch):
    paper = {
        "objective": {"path": "ddpm", "prediction": "epsilon"},
        "model": {**TINY_NETWORK, "norm": "group", "temporal_encoders": True},
        "residual_to_known": False,
        "curriculum": "adaptive",
        "muon": False,
        "gradient_checkpointing": True,
        "loss_on_known": True,
    }
    train(tiny_data, tmp_path / "a", settings(**paper))
    with monkeypatch.context() as patch:
        after(patch, 3, crash)
        with pytest.raises(CrashError):
            train(tiny_data, tmp_path / "b", settings(**paper))
    resume(tiny_data, tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert set(newest(tmp_path / "a").tensors) == {"weights", "ema", "optimizer-0"}


def test_what_the_start_has_chosen_stays(tiny_data: Path, tmp_path: Path, monkeypatch, capsys):
    """Another machine would choose otherwise: the run keeps its precision and its number of threads.

    Captions that are longer than the text encoder reads are told once.
    """
    with monkeypatch.context() as patch:
        patch.setattr(BuiltinTextEncoder, "unread", lambda self, caption: caption if "looking left" in caption else "")
        patch.setattr(torch, "get_num_threads", lambda: 3)
        patch.setattr(step_module, "choose_precision", lambda device, width: ("fp32", f"narrow: {width}"))
        after(patch, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
        train(tiny_data, tmp_path / "run", settings(precision="auto", threads=None))
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("captions are longer than the text encoder reads") == 1 and "looking left'. Give" in told
    precisions: list[bool] = []
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(step_module, "choose_precision", lambda device, width: ("bf16", "another machine"))
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: precisions.append(self.learner.bf16) or fit(self))
    resume(tiny_data, tmp_path / "run", steps=2)
    assert (precisions, threads) == ([False], [3])
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["settings"]["precision"], config["precision_reason"]) == ("fp32", "narrow: 16")


def test_bf16_trains(tiny_data: Path, tmp_path: Path):
    train(tiny_data, tmp_path / "run", settings(precision="bf16", steps=2))
    assert np.isfinite([line["loss"] for line in log(tmp_path / "run")]).all()


def test_previews_change_nothing(straight: Path, tiny_data: Path, tmp_path: Path):
    run = tmp_path / "run"
    train(tiny_data, run, settings(previews=2, preview_every=2))
    assert_same_run(straight, run)
    names = sorted(path.name for path in (run / "previews").iterdir())
    assert names == ["step-00000002.webp", "step-00000004.webp"]
    assert len(read_sticker(run / "previews" / names[0])) == 4


def test_it_learns(tiny_data: Path, tmp_path: Path):
    """Judged by the same samples with the same noise before and after: single steps differ by task and noise level."""
    learner = Learner(
        tiny_data,
        tmp_path / "run",
        settings(
            steps=40,
            frames=2,
            curriculum="none",
            num_augmented=0,
        ),
    )

    def loss() -> float:
        batches = [(step, batch) for step in range(1000, 1003) for batch in learner.source.batches(step, 0.0)]
        with torch.no_grad():
            return float(torch.cat([learner.losses(b, *learner.noise(b, step)) for step, b in batches]).mean())

    before = loss()
    for step in range(40):
        learner.train_step(step / 40)
    assert loss() < 0.87 * before


def test_a_run_is_not_overwritten(straight: Path, tiny_data: Path):
    before = (straight / "log.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"already holds a run.*--resume"):
        train(tiny_data, straight, settings())
    assert (straight / "log.jsonl").read_bytes() == before


def test_resuming_needs_a_run(straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch, capsys):
    run = tmp_path / "run"
    with pytest.raises(ValueError, match="no run to resume"):
        resume(tiny_data, run)
    with monkeypatch.context() as patch:
        after(patch, 1, crash)
        with pytest.raises(CrashError):
            train(tiny_data, run, settings())
    resume(tiny_data, run)  # without a checkpoint it begins again
    assert "begins again" in capsys.readouterr().err
    assert_same_run(straight, run)


def test_a_run_can_be_made_longer(tiny_data: Path, tmp_path: Path):
    train(tiny_data, tmp_path / "run", settings(steps=1))
    assert resume(tiny_data, tmp_path / "run", steps=3).steps == 3
    assert [line["step"] for line in log(tmp_path / "run")] == [1, 2, 3]


def test_a_loss_that_is_not_finite_stops_the_run(straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch):
    run = tmp_path / "run"
    losses = Learner.losses

    def spoiled(self: Learner, *args: Any):
        return losses(self, *args) * (float("inf") if self.step == 2 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "losses", spoiled)
        with pytest.raises(TrainingError, match=r"step 2.*not applied") as error:
            train(tiny_data, run, settings())
    assert f"The last checkpoint, {run / 'checkpoints/step-00000002'}, is good" in str(error.value)
    assert newest(run).step == 2
    assert all(tensor.isfinite().all() for group in newest(run).tensors.values() for tensor in group.values())
    assert [line["step"] for line in log(run)] == [1, 2]
    resume(tiny_data, run)  # and the good checkpoint can be gone on from
    assert_same_run(straight, run)


def test_before_the_first_checkpoint_none_is_promised(tiny_data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Learner, "losses", lambda self, batch, *rest: self.nan.expand(len(batch)))
    monkeypatch.setattr(Learner, "nan", torch.tensor(float("nan"), requires_grad=True), raising=False)
    with pytest.raises(TrainingError, match="no checkpoint in"):
        train(tiny_data, tmp_path / "run", settings())


def test_time_can_end_a_run(tiny_data: Path, tmp_path: Path, monkeypatch):
    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 5.0
            return cls.now

    monkeypatch.setattr(loop, "time", Clock)
    report = train(tiny_data, tmp_path / "run", settings(steps=1000, max_minutes=0.25))
    assert report.finished
    assert report.steps == 3  # of five seconds each
    assert log(tmp_path / "run")[-1]["lr_factor"] < 1


def test_data_that_do_not_fit_the_codec_are_named(tiny_data: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="no codec"):
        train(tiny_data, tmp_path / "run", settings(codec="f3"))
    with pytest.raises(ValueError, match=r"no prepared dataset|no such folder"):
        train(tmp_path / "nothing", tmp_path / "run", settings())
    assert train(tiny_data, tmp_path / "run", settings(steps=1)).finished  # a failed start is not a run


def test_clips_weigh_by_their_frames_in_all_groups_of_a_step(tiny_data: Path, tmp_path: Path, monkeypatch):
    """The step's loss is the mean of the clips' own, whether clips or stills, each counted once a frame."""
    learner = Learner(tiny_data, tmp_path / "run", settings())
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    losses = Learner.losses

    def watched(self: Learner, batch: ClipBatch, *args: Any):
        found = losses(self, batch, *args)
        parts.append((found.detach(), batch.valid.sum(1)))
        return found

    monkeypatch.setattr(Learner, "losses", watched)
    line = learner.train_step(0.0)
    assert len(parts) > 1
    means, frames = (torch.cat(column) for column in zip(*parts, strict=True))
    assert len(set(frames.tolist())) > 1
    assert line["loss"] == pytest.approx(float((means * frames).sum() / frames.sum()), rel=1e-5)
