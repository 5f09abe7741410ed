from __future__ import annotations

import json

import pytest

from rdtf.train.settings import RECIPES, TrainSettings, recipe_settings


def test_every_recipe_is_valid_and_named_in_its_settings():
    for name in RECIPES:
        assert recipe_settings(name).recipe == name


def test_paper_recipe_has_the_papers_numbers():
    paper = recipe_settings("paper")
    assert (paper.objective.path, paper.objective.prediction) == ("ddpm", "epsilon")
    assert (paper.lr, paper.steps, paper.muon, paper.decay) == (1e-5, 50_000, False, False)
    assert (paper.sampling.steps, paper.sampling.eta) == (50, 1.0)
    assert (paper.sampling.guidance, paper.sampling.image_guidance) == (7.5, 7.5)
    assert (paper.word_drop, paper.frames, paper.curriculum, paper.loss_on_known) == (0.2, 8, "adaptive", True)
    network = paper.network()
    assert network["widths"] == (320, 640, 1024, 1280)
    assert not any(network[name] for name in ("mask_channel", "known_neighbours", "residual_to_known"))


def test_overrides_replace_and_nested_ones_merge():
    settings = recipe_settings(
        "paper", size="tiny", steps=7, lr=None, model={"widths": (8, 16, 16)}, sampling={"steps": 3}, objective={}
    )
    assert (settings.size, settings.steps, settings.lr) == ("tiny", 7, 1e-5)
    assert settings.network()["widths"] == (8, 16, 16)
    assert settings.network()["mask_channel"] is False
    assert (settings.sampling.steps, settings.sampling.guidance) == (3, 7.5)
    assert recipe_settings("paper").steps == 50_000  # the recipe itself is untouched
    assert "widths" not in recipe_settings("paper").model


def test_settings_survive_json():
    for settings in (
        TrainSettings(),
        recipe_settings("paper", size="tiny", steps=7, sampling={"steps": 3}, minutes=1.5, text=["a", "b"]),
        TrainSettings(model={"widths": (16, 32, 32)}, objective={"path": "flow", "uniform_share": 0.3}),
    ):
        again = TrainSettings.model_validate(json.loads(json.dumps(settings.model_dump())))
        assert json.dumps(again.model_dump()) == json.dumps(settings.model_dump())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"recipe": "quick"}, "fast, paper"),
        ({"size": "huge"}, "tiny, small, base, paper"),
        ({"curriculum": "hard"}, "adaptive-normalised"),
        ({"frames": 17}, "frames"),
        ({"frames": 0}, "frames"),
        ({"steps": 0}, "steps"),
        ({"batchsize": 4}, "batchsize"),
        ({"objective": {"path": "ddpm"}, "model": {}, "sampling": {"step": 3}}, "sampling.step"),
        ({"objective": {"path": "ddpm", "prediction": "epsilon"}}, "residual_to_known"),
        ({"text_drop": 1.5}, "text_drop"),
        ({"sampling": {"eta": 0.5}}, "eta"),  # the flow path's sampler adds no noise
    ],
)
def test_wrong_settings_are_named(overrides: dict, message: str):
    with pytest.raises(ValueError, match=message):
        recipe_settings(overrides.pop("recipe", "fast"), **overrides)


@pytest.mark.parametrize(
    ("path", "prediction", "wanted", "factor"),
    [
        ("flow", "sample", True, 1.0),
        ("flow", "v_prediction", True, -1.0),  # the velocity is noise minus clip
        ("ddpm", "sample", True, 1.0),
        ("ddpm", "epsilon", False, 0.0),
    ],
)
def test_the_residual_has_the_sign_of_the_clip_in_the_output(path: str, prediction: str, wanted: bool, factor: float):
    objective = {"path": path, "prediction": prediction}
    settings = recipe_settings("fast", objective=objective, residual_to_known=wanted)
    assert settings.network()["residual_to_known"] == factor
