"""Reading of prepared datasets, and what is said about folders that are none."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from rdtf.data.dataset import StickerDataset, pack_frames, read_manifest, unpack_frames
from rdtf.data.prepare import prepare
from tests.data.test_prepare import settings, write_animation, write_still


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stickers")
    for i in range(20):
        write_still(root / "set" / f"still_{i}.png", i)
    write_animation(root / "set" / "moving.webp", 50)
    prepare([root / "set"], root / "data", settings(splits=(0.6, 0.4, 0.0)))
    return root / "data"


@pytest.fixture
def copy(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data, tmp_path / "copy")


def test_splits_part_the_whole(data: Path) -> None:
    whole = StickerDataset(data)
    parts = {name: StickerDataset(data, name) for name in ("train", "val", "test")}
    assert {name: len(part) for name, part in parts.items()} == whole.manifest.counts
    assert len(parts["test"]) == 0 and not list(parts["test"])
    ids = [part.record(i).id for part in parts.values() for i in range(len(part))]
    assert sorted(ids) == sorted(whole.column("id")) and len(set(ids)) == 21
    for name, part in parts.items():
        assert set(part.column("split")) <= {name}
        assert part.column("id") == [part.record(i).id for i in range(len(part))]


def test_stickers_are_typed_whole_and_the_callers_own(data: Path) -> None:
    dataset = StickerDataset(data)
    stickers = list(dataset)
    assert len(stickers) == len(dataset) == 21
    assert dataset.size == 16 and stickers[0].frames.shape == (5, 16, 16, 4)  # "moving" comes first
    assert stickers[0].caption == "moving" and stickers[0].durations.tolist() == [80.0] * 5
    frames = dataset.frames(0)
    frames[:] = 0
    assert dataset.frames(0).any()
    assert dataset.record(-1) == dataset.record(20)
    with pytest.raises(IndexError):
        dataset.record(21)
    with pytest.raises(ValueError, match="no column 'colour'; there are id"):
        dataset.column("colour")


def test_pickles_small_and_equal(data: Path) -> None:
    dataset = StickerDataset(data, "val")
    pickled = pickle.dumps(dataset)
    again = pickle.loads(pickled)
    assert len(pickled) < 1000
    assert again.record(0) == dataset.record(0) and again.fingerprint == dataset.fingerprint


def test_frames_survive_packing() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 4), np.uint8)
    np.testing.assert_array_equal(unpack_frames(pack_frames(frames), 3, 8), frames)
    assert pack_frames(frames) == pack_frames(np.asfortranarray(frames))


def test_folders_that_are_no_dataset(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        StickerDataset(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"no prepared dataset.*rdtf prepare"):
        StickerDataset(tmp_path)
    with pytest.raises(ValueError, match=r"no split 'dev'; it has train \(\d+\), val \(\d+\), test \(0\)"):
        StickerDataset(copy, "dev")
    manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": "rdtf-stickers/99"}), "utf-8")
    with pytest.raises(ValueError, match="format rdtf-stickers/99, this version reads rdtf-stickers/3"):
        StickerDataset(copy)
    (copy / "manifest.json").write_text('{"name": "a web app"}', "utf-8")
    with pytest.raises(ValueError, match="not the manifest of a prepared dataset"):
        read_manifest(copy)
    (copy / "manifest.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match="damaged"):
        read_manifest(copy)


@pytest.mark.parametrize("harm", ["gone", "cut", "other"])
def test_damaged_files_are_named(copy: Path, harm: str) -> None:
    (file,) = copy.glob("stickers-00000-*.arrow")
    if harm == "gone":
        file.unlink()
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        manifest = json.loads((copy / "manifest.json").read_text("utf-8"))
        manifest["files"][file.name] += 1
        (copy / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ValueError, match=r"stickers-00000-\w+\.arrow.*prepare the dataset anew"):
        StickerDataset(copy)


def test_frames_that_changed_on_the_disk_are_named(copy: Path) -> None:
    """A bit in the pixels of one sticker: everything else can still be read."""
    dataset = StickerDataset(copy)
    (file,) = copy.glob("stickers-00000-*.arrow")
    data = bytearray(file.read_bytes())
    packed = bytes(pack_frames(dataset.frames(1)))
    at = data.index(packed)
    for place, reason in ((at + len(packed) // 2, "inside"), (at, "its first byte")):
        harmed = bytearray(data)
        harmed[place] ^= 4
        file.write_bytes(harmed)
        found = StickerDataset(copy)
        with pytest.raises(ValueError, match="the frames of .* are damaged; prepare the dataset anew"):
            found.frames(1)
        assert np.array_equal(found.frames(0), dataset.frames(0)), reason
