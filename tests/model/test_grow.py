"""A network that is grown to twice the size knows at once what it knew before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import interpolate

from rdtf.loading import load_pipeline
from rdtf.model import DFGN
from rdtf.model.grow import grown, with_text_prior
from rdtf.train.run import resume, train
from rdtf.train.settings import recipe_settings
from tests.conftest import awaken
from tests.model.test_dfgn import SIDE, Inputs
from tests.train.runs import run_differences
from tests.train.test_run import FEW, CrashError, after, crash, settings


@pytest.mark.parametrize("layers", [1, 2])
def test_what_it_says_of_a_smooth_picture_is_kept(layers: int):
    torch.manual_seed(0)
    small = awaken(DFGN(latent_channels=4, widths=(16, 32), attention=(False, True), sti_pool=(1, 1), layers=layers,
                        head_dim=16, text_width=16, pooled_text=True, residual_to_known=-1.0,
                        text_prior=16, text_prior_side=2, text_motion=8, text_motion_side=2)).eval()  # fmt: skip
    large = grown(small).eval()
    assert tuple(large.config["widths"]) == (16, 16, 32) and len(large.up) == 3
    noisy = interpolate(torch.randn(2 * 4 * 3, 1, 2, 2), (16, 16), mode="bicubic").view(2, 4, 3, 16, 16)
    words, shown = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    known = torch.tensor([[True, False, False], [False, False, False]])
    facts = torch.tensor([900.0, 500.0]), known, torch.ones(2, 3, dtype=torch.bool), torch.tensor([True, False])

    def output(network: DFGN, x: torch.Tensor) -> torch.Tensor:
        level, given, valid, loop = facts
        with torch.no_grad():
            return network(x, level, x, given, valid, loop, network.text_context(words, shown))

    with torch.no_grad():
        one, two = small.text_context(words, shown).prior, large.text_context(words, shown).prior
    assert one is not None and two is not None and one.std() > 0.01
    torch.testing.assert_close(two, interpolate(one, scale_factor=2, mode="bilinear"))
    half = interpolate(noisy.flatten(0, 1), scale_factor=0.5, mode="area").view(2, 4, 3, 8, 8)
    old, new = output(small, half), output(large, noisy)
    inside = interpolate(new.flatten(0, 1), scale_factor=0.5, mode="area").view_as(old)[..., 1:-1, 1:-1]
    old = old[..., 1:-1, 1:-1]
    assert (inside - old).square().mean() < 0.1 * old.var()
    assert (inside - old.flip(0)).square().mean() > 0.5 * old.var(), "an output that tells the pictures apart"


def test_a_grown_training_is_exact_after_a_crash(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    train(tiny_data, tmp_path / "small", settings(steps=2))
    growing = recipe_settings("fast", start_from=str(tmp_path / "small"), grow=True, **FEW)
    train(tiny_data, tmp_path / "whole", growing)
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        after(patch, 3, crash)
        train(tiny_data, tmp_path / "broken", growing)
    shutil.rmtree(tmp_path / "small")
    resume(tiny_data, tmp_path / "broken")
    assert run_differences(tmp_path / "whole", tmp_path / "broken") == []
    levels = json.loads((tmp_path / "whole" / "pipeline" / "dfgn" / "config.json").read_text())["widths"]
    assert levels[0] == levels[1] and load_pipeline(tmp_path / "whole")("a cat", num_frames=2).stickers


def test_only_a_whole_trained_model_grows():
    with pytest.raises(ValueError, match="name it with start_from"):
        recipe_settings("fast", grow=True)
    with pytest.raises(ValueError, match="no tune"):
        recipe_settings("tune", grow=True, start_from="base", tune="lora")


def test_a_new_text_prior_changes_nothing_and_learns(make_network: Callable[..., DFGN]):
    old = make_network(residual_to_known=-1.0).eval()
    new = with_text_prior(old, 8, SIDE).eval()
    inputs = Inputs([3, 2])
    inputs.known[0] = False
    with torch.no_grad():
        torch.testing.assert_close(inputs.run(new), inputs.run(old))
    inputs.run(new).square().mean().backward()
    assert new.text_prior is not None and new.text_prior.embed_out.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="already"):
        with_text_prior(new, 8, SIDE)


def test_a_training_may_add_a_text_prior(tiny_data: Path, tmp_path: Path):
    train(tiny_data, tmp_path / "old", settings(steps=1))
    adding = recipe_settings("fast", start_from=str(tmp_path / "old"), add_text_prior=12, **FEW)
    train(tiny_data, tmp_path / "new", adding)
    network = load_pipeline(tmp_path / "new").dfgn
    assert network.text_prior is not None and network.text_prior.inner.out_features == 12
    assert network.text_prior.side == load_pipeline(tmp_path / "old").config.sample_size // 2
    assert network.text_prior.embed_out.weight.abs().sum() > 0
    for wrong in ({}, {"start_from": "base", "tune": "lora"}):
        with pytest.raises(ValueError, match="add_text_prior"):
            recipe_settings("fast", add_text_prior=8, **wrong)
