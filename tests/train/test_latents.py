from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rdtf.codec import load_codec
from rdtf.data import augment
from rdtf.data.augment import Augmentation
from rdtf.data.dataset import StickerDataset
from rdtf.pixels import to_tensor
from rdtf.train import latents
from rdtf.train.latents import LatentCache, cache_folder


@pytest.fixture
def dataset(tiny_data: Path) -> StickerDataset:
    return StickerDataset(tiny_data, "train")


class Counting:
    """A codec that counts the frames it encodes."""

    def __init__(self, spec: str = "pixel2") -> None:
        self._codec, self.frames = load_codec(spec), 0
        self.latent_channels, self.downscale = self._codec.latent_channels, self._codec.downscale
        self.fingerprint = self._codec.fingerprint

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        self.frames += len(frames)
        return self._codec.encode(frames)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._codec.decode(latents)


def test_latents_are_the_codecs(dataset: StickerDataset, tmp_path: Path):
    codec = load_codec("pixel2")
    cache = LatentCache(dataset, codec, tmp_path, num_augmented=1)
    for i in (0, 7, len(dataset) - 1):
        frames = dataset.frames(i)
        order = list(range(len(frames)))[::-1]
        record = dataset.record(i)
        variants = [frames, frames[:, :, ::-1], cache.augmentation(record, 2).apply(frames)]
        for variant, changed in enumerate(variants):
            expected = codec.encode(to_tensor(np.ascontiguousarray(changed[order]))).movedim(0, 1)
            clip = cache.clip(i, order, variant)
            assert clip.dtype == torch.float32
            assert torch.allclose(clip, expected, atol=1e-3)  # kept in half precision


def test_frame_features_are_the_plain_variants_latents_in_time_order(dataset: StickerDataset, tmp_path: Path):
    cache = LatentCache(dataset, load_codec("pixel2"), tmp_path, num_augmented=2)
    for i in range(len(dataset)):
        looks = cache.frame_features(i)
        clip = cache.clip(i, range(dataset.record(i).num_frames), 0)
        np.testing.assert_array_equal(looks, clip.movedim(1, 0).flatten(1).numpy())


def test_they_are_computed_once(dataset: StickerDataset, tmp_path: Path):
    codec = Counting()
    first = LatentCache(dataset, codec, tmp_path)
    assert codec.frames == 2 * sum(dataset.column("num_frames"))
    again = LatentCache(dataset, codec, tmp_path)
    assert codec.frames == 2 * sum(dataset.column("num_frames")) + 1  # one, to compare
    assert torch.equal(first.clip(3, [0], 1), again.clip(3, [0], 1))
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]


def test_a_line_says_what_is_computed_and_only_then(dataset: StickerDataset, tmp_path: Path, capsys):
    for expected in (True, False):
        LatentCache(dataset, load_codec("pixel2"), tmp_path, num_augmented=1)
        frames = 3 * sum(dataset.column("num_frames"))
        assert (f"Encoding {frames} frames of 20 stickers" in capsys.readouterr().err) == expected


def test_the_cache_is_beside_the_data_unless_that_cannot_be_written(tmp_path: Path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    assert cache_folder(data, run) == cache_folder(data, tmp_path / "other") == data / "cache"
    assert (data / "cache").is_dir()

    def refuse(self: Path, **_options: bool) -> None:
        raise PermissionError(self)

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert cache_folder(data, run) == run / "cache"


def test_every_codec_and_number_of_copies_has_its_own_file(dataset: StickerDataset, tmp_path: Path):
    LatentCache(dataset, load_codec("pixel2"), tmp_path)
    LatentCache(dataset, load_codec("pixel"), tmp_path)
    LatentCache(dataset, load_codec("pixel"), tmp_path, num_augmented=1)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("changed", ["draw", "apply", "recolour", "premultiply", "pixels"])
def test_other_augmentation_or_pixels_are_another_cache(
    dataset: StickerDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
):
    """As after an update that changes what is made of the frames."""
    old = LatentCache(dataset, load_codec("pixel2"), tmp_path, num_augmented=1)
    if changed == "draw":
        draw = Augmentation.draw
        monkeypatch.setattr(Augmentation, "draw", lambda *args, **options: replace(draw(*args, **options), scale=0.5))
    elif changed == "apply":
        apply = Augmentation.apply
        monkeypatch.setattr(Augmentation, "apply", lambda self, frames: apply(self, frames) // 2)
    elif changed == "recolour":
        monkeypatch.setattr(augment, "turn_hue", lambda frame, steps: frame)
    elif changed == "premultiply":
        monkeypatch.setattr(augment, "premultiply", lambda frames: frames)
    else:
        monkeypatch.setattr(latents, "to_tensor", lambda frames: to_tensor(frames) / 2)
    new = LatentCache(dataset, load_codec("pixel2"), tmp_path, num_augmented=1)
    assert len(list(tmp_path.glob("latents-*.npy"))) == 2
    assert any(not torch.equal(old.clip(i, [0], 2), new.clip(i, [0], 2)) for i in range(len(dataset)))


def test_another_version_of_the_codec_computes_the_cache_again(
    dataset: StickerDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Its weights are the same, and so is its fingerprint."""
    old, codec = LatentCache(dataset, Counting(), tmp_path), Counting()
    before, encode = old.clip(3, [0], 1), codec.encode
    codec.encode = lambda frames: 0.5 * encode(frames)
    assert torch.allclose(LatentCache(dataset, codec, tmp_path).clip(3, [0], 1), 0.5 * before, atol=1e-3)
    assert "is of another version of the codec" in " ".join(capsys.readouterr().err.split())
    count = codec.frames
    LatentCache(dataset, codec, tmp_path)
    assert codec.frames == count + 1


def test_an_interrupted_computation_leaves_nothing(dataset: StickerDataset, tmp_path: Path):
    codec = Counting()
    encode, codec.encode = codec.encode, lambda frames: 1 / 0
    with pytest.raises(ZeroDivisionError):
        LatentCache(dataset, codec, tmp_path)
    assert not list(tmp_path.iterdir())
    codec.encode = encode
    assert LatentCache(dataset, codec, tmp_path).clip(0, [0], 0).isfinite().all()


def test_latents_that_changed_on_the_disk_are_named(dataset: StickerDataset, tmp_path: Path):
    codec = load_codec("pixel2")
    cache = LatentCache(dataset, codec, tmp_path)
    expected = cache.clip(2, [0], 1)
    (file,) = tmp_path.glob("*.npy")
    count = dataset.record(2).num_frames
    block = cache._rows(2, 1)
    at = file.read_bytes().index(block.tobytes())
    with file.open("r+b") as bytes_of:
        bytes_of.seek(at + block.nbytes - 1)
        bytes_of.write(b"\x7f")
    again = LatentCache(dataset, codec, tmp_path)
    assert torch.equal(again.clip(2, [0], 0), cache.clip(2, [0], 0))  # another variant of it, untouched
    with pytest.raises(ValueError, match=r"latents-.*\.npy is damaged: .* of sticker 2 .*; delete the file"):
        again.clip(2, [count - 1], 1)
    file.unlink()
    assert torch.equal(LatentCache(dataset, codec, tmp_path).clip(2, [0], 1), expected)


def cut_to(part: float) -> Callable[[Path], None]:
    return lambda file: file.write_bytes(file.read_bytes()[: round(part * file.stat().st_size)])


def other_shape(file: Path) -> None:
    with file.open("wb") as out:
        np.save(out, np.zeros((3, 4), np.float16))
        np.save(out, np.zeros((3, 2), np.uint32))


@pytest.mark.parametrize("harm", [cut_to(0), cut_to(1e-4), cut_to(0.5), cut_to(0.999), other_shape])
def test_a_file_that_is_not_whole_is_computed_again(
    dataset: StickerDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], None]
):
    codec = Counting()
    expected = LatentCache(dataset, codec, tmp_path).clip(3, [0], 1)
    (file,) = tmp_path.glob("*.npy")
    harm(file)
    before = codec.frames
    assert torch.equal(LatentCache(dataset, codec, tmp_path).clip(3, [0], 1), expected)
    assert codec.frames == 2 * before
    assert "is not whole" in capsys.readouterr().err
