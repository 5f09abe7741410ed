"""Preparation of small folders, whole: what comes in, what is rejected and why, and that nothing else decides."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdtf.data import prepare as prepare_module
from rdtf.data import workers as workers_module
from rdtf.data.dataset import StickerDataset
from rdtf.data.items import Item
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.io.read import read_sticker
from rdtf.sticker import Sticker


def picture(seed: int, size: int = 16) -> np.ndarray:
    """A different blob for each seed."""
    rng = np.random.default_rng(seed)
    frame = np.zeros((size, size, 4), np.uint8)
    y, x = rng.integers(0, size // 2, 2)
    frame[y : y + size // 2, x : x + size // 2] = (*rng.integers(0, 256, 3), 255)
    return frame


def write_still(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)


def write_animation(path: Path, seed: int, count: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(np.roll(picture(seed), 2 * i, axis=1)) for i in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, lossless=True, loop=0)


def settings(**values: Any) -> PrepareSettings:
    return PrepareSettings.model_validate({"size": 16, "workers": 1, **values})


def contents(data: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(data)): file.read_bytes()
        for file in data.rglob("*")
        if file.is_file() and file.name != ".lock" and file.parent.name != "cache"
    }


def reasons(report: prepare_module.PrepareReport) -> dict[str, str]:
    return {rejection.file: rejection.reason for rejection in report.rejected}


# Decoders are named functions of this module, for they travel to the workers by name.
def decode_or_die(item: Item, **kwargs: Any) -> Sticker:
    path = item.path
    if path.stem == "deadly":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.stem == "shy" and not path.with_suffix(".seen").exists():
        path.with_suffix(".seen").touch()
        os._exit(3)
    if path.stem == "waiting":
        time.sleep(60)
    while path.stem == "endless":
        pass
    if path.stem == "odd":
        raise ZeroDivisionError("by a decoder")
    return item.read(**kwargs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    for i in range(12):
        write_still(root / f"still_{i:02d}.png", i)
    for i in range(4):
        write_animation(root / "deep" / f"moving cat {i}.webp", 100 + i, count=2 + 3 * i)
    (root / "README.md").write_text("about", "utf-8")
    (root / ".hidden.png").write_bytes(b"junk")
    (root / "still_03.txt").write_text("a caption beside", "utf-8")
    lines = [
        {"file_name": "still_00.png", "caption": "left arrow", "caption_zh": "猫", "license": "CC0", "split": "test"},
        {"file_name": "still_01.png", "caption": "dog", "attributes": {"body": "dog"}, "emoji": "🐶"},
    ]
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines), "utf-8")
    return root


def test_what_goes_in_comes_out(folder: Path, tmp_path: Path) -> None:
    report = prepare([folder], tmp_path / "data", settings())
    data = StickerDataset(tmp_path / "data")
    assert not report.rejected and report.manifest.passed_over == 4
    assert sum(report.manifest.counts.values()) == len(data) == 16
    assert report.manifest.licenses == {"CC0": 1}
    sources = [data.record(i).source for i in range(len(data))]
    assert sources == sorted(sources)
    assert sources[0] == "set/deep/moving cat 0.webp"
    for i, source in enumerate(sources):
        record, sticker = data.record(i), data.sticker(i)
        original = read_sticker(folder.parent / source, size=16)
        np.testing.assert_array_equal(sticker.frames, original.frames)
        np.testing.assert_array_equal(sticker.durations, original.durations)
        assert record.num_frames == len(original) and len(record.coverage) == len(original)
        assert [len(labels) for labels in record.clusters] == [len(original)] * 6
        for k, labels in zip(range(3, 9), record.clusters, strict=True):
            assert max(labels) < min(k, len(original))
    by_source = {record.source: record for record in map(data.record, range(len(data)))}
    first = by_source["set/still_00.png"]
    assert first.captions == ("left arrow", "猫") and first.split == "test" and first.license == "CC0"
    assert not first.flippable and by_source["set/still_01.png"].flippable
    second = by_source["set/still_01.png"]
    assert second.attributes == {"body": "dog", "emoji": "🐶"}
    assert second.captions == ("dog", "dog face")
    assert by_source["set/still_03.png"].caption == "a caption beside"
    moving = by_source["set/deep/moving cat 2.webp"]
    assert moving.caption == "moving cat" and moving.motion > 0
    assert by_source["set/still_05.png"].motion == 0 and not by_source["set/still_05.png"].loops


def test_the_same_bytes_for_any_number_of_workers(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good, damaged and equal files, files in archives, and near-duplicates, in files of seven rows."""
    monkeypatch.setattr("rdtf.data.rows.ROWS_PER_FILE", 7)
    shutil.copy(folder / "still_02.png", folder / "a_copy.png")
    Image.open(folder / "deep" / "moving cat 3.webp").save(folder / "near.webp", save_all=True, quality=30)
    (folder / "broken.webp").write_bytes((folder / "deep" / "moving cat 1.webp").read_bytes()[:60])
    for i in range(3):
        write_animation(tmp_path / "packed" / f"{i}.webp", 200 + i)
    shutil.copy(folder / "still_04.png", tmp_path / "packed" / "copy.png")
    (tmp_path / "packed" / "metadata.jsonl").write_text('{"file_name": "1.webp", "caption": "in an archive"}', "utf-8")
    for kind in ("zip", "tar"):
        shutil.make_archive(str(folder / f"archive_{kind}"), kind, tmp_path / "packed")
    made = {}
    for workers in (1, 2, 4):
        report = prepare([folder], tmp_path / f"data{workers}", settings(workers=workers))
        made[workers] = contents(tmp_path / f"data{workers}")
    assert made[1] == made[2] == made[4]
    assert [name[:14] for name in sorted(made[1]) if name.startswith("stickers")] == [
        f"stickers-{i:05d}" for i in range(3)
    ]
    assert sum(report.manifest.counts.values()) == 20
    assert len([file for file, why in reasons(report).items() if why.startswith("duplicate of set/")]) == 6


def test_the_same_bytes_over_strange_files(tmp_path: Path) -> None:
    """Over a folder of files that were once read wrongly (RDTF_FAULTS, by default ../shared/faults), where it is."""
    faults = Path(os.environ.get("RDTF_FAULTS", Path(__file__).parents[3] / "shared" / "faults"))
    if not faults.is_dir():
        pytest.skip(f"no folder {faults}; set RDTF_FAULTS")
    made = {}
    for workers in (1, 2, 4):
        prepare([faults], tmp_path / f"data{workers}", settings(size=32, workers=workers))
        made[workers] = contents(tmp_path / f"data{workers}")
    assert made[1] == made[2] == made[4]


def test_every_rejected_file_has_its_reason(folder: Path, tmp_path: Path) -> None:
    write_still(folder / "zz_copy.png", 0)
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(folder / "empty.png")
    (folder / "broken.webp").write_bytes(b"RIFF0000WEBPjunk")
    (folder / "notes.pdf").write_bytes(b"%PDF")
    write_still(tmp_path / "outside.png", 77)
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop").symlink_to(folder)
    with (folder / "metadata.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('\n{"file_name": "gone.png", "caption": "gone"}\n')
    report = prepare([folder], tmp_path / "data", settings())
    why = reasons(report)
    assert why.pop("set/zz_copy.png") == "duplicate of set/still_00.png"
    assert "transparent" in why.pop("set/empty.png")
    assert "not a known sticker format" in why.pop("set/notes.pdf")
    assert "link out of the folder" in why.pop("set/link.png")
    assert "link to a folder" in why.pop("set/loop")
    assert "line 3" in why.pop("set/metadata.jsonl")
    assert why.pop("set/broken.webp")
    assert not why
    assert len(StickerDataset(tmp_path / "data")) == 16
    assert "7 rejected" in report.summary() and "16 stickers" in report.summary()


def test_workers_that_crash_hang_or_fail_cost_one_file_each(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i, name in enumerate(["a", "deadly", "endless", "odd", "shy", "z"]):
        write_still(root / f"{name}.png", i)
    report = prepare([root], tmp_path / "data", settings(time_limit=2, workers=2), decoder=decode_or_die)
    why = reasons(report)
    assert "SIGSEGV" in why["set/deadly.png"]
    assert re.search("processor time|not done after", why["set/endless.png"])  # on a busy machine the clock is first
    assert why["set/odd.png"] == "ZeroDivisionError: by a decoder"
    data = StickerDataset(tmp_path / "data")
    assert [data.record(i).source for i in range(len(data))] == ["set/a.png", "set/shy.png", "set/z.png"]


def test_a_file_that_only_waits_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "WAITING_FACTOR", 8)
    for i, name in enumerate(["waiting", "z"]):
        write_still(tmp_path / "set" / f"{name}.png", i)
    report = prepare([tmp_path / "set"], tmp_path / "data", settings(time_limit=1), decoder=decode_or_die)
    assert reasons(report) == {"set/waiting.png": "not done after 8 s"}


def test_splits_by_a_metadata_field_keep_equal_values_together(tmp_path: Path) -> None:
    rows = []
    for i in range(30):
        write_still(tmp_path / "set" / f"{i}.png", i)
        emoji = f"{i % 10}" if i < 10 else f"{i % 10}\ufe0f"  # as text and as a picture: the same emoji
        rows.append({"file_name": f"{i}.png", "caption": f"drawing {i}"} | ({"emoji": emoji} if i < 29 else {}))
    (tmp_path / "set/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    prepare([tmp_path / "set"], tmp_path / "data", settings(split_by="emoji", splits=(0.4, 0.3, 0.3)))
    data = StickerDataset(tmp_path / "data")
    records = [data.record(i) for i in range(len(data))]
    pairs = {(record.attributes["emoji"][0], record.split) for record in records if record.attributes}
    assert len(pairs) == 10 and len({split for _, split in pairs}) > 1 and len(records) == 30
    with pytest.raises(ValueError, match="no sticker has a metadata field 'emojii'"):
        prepare([tmp_path / "set"], tmp_path / "other", settings(split_by="emojii"))


def test_the_fingerprint_tells_of_every_column(folder: Path, tmp_path: Path) -> None:
    before = prepare([folder], tmp_path / "one", settings()).manifest.fingerprint
    text = (folder / "metadata.jsonl").read_text("utf-8")
    (folder / "metadata.jsonl").write_text(text.replace("\\u732b", "\\u72d7"), "utf-8")  # another second caption
    after = prepare([folder], tmp_path / "two", settings()).manifest.fingerprint
    assert before != after


@pytest.mark.parametrize(
    ("sources", "out", "message"),
    [
        ([], "data", "at least one folder"),
        (["missing"], "data", "no such folder"),
        (["vacant"], "data", "holds no sticker"),
        (["set"], "set/data", "lie within each other"),
        (["set"], ".", "lie within each other"),
        (["set"], "other", "not empty"),
        (["set"], "file", "is a file"),
    ],
)
def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path, sources: list[str], out: str, message: str) -> None:
    (tmp_path / "vacant").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        prepare([tmp_path / name for name in sources], tmp_path / out, settings())


def test_a_dataset_becomes_another_one_only_when_told_to(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare([folder], out, settings())
    with pytest.raises(ValueError, match=r"seed 0 to 3.*--overwrite"):
        prepare([folder], out, settings(seed=3))
    shutil.copytree(folder, tmp_path / "elsewhere" / "set")
    with pytest.raises(ValueError, match=r"other sources.*--overwrite"):
        prepare([tmp_path / "elsewhere" / "set"], out, settings())
    report = prepare([folder], out, settings(seed=3), overwrite=True)
    assert report.manifest.settings["seed"] == 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious").touch()
    with pytest.raises(ValueError, match="no prepared dataset"):
        prepare([folder], other, settings(), overwrite=True)
    assert (other / "precious").exists()


def test_no_usable_sticker_at_all(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.gif").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"none of the 1 stickers.*\n.*set/a\.gif"):
        prepare([tmp_path / "set"], tmp_path / "data", settings())
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [".lock", "cache"]
    write_still(tmp_path / "set" / "b.png", 1)
    prepare([tmp_path / "set"], tmp_path / "data", settings())  # the folder is as good as a new one


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        settings(splits=(0.9, 0.2, 0.1))
    with pytest.raises(ValueError, match="extra"):
        settings(colour="red")
    assert pickle.loads(pickle.dumps(settings(seed=3))).seed == 3


@pytest.mark.stickers
def test_real_stickers(real_stickers: Path, tmp_path: Path) -> None:
    for name, ending in (("animated", "*.json"), ("gif", "*.gif"), ("static", "*.png")):
        (tmp_path / name).mkdir()
        for file in sorted((real_stickers / name).glob(ending))[::40][:6]:
            shutil.copy(file, tmp_path / name)
    report = prepare([tmp_path / name for name in ("animated", "gif", "static")], tmp_path / "data", settings(size=64))
    assert not report.rejected
    data = StickerDataset(tmp_path / "data")
    for record in map(data.record, range(len(data))):
        assert 0 < max(record.coverage) <= 1 and (record.num_frames > 1) == (not record.source.startswith("static/"))
        if record.num_frames > 1:
            assert record.motion > 0 and len(set(record.clusters[0])) == 3
