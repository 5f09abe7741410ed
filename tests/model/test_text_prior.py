"""The motion prior: where it moves a clip, and that a training learns it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rdtf.loading import load_pipeline
from rdtf.model import DFGN
from rdtf.model.grow import with_text_motion
from rdtf.train import text_motion
from rdtf.train.run import resume, train
from rdtf.train.settings import recipe_settings
from tests.conftest import awaken
from tests.model.test_dfgn import SIDE, Inputs
from tests.train.runs import run_differences
from tests.train.test_run import FEW, CrashError, after, crash, settings

PRIORS = {"residual_to_known": 1.0, "text_prior": 8, "text_prior_side": SIDE}


def reference(network: DFGN, known: str, *, loop: bool = True, caption: bool = True) -> torch.Tensor:
    """``(c f h w)``: what the network says of a clip while its last layer says nothing."""
    inputs = Inputs([len(known)], loop=loop)
    inputs.known = torch.tensor([[mark == "1" for mark in known]])
    inputs.text_mask = torch.full((1, 5), caption)
    torch.nn.init.zeros_(network.conv_out.weight)
    torch.nn.init.zeros_(network.conv_out.bias)
    with torch.no_grad():
        return inputs.run(network)[0]


def test_a_caption_moves_loops_with_at_most_one_given_frame(make_network: Callable[..., DFGN]):
    still = awaken(make_network(**PRIORS)).eval()
    moving = awaken(with_text_motion(still, 8, SIDE)).eval()
    moving.load_state_dict(still.state_dict(), strict=False)
    for known, options in (("1010", {}), ("1000", {"loop": False}), ("0000", {"caption": False})):
        assert torch.equal(reference(moving, known, **options), reference(still, known, **options))
    for known in ("1000", "0010"):
        change = reference(moving, known) - reference(still, known)
        given = known.index("1")
        assert torch.allclose(change[:, given], torch.zeros_like(change[:, given]), atol=1e-6)
        assert all(change[:, i].abs().max() > 1e-3 for i in range(4) if i != given)
    alone = reference(moving, "0000") - reference(still, "0000")
    assert not alone[:, 0].any() and alone[:, 1].abs().max() > 1e-3
    first, third = reference(moving, "1000"), reference(moving, "0010")
    steps = (first - first[:, :1]) - (third - third[:, :1])  # one motion, wherever it is seen from
    assert torch.allclose(steps, torch.zeros_like(steps), atol=1e-5)


def test_a_new_motion_prior_changes_nothing(make_network: Callable[..., DFGN]):
    old = awaken(make_network(**PRIORS)).eval()
    new = with_text_motion(old, 8, SIDE).eval()
    inputs = Inputs([3, 2], loop=True)
    with torch.no_grad():
        torch.testing.assert_close(inputs.run(new), inputs.run(old))
    with pytest.raises(ValueError, match="already"):
        with_text_motion(new, 8, SIDE)
    with pytest.raises(ValueError, match="needs a text_prior"):
        with_text_motion(make_network(), 8, SIDE)


def test_a_training_may_add_a_motion_prior(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    errors = []
    fit = text_motion.fit_text_motion
    monkeypatch.setattr("rdtf.train.step.fit_text_motion", lambda *args: errors.append(fit(*args, steps=150)))
    few = {**FEW, "frames": 3}
    train(tiny_data, tmp_path / "old", settings(steps=1, model={"text_prior": 8}))
    adding = recipe_settings("fast", start_from=str(tmp_path / "old"), add_text_motion=24, **few)
    train(tiny_data, tmp_path / "whole", adding)
    assert errors[0] < 0.5
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        after(patch, 3, crash)
        train(tiny_data, tmp_path / "broken", adding)
    shutil.rmtree(tmp_path / "old")
    resume(tiny_data, tmp_path / "broken")
    assert len(errors) == 2, "a run that goes on has its motion prior"
    assert run_differences(tmp_path / "whole", tmp_path / "broken") == []
    network = load_pipeline(tmp_path / "whole").dfgn
    assert network.text_motion is not None and network.text_motion.embed_inner.out_features == 24
    for wrong in ({}, {"start_from": "base", "tune": "lora"}):
        with pytest.raises(ValueError, match="add_text_motion"):
            recipe_settings("fast", add_text_motion=8, **wrong)
