"""What docs/reliability.md promises of a training, each promise by faults at named points.

Processes are forked from this warm one, so that none has to import torch anew.
"""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

import rdtf
import rdtf.train.run as loop
import rdtf.train.step as step_module
from rdtf import files
from rdtf.cli import app
from rdtf.curriculum import Curriculum
from rdtf.faults import VARIABLE
from rdtf.files import DiskError, folder_lock
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.train.checkpoint import Checkpoint, checkpoints, load_latest
from rdtf.train.run import OutOfMemoryError, Trainer, TrainingError, resume, train
from rdtf.train.source import ClipSource
from rdtf.train.step import Learner
from tests.train.runs import run_differences
from tests.train.test_run import settings

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available() or sys.platform != "linux", reason="forks processes that compute, for which CUDA is unfit"
)
SCANDIR = os.scandir
LEFTOVERS = (".partial", ".old", ".removed")


def go(data: Path, run: Path, **overrides: Any) -> loop.TrainReport:
    """Start the run, or go on with it."""
    if (run / "config.json").exists():
        return resume(data, run)
    return train(data, run, settings(**overrides))


def killed(fault: str, job: Callable[[], Any], timeout: float = 120.0) -> int | None:
    """Do the job in another process, with a fault; its exit code (negative = the signal)."""

    def child() -> None:
        os.environ[VARIABLE] = fault
        job()
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        pytest.fail(f"{fault}: hangs")
    return process.exitcode


def newest_step(run: Path) -> int:
    found = load_latest(run / "checkpoints")
    return found[0].step if found else 0


def leftovers(run: Path) -> list[str]:
    return [str(path) for path in run.rglob("*") if path.name.endswith(LEFTOVERS)]


@pytest.fixture(scope="module")
def straight(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps without a break."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(tiny_data, run, settings(steps=6))
    return run


@pytest.fixture(scope="module")
def halfway(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, killed after step 5; its checkpoint is of step 4."""
    run = tmp_path_factory.mktemp("halfway") / "run"
    assert killed("log.append:5", lambda: go(tiny_data, run, steps=6)) == -signal.SIGKILL
    assert newest_step(run) == 4
    return run


@pytest.fixture
def copy(halfway: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(halfway, tmp_path / "copy"))


CHAINS = {
    "in steps": ["data.next:2", "step.after_backward:3", "step.after_opt", "log.append:3"],
    "in saves": ["ckpt.tmp_open", "ckpt.mid_write:4", "ckpt.before_fsync", "ckpt.before_manifest:2"],
    "around the first renames": ["ckpt.before_rename", "ckpt.after_rename", "pipeline.before_rename"],
    "replacing and pruning": ["files.mid_publish", "ckpt.before_prune", "files.mid_remove"],
}


SLOW_CHAINS = {"in steps", "around the first renames"}


@pytest.mark.parametrize(
    "chain", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_CHAINS else []) for name in CHAINS]
)
def test_killed_again_and_again_it_is_the_unbroken_run(straight: Path, tiny_data: Path, tmp_path: Path, chain: str):
    run = tmp_path / "run"
    for fault in CHAINS[chain]:
        before, usable = newest_step(run), (run / "pipeline").exists()
        assert killed(fault, lambda: go(tiny_data, run, steps=6)) == -signal.SIGKILL, f"{fault} never came"
        assert newest_step(run) >= before
        if usable:  # so it is after any crash
            load_pipeline(run)
    go(tiny_data, run)
    assert run_differences(straight, run) == []
    assert leftovers(run) == []
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-00000004", "step-00000006"]
    load_pipeline(run)


def test_nothing_left_out_goes_unnoticed_if_nothing_is(straight: Path, tiny_data: Path, copy: Path):
    resume(tiny_data, copy)
    assert run_differences(straight, copy) == []


def lost(part: str, data: Path, folder: Path) -> Callable[[Checkpoint], Checkpoint]:
    """The checkpoint without one of its parts, as if that had never been saved."""

    def without(found: Checkpoint) -> Checkpoint:
        tensors, state, step = dict(found.tensors), dict(found.state), found.step
        if part == "weights":
            tensors["weights"] = {n: p.detach() for n, p in Learner(data, folder, settings(steps=6)).named.items()}
        elif part == "ema":
            tensors["ema"] = tensors["weights"]
        elif part in tensors:
            tensors[part] = {}
        elif part == "ema_steps":
            state["ema_steps"] = 0
        elif part == "curriculum":
            state["curriculum"] = Curriculum("adaptive-normalised").state_dict()
        else:
            assert part == "step"
            step = 2
        return Checkpoint(step, tensors, state)

    return without


@pytest.mark.parametrize(
    "part", ["weights", "ema", "ema_steps", "optimizer-0", "optimizer-1", "curriculum", "step", "log", "data", "noise"]
)
def test_any_one_state_left_out_turns_the_comparison_red(
    straight: Path, tiny_data: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
):
    if part == "log":
        monkeypatch.setattr(loop, "cut_lines", lambda path, step, gaps=False: step)
    elif part == "data":  # a cursor that starts again
        batches = ClipSource.batches
        monkeypatch.setattr(ClipSource, "batches", lambda self, step, *rest: batches(self, step - 4, *rest))
    elif part == "noise":
        rng = step_module.torch_rng
        monkeypatch.setattr(step_module, "torch_rng", lambda seed, step, purpose: rng(seed, step - 4, purpose))
    else:
        spoil, load = lost(part, tiny_data, tmp_path / "other"), loop.load_latest
        monkeypatch.setattr(loop, "load_latest", lambda folder: (spoil(load(folder)[0]), []))
    resume(tiny_data, copy)
    assert run_differences(straight, copy) != []


def test_the_threads_are_part_of_the_result(straight: Path, tiny_data: Path, copy: Path, monkeypatch, capsys):
    """Whether or not the bits differ here: what is not promised is said."""
    monkeypatch.setattr(loop, "conditions", lambda *_: {"threads": "64", "torch": "0.1"})
    resume(tiny_data, copy, threads=1)
    told = capsys.readouterr().err
    assert "Not promised to be bit-equal" in told
    assert "threads 1 -> 64" in told


def stamped(trainer: Trainer, number: int) -> Path:
    """Save the pipeline with one number in all weights of the network and of the text encoder."""
    with torch.no_grad():
        for parameter in trainer.learner.net.parameters():
            parameter.fill_(number)
    trainer._save_pipeline(trainer.learner.net)
    return trainer.run / "pipeline"


def stamps_of(run: Path) -> set[float]:
    pipe = load_pipeline(run)
    loaded = [*pipe.dfgn.parameters(), *pipe.text_encoder.parameters()]
    return {float(number) for parameter in loaded for number in parameter.detach().unique()}


def test_a_reader_sees_one_save_wherever_another_comes_in_between(tiny_data: Path, tmp_path: Path, monkeypatch):
    """A save begins before the k-th look of the reader at the folder, and ends at once or two looks later."""
    trainer = Trainer(tiny_data, tmp_path / "run", settings())
    saves = [Path(shutil.copytree(stamped(trainer, number), tmp_path / str(number))) for number in (0, 1)]
    final, looks, begins = trainer.run / "pipeline", 0, -9
    lasts = 0
    half_way, go_on = threading.Event(), threading.Event()
    saver = threading.Thread()

    def pause(point: str) -> None:
        if point == "files.mid_publish":
            half_way.set()
            go_on.wait(60)

    monkeypatch.setattr(files, "reach", pause)

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == begins:
            saver.start()
            half_way.wait(60)
        if looks == begins + lasts:
            go_on.set()
            saver.join()

    def spied(original: Callable[..., Any]) -> Callable[..., Any]:
        def seen(path: Any, *rest: Any, **options: Any) -> Any:
            ours = isinstance(path, str | Path) and str(path).startswith(str(final))
            if ours and threading.current_thread() is not saver:
                look()
            return original(path, *rest, **options)

        return seen

    for module, name in ((os, "stat"), (io, "open"), (safetensors, "safe_open"), (safetensors.torch, "load_file")):
        monkeypatch.setattr(module, name, spied(getattr(module, name)))
    monkeypatch.setattr("builtins.open", io.open)
    assert stamps_of(trainer.run) == {1}
    all_looks = looks
    assert all_looks > 15
    places = np.linspace(1, all_looks - 2, 9).astype(int).tolist()
    ways = [*((at, 0) for at in places), *((at, 2) for at in places[::2])]
    for number, way in enumerate(ways):
        begins, lasts = way
        looks = -(10**9)
        partial = Path(shutil.copytree(saves[number % 2], final.with_name("pipeline.partial")))
        saver = threading.Thread(target=files.publish, args=(partial, final))
        half_way.clear(), go_on.clear()
        looks = 0
        stamps = stamps_of(trainer.run)
        assert len(stamps) == 1, f"a save at look {begins}: parts of several: {stamps}"
        saver.join()


@pytest.mark.slow
def test_a_reader_beside_a_saving_run_sees_one_save(tiny_data: Path, tmp_path: Path):
    trainer = Trainer(tiny_data, tmp_path / "run", settings())

    def saves() -> None:
        for number in range(1, 61):
            stamped(trainer, number)
            time.sleep(0.5)

    stamped(trainer, 0)
    process = multiprocessing.get_context("fork").Process(target=saves)
    process.start()
    seen: list[float] = []
    while process.is_alive() or len(seen) < 200:
        stamps = stamps_of(trainer.run)
        assert len(stamps) == 1, f"parts of several saves: {stamps}"
        seen += stamps
    process.join()
    assert process.exitcode == 0
    assert seen == sorted(seen) and len({*seen}) > 10  # they did meet


def test_the_clock_is_not_asked(straight: Path, tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
    days = iter(range(0, 10**9, 86_400))
    monkeypatch.setattr(time, "time", lambda: 10**9 - next(days))  # a day backwards at every look
    for path in copy.rglob("*"):
        os.utime(path, (0, 0) if "4" in path.name else (10**9, 10**9))
    resume(tiny_data, copy)
    assert run_differences(straight, copy) == []
    seconds = [json.loads(line)["seconds"] for line in (copy / "log.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


# ------------------------------------------------------------------------------------------------- signals, exit codes


@pytest.mark.parametrize("point", ["ckpt.mid_write", "step.after_opt:2"])
def test_asked_to_stop_anywhere_it_finishes_and_saves(
    straight: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, f"{point}=term")
        report = train(tiny_data, run, settings(steps=6))
    assert not report.finished
    assert report.steps == newest_step(run) == 2
    resume(tiny_data, run)
    assert run_differences(straight, run) == []


def test_a_second_signal_ends_at_once_and_loses_nothing_older(straight: Path, tiny_data: Path, copy: Path):
    fault = "log.append:1=term,ckpt.mid_write=term"
    assert killed(fault, lambda: resume(tiny_data, copy)) == -signal.SIGTERM
    assert newest_step(copy) == 4
    resume(tiny_data, copy)
    assert run_differences(straight, copy) == []
    assert leftovers(copy) == []


def test_asked_to_stop_a_preview_is_given_up(tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
    denoise = StickerPipeline._denoise

    def stopped(self: Any, *args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return denoise(self, *args)

    monkeypatch.setattr(StickerPipeline, "_denoise", stopped)
    report = resume(tiny_data, copy, previews=2, preview_every=5)
    assert (report.finished, report.steps) == (False, 5)
    assert not (copy / "previews/step-00000005.webp").exists()


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        ("log.append=term", 75, "stopped; go on with --resume"),
        ("step.after_backward=memory", 71, "out of memory.*step-00000004, is good.*batch_size"),
        ("ckpt.mid_write=full", 74, "disk is full.*untouched"),
    ],
)
def test_exit_codes(
    straight: Path, tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, told: str
):
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, fault)
        result = CliRunner().invoke(app, ["train", str(tiny_data), str(copy), "--resume"])
    assert result.exit_code == code, result.output
    assert re.search(told, result.output.replace("\n", " ")), result.output
    assert newest_step(copy) == (5 if code == 75 else 4)
    if code == 74:  # with room again it goes on as if nothing had been
        resume(tiny_data, copy)
        assert run_differences(straight, copy) == []


def unreadable(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of checkpoints may not be listed."""
    listdir = os.listdir

    def refuse(folder: Any = ".") -> list[str]:
        if Path(folder) == run / "checkpoints":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(os, "scandir", lambda folder=".": (refuse(folder), SCANDIR(folder))[1])
    return "checkpoints cannot be read"


def no_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file stands in its place."""
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").write_bytes(b"")
    return "checkpoints cannot be read"


def all_damaged(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for path in checkpoints(run / "checkpoints"):
        (path / "manifest.json").unlink()
    return "no checkpoint can be used"


@pytest.mark.parametrize("harm", [unreadable, no_folder, all_damaged])
def test_without_a_state_in_hand_nothing_is_touched(
    tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Path, pytest.MonkeyPatch], str]
):
    """A resume that finds no state must not begin again over the log."""
    told = harm(copy, monkeypatch)
    files = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and not path.name.startswith(".")}
    with pytest.raises(ValueError, match=told):
        resume(tiny_data, copy)
    assert {path: path.read_bytes() for path in files} == files


def test_where_checkpoints_are_gone_the_log_is_put_aside(tiny_data: Path, copy: Path):
    shutil.rmtree(copy / "checkpoints")
    before = (copy / "log.jsonl").read_bytes()
    assert resume(tiny_data, copy, steps=1).steps == 1
    assert (copy / "log.jsonl.aside-1").read_bytes() == before


def test_a_folder_that_cannot_be_written_to_is_found_before_the_first_step(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, "files.probe=readonly")
    monkeypatch.setattr(Learner, "train_step", None)
    with pytest.raises(DiskError, match="choose another folder"):
        train(tiny_data, tmp_path / "run", settings())
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(loop, "check_space", lambda folder, needed: (_ for _ in ()).throw(DiskError(f"{needed}")))
    with pytest.raises(DiskError, match=r"^[1-9]\d{4,}$"):
        train(tiny_data, tmp_path / "run", settings())
    assert not (tmp_path / "run/config.json").exists()


def test_memory_that_ends_in_a_step_costs_nothing_saved(tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Learner, "train_step", lambda self, progress: torch.empty(1 << 60))  # what torch itself says
    with pytest.raises(OutOfMemoryError, match="raise gradient_accumulation_steps"):
        resume(tiny_data, copy)
    assert newest_step(copy) == 4


def test_one_run_a_folder(tiny_data: Path, copy: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(copy)
    before = (copy / "log.jsonl").read_bytes()
    with folder_lock(copy, "this run"):
        for name in (copy, tmp_path / "link"):
            with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"):
                resume(tiny_data, name)
    assert (copy / "log.jsonl").read_bytes() == before


# ------------------------------------------------------------------------------------------- what has changed, what not


def test_a_checkpoint_asked_for_by_name_is_the_one_or_none(straight: Path, tiny_data: Path, copy: Path, tmp_path: Path):
    damaged = copy / "checkpoints/step-00000004/ema.safetensors"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"ema\.safetensors: missing or damaged"):
        resume(tiny_data, copy, start="4")
    with pytest.raises(ValueError, match="manifest cannot be read"):
        resume(tiny_data, copy, start="3")
    damaged.write_bytes(whole)
    result = CliRunner().invoke(app, ["train", str(tiny_data), str(copy), "--resume-from", "2"])
    assert result.exit_code == 0, result.output
    assert "step-00000004.aside-1" in result.output
    assert run_differences(straight, copy) == []
    elsewhere = Path(shutil.copytree(straight, tmp_path / "elsewhere"))
    resume(tiny_data, elsewhere, start=str(copy / "checkpoints/step-00000004.aside-1"))
    assert run_differences(straight, elsewhere) == []


def test_changed_settings_are_listed_or_refused(straight: Path, tiny_data: Path, copy: Path, capsys):
    with pytest.raises(ValueError, match="cannot change within a run: size tiny -> small"):
        resume(tiny_data, copy, size="small")
    assert newest_step(copy) == 4
    resume(tiny_data, copy, lr=0.01, weight_decay=0.1)
    told = capsys.readouterr().err
    assert "lr 0.002 -> 0.01" in told and "weight_decay 0.01 -> 0.1" in told
    assert run_differences(straight, copy) != []
    config = json.loads((copy / "config.json").read_text())  # and by hand
    assert config["settings"]["lr"] == 0.01
    config["settings"]["codec"] = "pixel"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="codec pixel2 -> pixel"):
        resume(tiny_data, copy)


def test_harmless_changes_keep_the_promise(straight: Path, tiny_data: Path, copy: Path, capsys):
    resume(tiny_data, copy, checkpoint_every=1, preview_every=3)
    assert "Not promised" not in capsys.readouterr().err
    assert run_differences(straight, copy) == []


def test_other_data_are_refused_with_what_changed(tiny_data: Path, copy: Path, tmp_path: Path):
    other = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["fingerprint"], manifest["settings"]["max_frames"] = "another", 7
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"is not the data.*settings\.max_frames 40 -> 7"):
        resume(other, copy)


def test_a_step_that_is_not_finite_is_reported_to_a_file(tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
    losses = Learner.losses
    monkeypatch.setattr(Learner, "losses", lambda self, *args: losses(self, *args) * float("nan"))
    with pytest.raises(TrainingError, match=r"not applied.*not-finite-step-00000004\.json"):
        resume(tiny_data, copy)
    report = json.loads((copy / "not-finite-step-00000004.json").read_text())
    assert (report["step"], report["seed"], report["loss"]) == (4, 0, "nan")
    latents = Learner(tiny_data, copy, settings()).source.latents
    ids = {latents.record(i).id for i in range(len(latents))}
    assert len(report["clips"]) == 4
    for i, clip in enumerate(report["clips"]):
        assert clip["sticker"] in ids and clip["stream"] == f"noise/{i}" and clip["loss"] == "nan"
    assert newest_step(copy) == 4


def test_weights_that_are_not_finite_are_never_saved(tiny_data: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
    observe = Curriculum.observe

    def spoil(self: Curriculum, samples: Any) -> None:
        observe(self, samples)
        with torch.no_grad():
            next(iter(trainers[0].learner.named.values())).fill_(float("inf"))

    trainers: list[Trainer] = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: trainers.append(self) or fit(self))
    monkeypatch.setattr(Curriculum, "observe", spoil)
    with pytest.raises(TrainingError, match=r"not saved.*in weights holds values that are not finite.*step-00000004"):
        resume(tiny_data, copy, checkpoint_every=1)
    assert newest_step(copy) == 4


_MAY_PICKLE = {
    "data/vgg.py": "torch.load(",  # weights that others published so, by the reader that runs no code
}


def test_nothing_is_ever_unpickled(straight: Path):
    """Neither by what is written nor by what reads it."""
    endings = {path.suffix for path in straight.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".jsonl", ".webp", ".lock", ""}
    package = Path(rdtf.__file__).parent
    for path in package.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "allow_pickle=True", "joblib", "import dill"):
            allowed = _MAY_PICKLE.get(path.relative_to(package).as_posix(), "")
            assert word not in code or word == allowed, path
        assert code.count("torch.load(") == code.count("weights_only=True"), path
