"""The copy decoder: which frames are near, what it may put out, and that it learns to copy what moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rdtf.copy_decoder import CopyDecoder, nearest_known
from rdtf.data.dataset import StickerDataset
from rdtf.loading import load_pipeline
from rdtf.pixels import fit
from rdtf.train.copy_decoder import CopyDecoderReport, CopyDecoderSettings, copy_loss, train_copy_decoder
from tests.conftest import awaken

SIZE = 16


@pytest.fixture
def decoder() -> CopyDecoder:
    return awaken(CopyDecoder(widths=(16, 16, 24), references=3)).eval()


def frames(*shape: int, seed: int = 0) -> Tensor:
    """Valid premultiplied RGBA ``(*shape, 4, 16, 16)``."""
    straight = np.random.default_rng(seed).integers(0, 256, (*shape, 4, SIZE, SIZE)).astype(np.float32)
    straight[..., :3, :, :] *= straight[..., 3:, :, :] / 255
    return torch.from_numpy(straight / 127.5 - 1)


@pytest.mark.parametrize(
    ("marks", "loop", "frame", "wanted"),
    [
        ("10101010", True, 7, [(6, -1), (0, 1), (4, -3)]),
        ("10101010", False, 7, [(6, -1), (4, -3), (2, -5)]),
        ("10000000", False, 3, [(0, -3)]),
        ("10000000", True, 6, [(0, 2)]),
        ("11111000", False, 5, [(4, -1), (3, -2), (2, -3)]),
        ("11111000", True, 6, [(4, -2), (0, 2), (3, -3)]),
        ("00000000", True, 2, []),
    ],
)
def test_the_nearest_known_frames(marks: str, loop: bool, frame: int, wanted: list[tuple[int, int]]):
    known = torch.tensor([[mark == "1" for mark in marks]])
    index, away, exists = nearest_known(known, torch.tensor([loop]), 3)
    found = zip(index[0, frame].tolist(), away[0, frame].tolist(), strict=True)
    assert [pair for pair, there in zip(found, exists[0, frame].tolist(), strict=True) if there] == wanted


def test_the_output_is_valid_and_the_order_of_references_does_not_matter(decoder: CopyDecoder):
    drawn, references = frames(3, seed=1), frames(3, 3, seed=2)
    offsets, exists = torch.tensor([[-1, 1, 3]] * 3), torch.tensor([[True] * 3, [True, False, True], [False] * 3])
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        out = decoder(drawn, references, offsets, exists)
        turned = decoder(drawn, references[:, order], offsets[:, order], exists[:, order])
    assert out.abs().max() <= 1 + 1e-5
    assert (out[:, :3] <= out[:, 3:] + 1e-5).all()
    assert torch.allclose(out, turned, atol=1e-5)


def test_outside_of_training_it_chooses_more_than_it_mixes(decoder: CopyDecoder):
    inputs = frames(2, seed=1), frames(2, 3, seed=2), torch.tensor([[-1, 1, 3]] * 2), torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        _, sharp, _ = decoder._choices(*inputs)
        _, trained, _ = decoder.train()._choices(*inputs)
    expected = trained.square() / trained.square().sum(1, keepdim=True)
    assert torch.allclose(sharp, expected, atol=1e-5)
    assert (sharp.amax(1) > trained.amax(1)).all()


def test_trust_copies_more_from_each_reference(decoder: CopyDecoder):
    drawn, references = frames(1, seed=1), frames(1, 2, seed=2)
    offsets = torch.tensor([[-1, 1]])
    own = {}
    for trust in (0.0, 1.0):
        decoder.trust = trust
        for there in ([False, False], [True, False], [True, True]):
            with torch.no_grad():
                own[trust, sum(there)] = decoder._choices(drawn, references, offsets, torch.tensor([there]))[1][:, -1]
    odds = {key: weight / (1 - weight) for key, weight in own.items()}
    assert (own[0.0, 0] == 1).all() and (own[1.0, 0] == 1).all()
    for count in (1, 2):
        lower = torch.exp(torch.tensor(-decoder.sharpness * count))
        assert torch.allclose(odds[1.0, count], odds[0.0, count] * lower, rtol=1e-3)


def test_trust_is_for_the_clips_that_are_named(decoder: CopyDecoder):
    clips, known, loop = frames(2, 4), torch.tensor([[True, False, False, False]] * 2), torch.tensor([True, True])
    out = {}
    for trust in (0.0, 2.0):
        decoder.trust = trust
        with torch.no_grad():
            out[trust] = decoder.redraw(clips, known, loop)
            some = decoder.redraw(clips, known, loop, trusted=torch.tensor([True, False]))
    torch.testing.assert_close(some, torch.stack([out[2.0][0], out[0.0][1]]))
    assert not torch.allclose(out[0.0], out[2.0])


def test_what_a_missing_reference_shows_does_not_matter(decoder: CopyDecoder):
    drawn, offsets, exists = frames(2, seed=1), torch.tensor([[-1, 1]] * 2), torch.tensor([[True, False], [False] * 2])
    one, other = frames(2, 2, seed=2), frames(2, 2, seed=3)
    other[0, 0] = one[0, 0]
    with torch.no_grad():
        assert torch.equal(decoder(drawn, one, offsets, exists), decoder(drawn, other, offsets, exists))


def test_only_unknown_frames_of_clips_with_known_ones_are_redrawn(decoder: CopyDecoder):
    clips = frames(2, 4)
    known = torch.tensor([[True, False, True, False], [False] * 4])
    with torch.no_grad():
        out = decoder.redraw(clips, known, torch.tensor([True, True]))
    assert torch.equal(out[known], clips[known])
    assert torch.equal(out[1], clips[1])
    assert not torch.isclose(out[0, 1], clips[0, 1]).all()
    assert out.isfinite().all()
    for marks in (torch.zeros(2, 4), torch.ones(2, 4)):  # nothing to copy from, nothing to redraw
        assert torch.equal(decoder.redraw(clips, marks.bool(), torch.tensor([True, False])), clips)


def test_no_time_is_spent_on_references_that_no_frame_has(decoder: CopyDecoder, monkeypatch: pytest.MonkeyPatch):
    clips, known = frames(1, 4), torch.tensor([[True, False, False, False]])
    whole = []
    with torch.no_grad():
        for frame in (1, 2, 3):
            index, away, exists = nearest_known(known, torch.tensor([False]), 3)
            at = index[0, frame], away[0, frame], exists[0, frame]
            whole.append(decoder(clips[0, [frame]], clips[0, at[0]][None], at[1][None], at[2][None]))
        network = CopyDecoder._network
        slots = []

        def watched(self, drawn, references, *rest):
            slots.append(references.shape[1])
            return network(self, drawn, references, *rest)

        monkeypatch.setattr(CopyDecoder, "_network", watched)
        out = decoder.redraw(clips, known, torch.tensor([False]))
    assert slots == [1]
    torch.testing.assert_close(out[0, 1:], torch.cat(whole))


def test_it_learns_to_copy_what_has_moved():
    """A blurred frame is all it sees of the new position; the sharp pixels are in the reference, 2 px away."""
    torch.manual_seed(0)
    decoder = CopyDecoder(widths=(24, 32), references=1)
    optimizer = torch.optim.AdamW(decoder.parameters(), 5e-3)
    losses, plain = [], []
    for step in range(100):
        canvas = torch.nn.functional.pad(frames(8, seed=step)[..., 4:12, 4:12], (4, 4, 4, 4), value=-1.0)
        target = canvas.roll((2, 0), (-2, -1))
        drawn = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(target + 1, (2, 2, 2, 2)), 5, 1) - 1
        offsets, exists = torch.ones(8, 1, dtype=torch.long), torch.ones(8, 1, dtype=torch.bool)
        loss = copy_loss(decoder(drawn, canvas[:, None], offsets, exists), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        plain.append(copy_loss(drawn, target).item())
    assert np.mean(losses[-10:]) < 0.6 * np.mean(plain[-10:])


@pytest.fixture(scope="module")
def model(make_pipeline: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "plain"
    make_pipeline(SIZE, steps=2).save_pretrained(folder)
    return folder


def test_training_makes_a_model_that_loads_and_redraws(
    tmp_path: Path, model: Path, split_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rdtf.train.copy_decoder.CopyDecoder", lambda: CopyDecoder(widths=(8, 8), references=2))
    settings = CopyDecoderSettings(steps=2, clips=2, batch=1, denoising_steps=4)
    report = train_copy_decoder(split_data, model, tmp_path / "sharp", settings)
    assert report.steps == 2 and report.clips == 2 and report.error.keys() == {"decoded", "redrawn"}
    assert CopyDecoderReport.model_validate_json((tmp_path / "sharp/copy_decoder.json").read_text()) == report
    again = train_copy_decoder(split_data, model, tmp_path / "again", settings)
    assert again.final_loss == report.final_loss
    plain, sharp = load_pipeline(model), load_pipeline(tmp_path / "sharp")
    assert plain.copy_decoder is None and sharp.copy_decoder is not None
    clip = next(f for f in map(StickerDataset(split_data).frames, range(20)) if len(f) > 3)
    given = {0: clip[0], 2: clip[2]}
    made = [pipe("", frames=given, num_frames=4, seed=1).stickers[0].frames for pipe in (plain, sharp)]
    for frame in (0, 2):
        assert np.array_equal(made[1][frame], fit(clip[frame][None], SIZE)[0])
    assert not np.array_equal(made[0][1], made[1][1])
    texts = [pipe("a cat", num_frames=2, seed=1).stickers[0].frames for pipe in (plain, sharp)]
    assert np.array_equal(*texts)


@pytest.mark.parametrize("by", ["base", "model"])
def test_training_goes_on_from_another_decoder(
    tmp_path: Path, make_pipeline: Callable, model, split_data: Path, by: str
):
    pipeline = make_pipeline(SIZE, steps=2)
    pipeline.copy_decoder = awaken(CopyDecoder(widths=(8, 8), references=1))
    pipeline.save_pretrained(tmp_path / "trained")
    starts = {"base": (model, str(tmp_path / "trained")), "model": (tmp_path / "trained", None)}
    generator, base = starts[by]
    settings = CopyDecoderSettings(steps=1, clips=1, batch=1, denoising_steps=4, learning_rate=1e-9, base=base)
    train_copy_decoder(split_data, generator, tmp_path / "more", settings)
    found = load_pipeline(tmp_path / "more").copy_decoder
    assert found is not None
    for name, parameter in pipeline.copy_decoder.named_parameters():
        assert torch.allclose(found.get_parameter(name), parameter, atol=1e-6), name


def test_mistakes_are_told_before_any_work(tmp_path: Path, model: Path, split_data: Path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there/mine").touch()
    with pytest.raises(ValueError, match="not empty; choose a new folder"):
        train_copy_decoder(split_data, model, tmp_path / "there", CopyDecoderSettings())
    with pytest.raises(ValueError, match="has no copy decoder to begin with"):
        train_copy_decoder(split_data, model, tmp_path / "new", CopyDecoderSettings(base=str(model)))
    with pytest.raises(ValueError, match="raise denoising_steps"):
        settings = CopyDecoderSettings(min_level=0.9, max_level=0.95, denoising_steps=2)
        train_copy_decoder(split_data, model, tmp_path / "new", settings)


def test_a_larger_frame_copies_single_pixels_of_the_larger_reference(
    decoder: CopyDecoder, monkeypatch: pytest.MonkeyPatch
):
    """The network chooses two pixels to the right and the pixel below that: the large frame is moved by 8 and by 4."""
    large = torch.nn.functional.interpolate(frames(1, 2, seed=4).flatten(0, 1), scale_factor=4.0)[None]
    large[0, 0] += 0.2 * (torch.rand(4, 4 * SIZE, 4 * SIZE, generator=torch.Generator().manual_seed(0)) - 0.5)
    large = torch.cat([large[:, :, :3].minimum(large[:, :, 3:]), large[:, :, 3:]], 2).clamp(-1, 1)
    small = torch.nn.functional.avg_pool2d(large.flatten(0, 1), 4)[None]
    shift = torch.zeros(2, 2, SIZE, SIZE)
    shift[0, 0] = 2 * 2 / SIZE
    scores = torch.full((1, 2, 9, SIZE, SIZE), -40.0)
    scores[0, 0, 7] = 40.0  # the middle of the row below
    network = shift, scores, torch.zeros(1, 5, SIZE, SIZE)
    monkeypatch.setattr(decoder, "_network", lambda *_: network)
    offsets, exists = torch.tensor([[-1, 1]]), torch.tensor([[True, True]])
    out = decoder.enlarged(small[:, 0], small, offsets, exists, large)
    assert torch.allclose(out[0, :, :-4, :-8], large[0, 0, :, 4:, 8:], atol=1e-5)
    assert (out[0, :, :, -8:] == -1).all()  # nothing is known of what lies outside
    assert torch.allclose(
        decoder(small[:, 0], small, offsets, exists)[0, :, :-1, :-2], small[0, 0, :, 1:, 2:], atol=1e-5
    )


def test_larger_clips_keep_given_frames_and_show_what_the_small_ones_show(decoder: CopyDecoder):
    clips = frames(2, 4)
    large = torch.nn.functional.interpolate(clips.flatten(0, 1), scale_factor=3.0).unflatten(0, (2, 4))
    known = torch.tensor([[True, False, True, False], [False] * 4])
    loop = torch.tensor([True, False])
    with torch.no_grad():
        out, small = decoder.redraw(clips, known, loop, large), decoder.redraw(clips, known, loop)
    assert out.shape == large.shape and out.abs().max() <= 1 and (out[:, :, :3] <= out[:, :, 3:]).all()
    assert torch.equal(out[0, [0, 2]], large[0, [0, 2]])
    reduced = torch.nn.functional.avg_pool2d(out.flatten(0, 1), 3).unflatten(0, (2, 4))
    away = (reduced - small).abs().mean((2, 3, 4))
    other = (reduced - small.flip(1)).abs().mean((2, 3, 4))
    assert (away[0, [1, 3]] < 0.5 * other[0, [1, 3]]).all()
