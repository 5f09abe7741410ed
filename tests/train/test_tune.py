"""Trainings that begin with another run's weights, all of them or a few added ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rdtf.loading import load_pipeline
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN
from rdtf.train.run import Trainer, resume, train
from rdtf.train.settings import TrainSettings, recipe_settings
from tests.train.runs import newest, run_differences
from tests.train.test_run import FEW, CrashError, after, crash, settings

TUNES: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2},
    "customize-a-video": {"rank": 2, "absorb": 0.5},
    "simda": {},
    "i2v-adapter": {"start": 0.9},
}


@pytest.fixture(scope="module")
def base(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of the tiny network."""
    run = tmp_path_factory.mktemp("base") / "run"
    train(tiny_data, run, settings(steps=2))
    return run


def tuning(base: Path, tune: str | None, **overrides: Any) -> TrainSettings:
    few = {**FEW, "tune_options": TUNES.get(tune or "", {})}
    return recipe_settings("tune" if tune else "fast", start_from=str(base), tune=tune, **{**few, **overrides})


QUICK = ("customize-a-video", None)  # one with stages, and one without an adapter


@pytest.mark.parametrize(
    "tune", [pytest.param(tune, marks=[] if tune in QUICK else [pytest.mark.slow]) for tune in (*TUNES, None)]
)
def test_a_tuned_run_is_exact_after_a_crash_and_generates(
    tiny_data: Path, base: Path, tmp_path: Path, tune: str | None, monkeypatch: pytest.MonkeyPatch
):
    source = tmp_path / "source"
    shutil.copytree(base, source)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny_data, whole, tuning(source, tune))
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        after(patch, 3, crash)
        train(tiny_data, broken, tuning(source, tune))
    shutil.rmtree(source)  # what it began with may be gone
    resume(tiny_data, broken)
    assert run_differences(whole, broken) == []

    pipelines = load_pipeline(whole), load_pipeline(broken)
    stickers = [pipeline("a red cat", num_frames=3, seed=1).stickers[0].frames for pipeline in pipelines]
    assert (stickers[0] == stickers[1]).all()

    weights = newest(whole).tensors["weights"]
    first, tuned = load_pipeline(base), pipelines[0].dfgn
    if tune in TUNES:
        assert isinstance(tuned, AdaptedDFGN)
        assert weights.keys() == {f"dfgn.dfgn.{name}" for name in tuned.adapter.trainable_parameters}
        untouched = {
            name: parameter
            for name, parameter in tuned.dfgn.named_parameters()
            if name not in tuned.adapter.trainable_parameters
        }
        plain = {name.replace(".base_layer", ""): parameter for name, parameter in untouched.items()}
        assert plain.keys() == dict(first.dfgn.named_parameters()).keys()
        assert all(torch.equal(plain[name], parameter) for name, parameter in first.dfgn.named_parameters())
        texts = zip(first.text_encoder.parameters(), pipelines[0].text_encoder.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in texts)
    else:
        assert isinstance(tuned, DFGN)
        assert len(weights) == sum(len(list(m.parameters())) for m in (tuned, pipelines[0].text_encoder))


def test_it_begins_with_the_averaged_weights(tiny_data: Path, base: Path, tmp_path: Path):
    trainer = Trainer(tiny_data, tmp_path, tuning(base, None))
    averages = newest(base).tensors["ema"]
    for name, parameter in trainer.learner.named.items():
        assert torch.equal(parameter, averages[name]), name


def test_another_base_of_the_same_name_is_refused(tiny_data: Path, base: Path, tmp_path: Path):
    run = tmp_path / "run"
    train(tiny_data, run, tuning(base, "lora", steps=2))
    file = run / "pipeline" / "dfgn" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["dfgn.conv_in.bias"] += 1
    save_file(tensors, file)
    with pytest.raises(ValueError, match="another codec, text encoder or base of the same name: network"):
        resume(tiny_data, run, steps=4)


def test_a_merged_tuning_is_a_start_again(tiny_data: Path, base: Path, tmp_path: Path):
    run = tmp_path / "run"
    train(tiny_data, run, tuning(base, "lora", steps=2))
    trainer = Trainer(tiny_data, tmp_path / "next", tuning(run, None))
    assert isinstance(trainer.learner.net.dfgn, DFGN)
    assert trainer.learner.net.adapter is None


def test_what_does_not_fit_is_named(tiny_data: Path, base: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="unknown tune 'dora'; choose one of .*lora"):
        tuning(base, "dora")
    with pytest.raises(ValueError, match="tune=lora tunes a trained model; name it with start_from"):
        recipe_settings("fast", tune="lora")
    with pytest.raises(ValueError, match="leave out size, codec"):
        tuning(base, "lora", size="small", codec="f8")
    with pytest.raises(ValueError, match="tune_options are for a method"):
        tuning(base, None, tune_options={"rank": 2})
    with pytest.raises(ValueError, match="lora has no option heads"):
        Trainer(tiny_data, tmp_path / "a", tuning(base, "lora", tune_options={"heads": 2}))
    with pytest.raises(ValueError, match="holds no trained model"):
        Trainer(tiny_data, tmp_path / "b", tuning(tmp_path, "lora"))
    with pytest.raises(ValueError, match=r"predicts v_prediction on the flow path.*--set objective.path=flow"):
        other = {"path": "ddpm", "prediction": "epsilon"}
        Trainer(tiny_data, tmp_path / "c", tuning(base, "lora", objective=other, residual_to_known=False))


def test_the_base_may_make_stickers_of_another_size(tiny_data: Path, base: Path, tmp_path: Path):
    larger = tmp_path / "larger"
    shutil.copytree(base / "pipeline", larger)
    index = json.loads((larger / "model_index.json").read_text())
    (larger / "model_index.json").write_text(json.dumps({**index, "sample_size": 32}))
    train(tiny_data, tmp_path / "run", tuning(larger, None, steps=1))
    pipeline = load_pipeline(tmp_path / "run")
    assert pipeline.config.sample_size == 16
    assert pipeline("a red cat", num_frames=2).stickers[0].frames.shape == (2, 16, 16, 4)


def test_the_recipe_of_the_paper_leaves_the_network_to_the_base(base: Path):
    assert recipe_settings("paper", start_from=str(base)).size == "tiny"
    assert recipe_settings("paper", start_from=str(base)).objective.path == "ddpm"
