from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import rdtf.train.codec as training
from rdtf.codec import StickerAutoencoder, load_codec
from rdtf.data.dataset import StickerDataset
from rdtf.pixels import to_tensor
from rdtf.train.codec import (
    CodecReport,
    CodecTrainSettings,
    Fidelity,
    augment,
    fidelity,
    reconstruction_loss,
    train_codec,
)
from tests.test_codec import drawn_stickers

QUICK = {"steps": 4, "batch": 4, "threads": 1}


class FakeDataset(StickerDataset):
    """Prepared stickers of drawn faces: 8 clips of 3 frames for training, 2 held out, none for ``test``."""

    size = 16
    fingerprint = "drawn"

    def __init__(self, folder: Path, split: str | None = None) -> None:
        frames = drawn_stickers(self.size, 30).reshape(10, 3, self.size, self.size, 4)
        self._clips = {"train": frames[:8], "val": frames[8:], "test": frames[:0]}[split or "train"]
        if "empty" in str(folder):
            self._clips = frames[:0]

    def __len__(self) -> int:
        return len(self._clips)

    def frames(self, i: int) -> np.ndarray:
        return self._clips[i]


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Drawn stickers, and an autoencoder of a few thousand parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "StickerDataset", FakeDataset)
        patch.setattr(
            StickerAutoencoder, "for_downscale", lambda downscale: StickerAutoencoder(8, (8, 16), (1, 1), (1, 1))
        )
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a codec after 80 steps."""
    out = tmp_path_factory.mktemp("codec") / "out"
    train_codec([Path("a")], out, CodecTrainSettings(**{**QUICK, "steps": 80}))
    return out


def test_training_learns_writes_and_reports(trained: Path, tmp_path: Path) -> None:
    first = train_codec([Path("a")], tmp_path / "first", CodecTrainSettings(**{**QUICK, "steps": 1}))
    report = CodecReport.model_validate_json((trained / "report.json").read_text())
    assert report.final_loss < 0.7 * first.final_loss
    assert report.held_out["a"].rgba > first.held_out["a"].rgba + 3
    assert (report.steps, report.frames_seen, report.stopped_early) == (80, 320, False)
    assert report.data == {"a": "drawn"}
    assert set(json.loads((trained / "report.json").read_text())["held_out"]["a"]) == set(Fidelity.model_fields)

    codec = load_codec(trained)
    assert codec.fingerprint == report.fingerprint
    held_out = FakeDataset(Path("a"), "val")._clips.reshape(-1, 16, 16, 4)
    assert fidelity(codec, held_out) == report.held_out["a"]
    sheets = [Image.open(trained / f"reconstructions-a-{shade}.png") for shade in ("light", "dark")]
    assert sheets[0].size == sheets[1].size
    assert sheets[0].getpixel((200, 5)) != sheets[1].getpixel((200, 5))


def test_latents_are_normalised_by_the_stored_statistics(trained: Path) -> None:
    frames = np.concatenate([FakeDataset(Path("a")).frames(i) for i in range(8)])
    latents = load_codec(trained).encode(to_tensor(frames))
    # Statistics were taken over shifted and recoloured frames, hence the slack.
    assert latents.mean().abs() < 0.2
    assert latents.std() == pytest.approx(1, abs=0.2)


def test_same_seed_same_weights(tmp_path: Path) -> None:
    prints = [
        train_codec([Path("a")], tmp_path / str(i), CodecTrainSettings(**QUICK, seed=seed)).fingerprint
        for i, seed in enumerate((0, 0, 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_a_larger_decoder_begins_as_the_old_one_and_keeps_its_latents(tmp_path: Path) -> None:
    old = load_codec("f4")
    assert isinstance(old, StickerAutoencoder)
    frames = to_tensor(FakeDataset(Path("a"), "val").frames(0))
    latents = old.encode(frames)
    larger = old.with_larger_decoder((4, 3))
    assert torch.equal(larger.encode(frames), latents)
    assert torch.equal(larger.decode(latents), old.decode(latents))
    with pytest.raises(ValueError, match="at least"):
        old.with_larger_decoder((2, 3))

    settings = CodecTrainSettings(**QUICK, base="f4", freeze_encoder=True, decoder_blocks=(4, 3), max_latent_noise=0.3)
    report = train_codec([Path("a")], tmp_path / "out", settings)
    trained = load_codec(tmp_path / "out")
    assert torch.allclose(trained.encode(frames), latents, atol=1e-5)
    assert not torch.allclose(trained.decode(latents), old.decode(latents), atol=1e-3)
    assert report.settings.downscale == 4


def test_what_a_codec_goes_on_from_must_fit(tmp_path: Path) -> None:
    for wrong, message in (({"base": "pixel"}, "PixelCodec"), ({"freeze_encoder": True}, "give base")):
        with pytest.raises(ValueError, match=message):
            train_codec([Path("a")], tmp_path / "out", CodecTrainSettings(**QUICK, **wrong))


def test_scale_equivariance_is_the_error_of_averaged_latents() -> None:
    model = StickerAutoencoder.for_downscale(4)
    frames = to_tensor(drawn_stickers(32, 2))
    noise, background = torch.zeros(2, 8, 8, 8), torch.rand(2, 3, 1, 1)
    both = training.codec_loss(model, frames, noise, background, scale_equivariance=0.5, momentum=0.0)
    alone = training.codec_loss(model, frames, noise, background, momentum=0.0)
    halved = torch.nn.functional.avg_pool2d(model.encoder(frames), 2)
    small = torch.stack([frame.unflatten(1, (16, 2)).unflatten(3, (16, 2)).mean((2, 4)) for frame in frames])
    expected = 0.5 * reconstruction_loss(model.decoder(halved), small, background)
    assert (both - alone).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_frame_is_trained_as_it_is_used_whatever_its_batch() -> None:
    model = load_codec("f4")
    assert isinstance(model, StickerAutoencoder)
    frames = to_tensor(drawn_stickers(32, 4))
    latents, stored = model.encode(frames), model.latent_std.clone()
    model.requires_grad_(True)
    noise, background = torch.zeros(4, 8, 8, 8), torch.zeros(4, 3, 1, 1)
    expected = reconstruction_loss(model.decoder(latents), frames, background)
    assert training.codec_loss(model, frames, noise, background, momentum=0.0).item() == pytest.approx(expected.item())

    noise = torch.randn_like(noise)
    loss = training.codec_loss(model, frames, noise, background, momentum=0.0)
    with torch.no_grad():  # an encoder of ten times the spread drowns no noise
        model.encoder.get_submodule("conv_out").weight *= 10  # type: ignore[operator]
        model.encoder.get_submodule("conv_out").bias *= 10  # type: ignore[operator]
        model.latent_mean *= 10
        model.latent_std *= 10
    assert training.codec_loss(model, frames, noise, background, momentum=0.0).item() == pytest.approx(
        loss.item(), rel=1e-3
    )

    training.codec_loss(model, frames, noise, background, momentum=0.5)
    raw = model.encoder(frames).std(dim=(0, 2, 3))
    assert torch.allclose(model.latent_std, (10 * stored + raw) / 2, rtol=1e-3)


def test_half_precision_storage_costs_nothing(trained: Path, tmp_path: Path) -> None:
    frames = FakeDataset(Path("a"), "val").frames(0)
    codec = StickerAutoencoder.from_pretrained(trained)
    with torch.no_grad():
        for parameter in codec.parameters():  # back to weights that float16 cannot hold exactly
            parameter *= 1 + 1e-4 * torch.rand_like(parameter)
    before = fidelity(codec, frames)
    codec.half().save_pretrained(tmp_path / "half")
    again = load_codec(tmp_path / "half")
    assert again.dtype == torch.float32  # type: ignore[attr-defined]
    assert fidelity(again, frames).rgba == pytest.approx(before.rgba, abs=0.05)


def test_ctrl_c_saves_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = training.draw_batch

    def interrupted(datasets: list, settings: CodecTrainSettings, step: int) -> torch.Tensor:
        if step == 2:
            raise KeyboardInterrupt
        return draw(datasets, settings, step)

    monkeypatch.setattr(training, "draw_batch", interrupted)
    report = train_codec([Path("a")], tmp_path / "out", CodecTrainSettings(**QUICK))
    assert report.stopped_early
    assert report.steps == 2
    assert load_codec(tmp_path / "out").fingerprint == report.fingerprint


def test_a_loss_that_is_not_finite_stops_without_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "reconstruction_loss", lambda output, *_: output.sum() * float("nan"))
    with pytest.raises(ValueError, match="learning_rate"):
        train_codec([Path("a")], tmp_path / "out", CodecTrainSettings(**QUICK))
    assert not (tmp_path / "out").exists()


def test_no_stickers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"empty.*train split"):
        train_codec([Path("empty")], tmp_path, CodecTrainSettings(**QUICK))
    with pytest.raises(ValueError, match="folder"):
        train_codec([], tmp_path, CodecTrainSettings(**QUICK))


def test_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(ValueError, match="not empty; choose a new folder"):
        train_codec([Path("a")], tmp_path, CodecTrainSettings(**QUICK))
    assert (tmp_path / "config.json").read_text() == "mine"


def test_sizes_must_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDataset, "size", 18)
    with pytest.raises(ValueError, match="multiples of downscale 4"):
        train_codec([Path("a")], tmp_path, CodecTrainSettings(**QUICK))
    sizes = iter((16, 32))

    class Growing(FakeDataset):
        def __init__(self, folder: Path, split: str | None = None) -> None:
            super().__init__(folder, split)
            self.size = next(sizes)

    monkeypatch.setattr(training, "StickerDataset", Growing)
    with pytest.raises(ValueError, match="one frame size"):
        train_codec([Path("a"), Path("b")], tmp_path, CodecTrainSettings(**QUICK))


def test_settings_reject_nonsense() -> None:
    for wrong in ({"downscale": 5}, {"minutes": 0}, {"stepz": 3}):
        with pytest.raises(ValidationError):
            CodecTrainSettings(**wrong)


def test_minutes_end_the_training(tmp_path: Path) -> None:
    settings = CodecTrainSettings(minutes=0.02, batch=2, threads=1)
    report = train_codec([Path("a")], tmp_path / "out", settings)
    assert report.steps >= 1
    assert report.seconds < 20


def test_loss_is_zero_only_for_equality_and_sees_the_background() -> None:
    target = to_tensor(drawn_stickers(16, 2))
    white, black = torch.ones(2, 3, 1, 1), torch.zeros(2, 3, 1, 1)
    assert reconstruction_loss(target, target, white) == 0
    veil = target.clone()
    veil[:, 3] += 0.2  # alpha too high darkens a white background and leaves a black one alone
    assert reconstruction_loss(veil, target, white) > reconstruction_loss(veil, target, black) > 0


def test_augmentation_keeps_shape_and_varies() -> None:
    frame = drawn_stickers(32, 1)[0]
    rng = np.random.default_rng(0)
    changed = [augment(frame, 64, rng) for _ in range(8)]
    assert all(out.shape == (32, 32, 4) and out.dtype == np.uint8 for out in changed)
    assert len({out.tobytes() for out in changed}) == 8
    assert augment(frame, 16, rng).shape == (16, 16, 4)
