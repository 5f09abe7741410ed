from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rdtf.codec import load_codec
from rdtf.curriculum import Curriculum, SampleLoss
from rdtf.data.keyframes import CLUSTER_COUNTS
from rdtf.masks import Task
from rdtf.model import DFGN
from rdtf.model.layers import SelfAttention
from rdtf.model.temporal import SpatialTemporalInteraction, TemporalConv
from rdtf.train.optim import lr_factor, make_optimizers
from rdtf.train.settings import RECIPES, TrainSettings, recipe_settings


def test_every_recipe_is_valid_and_named_in_its_settings():
    for name in RECIPES:
        assert recipe_settings(name).recipe == name


@pytest.fixture(scope="module")
def paper() -> TrainSettings:
    """As a run of ``--recipe paper`` resolves it, by way of its config.json."""
    return TrainSettings.model_validate(json.loads(json.dumps(recipe_settings("paper").model_dump())))


@pytest.fixture(scope="module")
def paper_network(paper: TrainSettings) -> DFGN:
    """The recipe's network on the paper's latents of 4 channels, without memory."""
    with torch.device("meta"):
        return DFGN(**{**paper.network(), "latent_channels": 4})


# Row of the paper's Table 6 (and of its text, for what the table leaves out), its value, where the resolved
# configuration has it.
TABLE_6: list[tuple[str, Any, Callable[[TrainSettings, DFGN], Any]]] = [
    ("autoencoder's downscale f", 8, lambda s, n: load_codec(s.codec).downscale),
    ("latent of a frame of 256 px", (4, 32, 32), lambda s, n: (n.conv_out.out_channels, *(latent_side(s),) * 2)),
    ("input channels", 8, lambda s, n: n.conv_in.in_channels),
    ("frames", 8, lambda s, n: s.frames),
    ("widths", (320, 640, 1024, 1280), lambda s, n: tuple(n.config.widths)),
    ("layers a block", 2, lambda s, n: n.config.layers),
    ("layers a block, going up", 3, lambda s, n: len(n.up[0].levels)),
    ("width of an attention head", 64, lambda s, n: n.config.head_dim),
    ("heads at width 1024", 16, lambda s, n: n.down[2].levels[0].spatial.self_attention.heads),
    ("width of the text states", 1024, lambda s, n: n.no_text.shape[-1]),
    ("groups of a norm", 32, lambda s, n: n.norm_out.num_groups),
    ("STI: layers of attention", 1, lambda s, n: sum(isinstance(m, SelfAttention) for m in sti(n).children())),
    ("STI: heads", 8, lambda s, n: sti(n).semantic.heads),
    ("STI: width of a head", 32, lambda s, n: sti(n).semantic.out.in_features // sti(n).semantic.heads),
    ("STI: pooling", 2, lambda s, n: sti(n).pool),
    ("STI: temporal convolutions", 2, lambda s, n: sum(isinstance(m, TemporalConv) for m in sti(n).children())),
    ("STI: their kernel in time", 3, lambda s, n: sti(n).detail1.linear.in_features // sti(n).norm_in.num_channels),
    ("clusters of frames, k", (3, 8), lambda s, n: (min(CLUSTER_COUNTS), max(CLUSTER_COUNTS))),
    ("share of clips from clusters", 1.0, lambda s, n: s.cluster_fraction),
    ("caption words dropped", 0.2, lambda s, n: s.word_dropout),
    ("curriculum", "adaptive", lambda s, n: s.curriculum),
    ("weights of the tasks beside it", {}, lambda s, n: s.task_weights),
    ("K_p, K_i, K_d", (5.0, 3.0, 1.3), lambda s, n: gains(s.curriculum)),
    ("diffusion steps", 1000, lambda s, n: s.objective.make_scheduler().config.num_train_timesteps),
    ("first beta", 0.00085, lambda s, n: float(s.objective.make_scheduler().betas[0])),
    ("last beta", 0.012, lambda s, n: float(s.objective.make_scheduler().betas[-1])),
    ("beta schedule", "scaled_linear", lambda s, n: s.objective.make_scheduler().config.beta_schedule),
    ("prediction", "epsilon", lambda s, n: s.objective.make_scheduler().config.prediction_type),
    ("weights of the steps", None, lambda s, n: s.objective.min_snr),
    ("sampler", "DDIMScheduler", lambda s, n: type(s.objective.make_scheduler()).__name__),
    ("sampling steps", 50, lambda s, n: s.sampling.steps),
    ("eta", 1.0, lambda s, n: s.sampling.eta),
    ("guidance by text", 7.5, lambda s, n: s.sampling.guidance),
    ("guidance by image", 7.5, lambda s, n: s.sampling.image_guidance),
    ("optimiser", ["AdamW"], lambda s, n: [type(o).__name__ for o in optimizers(s, n)]),
    ("learning rate", 1e-5, lambda s, n: optimizers(s, n)[0].param_groups[0]["lr"]),
    ("it stays", [1.0, 1.0, 1.0], lambda s, n: [factor(s, share) for share in (0.0, 0.5, 1.0)]),
    ("steps", 50_000, lambda s, n: s.steps),
    (
        "clips a step: 1 on each of 16 devices",
        (16, 1),
        lambda s, n: (s.batch_size, s.batch_size // s.gradient_accumulation_steps),
    ),
    ("what is trained", "all", lambda s, n: "all" if all(p.requires_grad for p in n.parameters()) else "a part"),
    ("given frames count in the loss", True, lambda s, n: s.loss_on_known),
    ("mask channel, neighbours, residual (ours)", (False, False, 0.0), lambda s, n: extras(n)),
    ("augmented variants, stills apart (ours)", (0, 0.0), lambda s, n: (s.num_augmented, s.still_fraction)),
]


def latent_side(settings: TrainSettings) -> int:
    return 256 // load_codec(settings.codec).downscale


def sti(network: DFGN) -> SpatialTemporalInteraction:
    return network.down[0].levels[0].sti  # type: ignore[return-value,union-attr]


def gains(curriculum: str) -> tuple[float, ...]:
    """Of the controller, from what it makes of losses: P = K_p l + K_i mean + K_d (l - l before)."""
    losses, rows = (1.0, 2.0, 5.0), []
    controller = Curriculum(curriculum)
    for i, loss in enumerate(losses):
        controller.observe([SampleLoss(Task.INTERPOLATION, 3, 0.5, loss)])
        rows.append([loss, np.mean(losses[: i + 1]), loss - losses[max(0, i - 1)]])
    return tuple(np.linalg.solve(np.array(rows), np.array(controller.signals)).round(9).tolist())


def optimizers(settings: TrainSettings, network: DFGN) -> list[torch.optim.Optimizer]:
    values = settings.model_dump(include={"muon", "lr", "muon_lr", "weight_decay"})
    return make_optimizers(network.named_parameters(), **values)


def factor(settings: TrainSettings, share: float) -> float:
    step = int(share * settings.steps)
    return lr_factor(step, share, warmup_steps=settings.warmup_steps, decay=settings.decay)


def extras(network: DFGN) -> tuple[bool, bool, float]:
    return network.config.mask_channel, network.config.known_neighbours, network.config.residual_to_known


@pytest.mark.parametrize(("row", "value", "ours"), TABLE_6, ids=[row for row, _, _ in TABLE_6])
def test_paper_recipe_has_every_row_of_the_papers_table(paper, paper_network, row, value, ours):
    found = ours(paper, paper_network)
    assert found == (pytest.approx(value) if isinstance(value, float) else value), row


def test_the_one_row_that_differs_is_the_codecs(paper: TrainSettings):
    """The paper's autoencoder has no alpha; ours has 16 channels of RGBA, which the network takes beside its 4."""
    assert "latent_channels" not in paper.network()  # the codec decides
    assert load_codec(paper.codec).latent_channels == 16


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


def test_a_start_from_a_trained_model_has_the_measured_rates():
    """The recipe ``tune`` with an adapter or without, unless another recipe is named."""
    for start in (
        {"start_from": "base"},
        {"start_from": "base", "tune": "full"},
        {"start_from": "base", "tune": "lora"},
    ):
        settings = recipe_settings(None, **start)
        assert (settings.recipe, settings.muon, settings.lr) == ("tune", False, 1e-3)
    assert recipe_settings(None).recipe == recipe_settings("fast", start_from="base").recipe == "fast"


def test_settings_survive_json():
    for settings in (
        TrainSettings(),
        recipe_settings("paper", size="tiny", steps=7, sampling={"steps": 3}, max_minutes=1.5, text=["a", "b"]),
        TrainSettings(model={"widths": (16, 32, 32)}, objective={"path": "flow", "uniform_fraction": 0.3}),
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
        ({"caption_dropout": 1.5}, "caption_dropout"),
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
