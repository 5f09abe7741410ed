"""Recorded passes, on a processor: what is passed is the same, and nothing in it waits for an answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

import rdtf.train.cuda_graphs as graphs
from rdtf.masks import weighted_loss
from rdtf.model import DFGN
from rdtf.train.cuda_graphs import RecordedPasses
from rdtf.train.step import Learner
from tests.conftest import awaken
from tests.train.test_run import settings


class Recorder:
    """Stands in for the GPU's: keeps the shapes that it was asked for."""

    def __init__(self) -> None:
        self.shapes: list[list[tuple[int, ...]]] = []

    def __call__(self, module: nn.Module, like: tuple[torch.Tensor, ...]) -> nn.Module:
        self.shapes.append([tuple(tensor.shape) for tensor in like])
        assert like[6].requires_grad and not like[0].requires_grad
        return module


def learner(data: Path, run: Path, recorder: Recorder | None = None) -> Learner:
    made = Learner(data, run, settings(batch_size=6, frames=5))
    awaken(made.net)
    if recorder is not None:
        made.recorded = RecordedPasses(made.net, recorder)
        made.source.one_batch = True
    return made


def test_a_processor_records_nothing(tiny_data: Path, tmp_path: Path):
    made = learner(tiny_data, tmp_path)
    assert made.recorded is None and not made.source.one_batch


def test_a_batch_in_one_padded_pass_is_the_same_step(tiny_data: Path, tmp_path: Path):
    recorder = Recorder()
    plain, recorded = learner(tiny_data, tmp_path / "a"), learner(tiny_data, tmp_path / "b", recorder)
    found = []
    for made in (plain, recorded):
        batches = made.source.batches(3, 0.2)
        frames = sum(int(batch.valid.sum()) for batch in batches)
        losses = torch.zeros(6)
        for batch in batches:
            t, eps = made.noise(batch, 3)
            each = made.losses(batch, t, eps)
            weighted_loss(each, batch.valid, frames).backward()
            losses[list(batch.positions)] = each.detach()
        found.append((len(batches), losses, {name: p.grad for name, p in made.named.items()}))
    (passes, losses, gradients), (one, losses_recorded, gradients_recorded) = found
    assert passes > one == 1
    torch.testing.assert_close(losses_recorded, losses, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        other = gradients_recorded[name]
        assert (gradient is None) == (other is None), name
        if gradient is not None:
            torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_one_recording_serves_all_batches_of_a_shape(tiny_data: Path, tmp_path: Path):
    recorder = Recorder()
    made = learner(tiny_data, tmp_path, recorder)
    for _ in range(4):
        made.train_step(0.3)
    assert made.recorded is not None and made.recorded.count == len(recorder.shapes) == 1
    assert recorder.shapes[0][0][:3] == (6, made.codec.latent_channels, 5)  # all clips, all frames
    assert recorder.shapes[0][6][1] % 8 == 0  # words


def test_smaller_batches_and_other_networks_are_passed_without(tiny_data: Path, tmp_path: Path):
    recorder = Recorder()
    made = learner(tiny_data, tmp_path, recorder)
    made.source.one_batch = False
    batches = made.source.batches(0, 0.3)
    assert all(len(batch) < 6 for batch in batches)
    for batch in batches:
        made.losses(batch, *made.noise(batch, 0))
    made.source.one_batch = True
    (whole,) = made.source.batches(0, 0.3)
    made.losses(whole, *made.noise(whole, 0), made.net)
    assert recorder.shapes == []


def test_there_is_an_end_to_recordings(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "_MOST", 0)
    recorder = Recorder()
    made = learner(tiny_data, tmp_path, recorder)
    assert torch.isfinite(torch.tensor(made.train_step(0.3)["loss"]))
    assert recorder.shapes == []


def test_a_pass_never_waits_for_the_gpu(make_network: Callable[..., DFGN], monkeypatch: pytest.MonkeyPatch):
    # On the meta device there are no numbers: whatever asked for one would fail, as it would within a recording.
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # which it does not know
    network = make_network().to("meta")
    b, f, words = 2, 4, 8
    clip = torch.randn(b, 4, f, 8, 8, device="meta")
    masks = [torch.ones(b, f, dtype=torch.bool, device="meta") for _ in range(2)]
    states = torch.randn(b, words, 16, device="meta", requires_grad=True)
    shown = torch.ones(b, words, dtype=torch.bool, device="meta")
    loop, level = torch.zeros(b, dtype=torch.bool, device="meta"), torch.zeros(b, device="meta")
    out = graphs._Pass(network)(clip, level, clip, *masks, loop, states, shown)
    out.sum().backward()
    assert states.grad is not None and states.grad.shape == states.shape
