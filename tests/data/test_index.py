"""Splits and copies of a dataset as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdtf.data.dataset import StickerDataset
from rdtf.data.duplicates import NearPairs
from rdtf.data.index import _copies, assign_splits, draw
from rdtf.data.prepare import PrepareReport, prepare
from rdtf.io.write import save_sticker
from rdtf.pixels import fit
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker
from tests.data.test_prepare import reasons, settings, write_still

NUMBERS = (1, 2, 4, 5, 7, 9, 12, 16)


def test_splits_keep_their_shares_and_stay_when_stickers_are_added() -> None:
    shares = (0.5, 0.3, 0.2)
    for seed in (0, 1):
        draws = np.array([draw(seed, f"key {i}") for i in range(2000)])
        alone, nobody = np.arange(2000), np.full(2000, -1, np.int8)
        splits = assign_splits(alone, alone, draws, nobody, shares)
        np.testing.assert_allclose(np.bincount(splits) / 2000, shares, atol=0.04)
        part = assign_splits(alone[:50], alone[:50], draws[:50], nobody[:50], shares)
        np.testing.assert_array_equal(part, splits[:50])
    assert draw(0, "a") == draw(0, "a") != draw(1, "a")


def test_a_label_has_one_split_and_metadata_has_its_will() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    keys = np.array([5, 3, 9, 8, 7, 1, 2])
    draws = np.array([0.9, 0.1, 0.1, 0.1, 0.9, 0.95, 0.1])
    asked = np.array([-1, -1, -1, 1, 0, -1, -1], np.int8)
    splits = assign_splits(labels, keys, draws, asked, (0.5, 0.25, 0.25))
    # 0: by its smallest key, 3; 1: each asking row as asked, the other as the first asking one; 2: by key 1.
    assert splits.tolist() == [0, 0, 1, 1, 0, 2, 2]
    order = np.array([6, 3, 1, 0, 2, 5, 4])
    again = assign_splits(labels[order], keys[order], draws[order], np.full(7, -1, np.int8), (0.5, 0.25, 0.25))
    assert again.tolist() == [2, 2, 0, 0, 2, 2, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight stickers, each as a small WebP and a larger GIF, and a still."""
    root = tmp_path_factory.mktemp("twins") / "set"
    for number in NUMBERS:
        sticker = draw_sticker(0, number, size=64)
        save_sticker(Sticker(fit(sticker.frames, 48), sticker.durations), root / f"a{number:02}.webp")
        save_sticker(sticker, root / f"b{number:02}.gif")
    write_still(root / "still.png", 3)
    files = [(f"{side}{number:02}", end) for number in NUMBERS for side, end in (("a", "webp"), ("b", "gif"))]
    lines = [json.dumps({"file_name": f"{name}.{end}", "caption": f"caption of {name}"}) for name, end in files]
    (root / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    return root


def prepared(folder: Path, out: Path, **values: Any) -> PrepareReport:
    return prepare([folder], out, settings(size=32, splits=(0.4, 0.3, 0.3), **values))


@pytest.mark.parametrize("split_by", ["content", "caption"])
def test_near_duplicates_never_are_on_two_sides(folder: Path, tmp_path: Path, split_by: str) -> None:
    report = prepared(folder, tmp_path / "data", split_by=split_by)
    data = StickerDataset(tmp_path / "data")
    records = [data.record(i) for i in range(len(data))]
    groups = {record.source[4:7]: (record.group, record.split) for record in records}
    assert report.manifest.groups == 8 and len(records) == 17 and not report.rejected
    assert groups.pop("sti")[0] == -1
    assert {group for group, _ in groups.values()} == set(range(8))
    assert all(groups["a" + name[1:]] == groups[name] for name in groups)
    assert len({split for _, split in groups.values()}) > 1
    assert data.column("group") == [record.group for record in records]


def test_copies_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    report = prepared(folder, tmp_path / "data", duplicates="drop")
    data = StickerDataset(tmp_path / "data")
    assert len(data) == 9 == sum(report.manifest.counts.values()) == sum(report.manifest.sources.values())
    assert set(data.column("group")) == {-1} and report.manifest.groups == 0
    copies = {f"set/b{number:02}.gif": f"near-duplicate of set/a{number:02}.webp" for number in NUMBERS}
    assert reasons(report) == copies
    kept = prepared(folder, tmp_path / "kept")
    assert kept.manifest.fingerprint != report.manifest.fingerprint


def test_of_a_chain_only_copies_of_what_stays_are_left_out() -> None:
    rows = np.array([[0, 1], [1, 2], [2, 3], [0, 3], [0, 4], [4, 5]])
    assert _copies(NearPairs(rows, np.array([True, True, True, True, False, True]))) == {1: 0, 3: 0, 5: 4}


def test_checks_are_counted_and_stored(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    save_sticker(Sticker(np.full((3, 20, 20, 4), 255, np.uint8), np.full(3, 50.0)), root / "poser.png")
    write_still(root / "look.png", 2)
    (root / "look.txt").write_text("look <b>here</b> https://example.com", "utf-8")
    report = prepare([root], tmp_path / "data", settings(splits=(1.0, 0.0, 0.0)))
    data = StickerDataset(tmp_path / "data")
    assert report.manifest.checks == {"cleaned": 1, "opaque": 1, "still_animation": 1}
    look, poser = data.record(0), data.record(1)
    assert look.caption == "look here" and look.caption_checks == ("cleaned",)
    assert poser.checks == ("still_animation", "opaque") and poser.seam is None


def test_fixes_are_made_in_preparation(tmp_path: Path) -> None:
    frames = np.full((1, 60, 60, 4), 255, np.uint8)
    frames[:, 20:40, 20:40] = (200, 10, 10, 255)
    save_sticker(Sticker(frames, np.ones(1)), tmp_path / "set" / "a.png")
    prepare([tmp_path / "set"], tmp_path / "data", settings(background="transparent", crop="content"))
    data = StickerDataset(tmp_path / "data")
    assert data.record(0).checks == ("opaque",)
    assert (data.frames(0) == (200, 10, 10, 255)).all()
