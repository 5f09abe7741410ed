from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rdtf.checkpoint import (
    Checkpoint,
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
}


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
def test_unfinished_folders_are_ignored_and_swept(tmp_path: Path, finished_manifest: bool):
    save_checkpoint(tmp_path, make(1))
    # What a kill in the middle of a save leaves behind.
    partial = save_checkpoint(tmp_path, make(2)).rename(tmp_path / "step-00000002.partial")
    (partial / "weights.safetensors").write_bytes(b"not yet")
    if not finished_manifest:
        (partial / "manifest.json").unlink()
    (tmp_path / "step-00000003").mkdir()  # never got a manifest
    found, skipped = load_latest(tmp_path)
    assert found.step == 1
    assert skipped == []
    save_checkpoint(tmp_path, make(4))
    assert names(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path):
    save_checkpoint(tmp_path, make(1), keep=1)
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path, Checkpoint(2, make(2).tensors, {"bad": object()}), keep=1)
    newest, skipped = load_latest(tmp_path)
    assert_same(newest, make(1))
    assert skipped == []


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
