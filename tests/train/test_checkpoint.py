from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

import rdtf.files as files
import rdtf.train.checkpoint as checkpoint_module
from rdtf.faults import VARIABLE, FaultError
from rdtf.files import DiskError
from rdtf.train.checkpoint import (
    Checkpoint,
    checkpoints,
    load_checkpoint,
    load_latest,
    load_optimizer_tensors,
    optimizer_tensors,
    save_checkpoint,
)
from rdtf.train.optim import Muon


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = {
        "a": torch.randn(3, 4, generator=generator),
        "b.c": torch.randn(2, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(float(step)),
        "half": torch.randn(5, generator=generator).bfloat16(),
    }
    return Checkpoint(step, {"weights": weights, "ema": {"a": weights["a"] * 2}}, {"seconds": 1.5, "list": [1, "x"]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same(a: Checkpoint, b: Checkpoint) -> None:
    assert (a.step, a.state) == (b.step, b.state)
    assert a.tensors.keys() == b.tensors.keys()
    for group, tensors in a.tensors.items():
        assert tensors.keys() == b.tensors[group].keys()
        for name, tensor in tensors.items():
            assert tensor.dtype == b.tensors[group][name].dtype
            assert torch.equal(tensor, b.tensors[group][name]), (group, name)


def test_what_is_saved_comes_back(tmp_path: Path):
    path = save_checkpoint(tmp_path, make(7))
    assert_same(load_checkpoint(path), make(7))
    newest, skipped = load_latest(tmp_path)
    assert_same(newest, make(7))
    assert skipped == []


def test_nothing_there(tmp_path: Path):
    assert load_latest(tmp_path) is None
    assert load_latest(tmp_path / "missing") is None


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (1, 2, 30, 100):
        save_checkpoint(tmp_path, make(step), keep=2)
    assert names(tmp_path) == ["step-00000030", "step-00000100"]
    save_checkpoint(tmp_path, make(200), keep=1)
    assert names(tmp_path) == ["step-00000200"]


def test_a_step_can_be_saved_again(tmp_path: Path):
    save_checkpoint(tmp_path, Checkpoint(5, make(1).tensors, {}))
    save_checkpoint(tmp_path, make(5))
    newest, _ = load_latest(tmp_path)
    assert_same(newest, make(5))


def _flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


DAMAGE = {
    "a changed byte": lambda path: _flip_byte(path / "weights.safetensors"),
    "a cut file": lambda path: (path / "ema.safetensors").write_bytes(b"short"),
    "a missing file": lambda path: (path / "weights.safetensors").unlink(),
    "a changed state": lambda path: (path / "state.json").write_text('{"step": 3}'),
    "an empty manifest": lambda path: (path / "manifest.json").write_bytes(b""),
    "a manifest without files": lambda path: (path / "manifest.json").write_text("{}"),
    "a manifest that is none": lambda path: (path / "manifest.json").write_text("[1, 2]"),
    "a manifest without facts": lambda path: (path / "manifest.json").write_text('{"state.json": 3}'),
    "a manifest that leads out": lambda path: _rename_in_manifest(path, "../step-00000001/state.json"),
    "another step's content": lambda path: [
        shutil.copy(path.parent / "step-00000001" / file.name, file) for file in path.iterdir()
    ],
    "another manifest": lambda path: shutil.copy(path.parent / "step-00000001/manifest.json", path),
}


def _rename_in_manifest(path: Path, name: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, name: manifest["state.json"]}))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_falls_back_and_says_why(tmp_path: Path, damage: str):
    save_checkpoint(tmp_path, make(1))
    newest = save_checkpoint(tmp_path, make(2))
    DAMAGE[damage](newest)
    with pytest.raises(ValueError, match="step-00000002"):
        load_checkpoint(newest)
    found, skipped = load_latest(tmp_path)
    assert_same(found, make(1))
    assert len(skipped) == 1
    assert "step-00000002" in skipped[0]


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path):
    for step in (1, 2):
        _flip_byte(save_checkpoint(tmp_path, make(step)) / "state.json")
    with pytest.raises(ValueError, match=r"step-00000002(.|\n)*step-00000001"):
        load_latest(tmp_path)


@pytest.mark.parametrize("finished_manifest", [False, True])
def test_unfinished_folders_are_no_checkpoints_and_take_no_ones_place(tmp_path: Path, finished_manifest: bool):
    save_checkpoint(tmp_path, make(1))
    # What a kill in the middle of a save leaves behind.
    partial = save_checkpoint(tmp_path, make(2)).rename(tmp_path / "step-00000002.partial")
    (partial / "weights.safetensors").write_bytes(b"not yet")
    if not finished_manifest:
        (partial / "manifest.json").unlink()
    (tmp_path / "step-00000003").mkdir()  # never got a manifest
    found, skipped = load_latest(tmp_path)
    assert found.step == 1
    assert len(skipped) == 1
    assert "step-00000003: its manifest cannot be read" in skipped[0]
    save_checkpoint(tmp_path, make(4))
    assert names(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]


@pytest.mark.parametrize("broken", [errno.EIO, errno.EACCES])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "weights.safetensors"])
def test_a_newest_that_cannot_be_read_falls_back_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int, name: str
):
    save_checkpoint(tmp_path, make(1))
    bad = save_checkpoint(tmp_path, make(2)) / name
    whole = Path.open

    def opened(self: Path, *args: Any, **options: Any) -> Any:
        if self == bad:
            raise OSError(broken, os.strerror(broken), str(self))
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    found, skipped = load_latest(tmp_path)
    assert_same(found, make(1))
    assert len(skipped) == 1
    assert "step-00000002" in skipped[0] and os.strerror(broken) in skipped[0]


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path):
    save_checkpoint(tmp_path, make(1), keep=1)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, Checkpoint(2, make(2).tensors, {"bad": object()}), keep=1)
    newest, skipped = load_latest(tmp_path)
    assert_same(newest, make(1))
    assert skipped == []


def test_steps_are_numbers_not_names(tmp_path: Path):
    for step in (99_999_999, 100_000_000):
        path = save_checkpoint(tmp_path, make(step))
        os.utime(path, (0, 0) if step > 99_999_999 else None)  # nor is the time of a file asked
    assert load_latest(tmp_path)[0].step == 100_000_000
    (tmp_path / "step-notes").mkdir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-99999999", "step-100000000"]


@pytest.mark.parametrize("cut", [0, 1, 0.5, -1])
@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "state.json", "manifest.json"])
def test_a_file_cut_anywhere_is_found(tmp_path: Path, name: str, cut: float):
    save_checkpoint(tmp_path, make(1))
    file = save_checkpoint(tmp_path, make(2)) / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * cut) if 0 < cut < 1 else int(cut)])
    assert load_latest(tmp_path)[0].step == 1


def test_the_older_goes_only_when_the_newer_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(tmp_path, make(1), keep=1)
    sync = files.sync

    def damaging(path: Path) -> None:
        """The disk loses a bit of what it was given."""
        sync(path)
        if path.name == "manifest.json":
            _flip_byte(path.parent / "weights.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "sync", damaging)
        with pytest.raises(ValueError, match=r"weights\.safetensors.*damaged"):
            save_checkpoint(tmp_path, make(2), keep=1)
    assert names(tmp_path) == ["step-00000001"]
    save_checkpoint(tmp_path, make(2), keep=1)
    assert names(tmp_path) == ["step-00000002"]


def test_every_file_is_on_the_disk_before_the_manifest_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[tuple[str, str]] = []
    sync, write, rename = files.sync, Path.write_text, Path.rename

    def noted(what: str, path: Path) -> None:
        order.append((what, path.name))

    monkeypatch.setattr(checkpoint_module, "sync", lambda path: (noted("sync", path), sync(path)))
    monkeypatch.setattr(files, "sync", lambda path: (noted("sync", path), sync(path)))
    monkeypatch.setattr(Path, "write_text", lambda self, *a, **k: (noted("write", self), write(self, *a, **k))[1])
    monkeypatch.setattr(Path, "rename", lambda self, to: (noted("rename", to), rename(self, to))[1])
    path = save_checkpoint(tmp_path, make(1))
    manifest = json.loads((path / "manifest.json").read_text())
    written, renamed = order.index(("write", "manifest.json")), order.index(("rename", path.name))
    assert written < order.index(("sync", "manifest.json")) < order.index(("sync", f"{path.name}.partial")) < renamed
    assert all(order.index(("sync", name)) < written for name in manifest)
    assert order[renamed + 1] == ("sync", tmp_path.name)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_neither_saved_nor_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float):
    save_checkpoint(tmp_path, make(1))
    spoiled = make(2)
    spoiled.tensors["ema"]["a"][0, 0] = bad
    with pytest.raises(ValueError, match="step 2 is not saved: a in ema"):
        save_checkpoint(tmp_path, spoiled)
    assert names(tmp_path) == ["step-00000001"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "_check_finite", lambda *_: None)
        path = save_checkpoint(tmp_path, spoiled)
    with pytest.raises(ValueError, match="not finite"):
        load_checkpoint(path)
    assert load_latest(tmp_path)[0].step == 1


SAVING = ["ckpt.tmp_open", "ckpt.mid_write", "ckpt.before_fsync", "ckpt.before_manifest", "ckpt.before_rename"]


@pytest.mark.parametrize("fault", ["full", "readonly"])
@pytest.mark.parametrize("point", SAVING)
def test_a_full_disk_in_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, fault: str):
    save_checkpoint(tmp_path, make(1), keep=1)
    monkeypatch.setenv(VARIABLE, f"{point}={fault}")
    with pytest.raises(
        DiskError, match=r"disk is full \(0\.0 MB are needed" if fault == "full" else "cannot be written"
    ):
        save_checkpoint(tmp_path, make(2), keep=1)
    assert names(tmp_path) == ["step-00000001"]  # and nothing of the new one takes up room
    assert_same(load_latest(tmp_path)[0], make(1))
    save_checkpoint(tmp_path, make(2), keep=1)
    assert names(tmp_path) == ["step-00000002"]


def test_too_little_room_is_seen_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(tmp_path, make(1))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 1000))
    with pytest.raises(DiskError, match=r"1000|0\.0 MB free"):
        save_checkpoint(tmp_path, make(2))
    assert names(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize("point", ["ckpt.after_rename", "ckpt.before_prune", "files.mid_remove", "files.mid_publish"])
def test_a_crash_around_the_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str):
    save_checkpoint(tmp_path, make(1), keep=1)
    if point == "files.mid_publish":  # there is something to replace
        save_checkpoint(tmp_path, Checkpoint(2, make(1).tensors, {}), keep=2)
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, f"{point}=raise")
        with pytest.raises(FaultError):
            save_checkpoint(tmp_path, make(2), keep=1)
    assert load_latest(tmp_path)[0].step == (1 if point == "files.mid_publish" else 2)
    save_checkpoint(tmp_path, make(3), keep=1)
    assert names(tmp_path) == ["step-00000003"]


def test_manifest_lists_every_file(tmp_path: Path):
    path = save_checkpoint(tmp_path, make(3))
    manifest = json.loads((path / "manifest.json").read_text())
    assert sorted(manifest) == [name for name in names(path) if name != "manifest.json"]
    assert all(manifest[name]["bytes"] == (path / name).stat().st_size for name in manifest)


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
        lambda p: Muon(p, lr=0.1),
    ],
    ids=["adamw", "fused-adamw", "muon"],
)
def test_optimizer_state_goes_on_bit_for_bit(tmp_path: Path, make_optimizer):
    def new():
        generator = torch.Generator().manual_seed(0)
        tensors = [torch.randn(4, 3, generator=generator), torch.randn(4, 3, 3, 3, generator=generator)]
        tensors.append(torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last))
        parameters = [torch.nn.Parameter(tensor) for tensor in tensors]
        return parameters, make_optimizer(parameters)

    def steps(parameters, optimizer, seeds):
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for parameter in parameters:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(drawn)  # in its memory order, as from backward
            optimizer.step()

    straight, optimizer = new()
    steps(straight, optimizer, range(3))
    tensors = {"optimizer": optimizer_tensors(optimizer), "weights": {str(i): p for i, p in enumerate(straight)}}
    save_checkpoint(tmp_path, Checkpoint(3, tensors, {}))
    loaded, _ = load_latest(tmp_path)

    resumed, other = new()
    for group in other.param_groups:
        group["lr"] = 0.1
    with torch.no_grad():
        for i, parameter in enumerate(resumed):
            parameter.copy_(loaded.tensors["weights"][str(i)])
    load_optimizer_tensors(other, loaded.tensors["optimizer"])
    steps(straight, optimizer, range(3, 6))
    steps(resumed, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))
