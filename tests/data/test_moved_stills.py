"""Stills in simple motions: what moves, how it is described, and what a training does with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.data.dataset import StickerDataset
from rdtf.data.moved_stills import FRAMES, SMALL_MOTIONS, is_moved, move_still, write_moved_stills
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker
from rdtf.whole_figure import MOTIONS


def picture(size: int = 64, margin: int = 0) -> np.ndarray:
    """A red square with a blue upper half."""
    out = np.zeros((size, size, 4), np.uint8)
    out[margin : size - margin, margin : size - margin] = (220, 30, 40, 255)
    out[margin : size // 2, margin : size - margin, :3] = (30, 40, 220)
    return out


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("margin", [0, 12])
def test_the_picture_moves_and_stays_whole(motion: str, margin: int) -> None:
    for seed in range(4):
        moved = move_still(picture(margin=margin), motion, np.random.default_rng(seed))
        assert moved.frames.shape == (FRAMES, 64, 64, 4) and moved.attributes == {"motion": motion}
        alpha = moved.frames[..., 3].astype(int)
        assert (np.abs(np.diff(alpha, axis=0)).max(axis=(1, 2)) > 60).any()
        if motion in ("bounce", "dance", "fly", "jump", "shiver", "spin"):  # neither hidden nor seen from the side
            area = (64 - 2 * margin) ** 2
            assert (alpha.sum((1, 2)) / 255 > 0.3 * area).all()
            seen = moved.frames[alpha > 250][:, :3].astype(int)
            colours = np.array([(220, 30, 40), (30, 40, 220)])
            nearest = np.abs(seen[:, None] - colours).sum(-1).min(1)
            assert (nearest < 30).mean() > 0.85  # the two colours, and a line where they meet


def test_a_turned_picture_lies_upside_down() -> None:
    whole = picture(margin=16)
    turned = move_still(whole, "spin", np.random.default_rng(0)).frames
    blue_rows = [np.mean(np.nonzero((f[..., 2] > 150) & (f[..., 3] > 200))[0]) for f in turned]
    red_rows = [np.mean(np.nonzero((f[..., 0] > 150) & (f[..., 3] > 200))[0]) for f in turned]
    assert any(blue > red + 5 for blue, red in zip(blue_rows, red_rows, strict=True))
    assert any(blue < red - 5 for blue, red in zip(blue_rows, red_rows, strict=True))


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Six stills with captions, a sticker that moves, an empty picture and a broken file."""
    folder = tmp_path / "stills"
    folder.mkdir()
    lines = []
    for i in range(6):
        Image.fromarray(np.roll(picture(40, 6), 3 * i, axis=2), "RGBA").save(folder / f"{i}.png")
        row = {"file_name": f"{i}.png", "caption": f"box {i}", "emoji": "📦", "style": "flat", "license": "CC0-1.0"}
        lines.append(json.dumps(row) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    save_sticker(Sticker.at_fps(np.stack([picture(), picture(margin=9)])), folder / "moves.webp")
    save_sticker(Sticker(np.zeros((1, 8, 8, 4), np.uint8), np.array([100.0])), folder / "empty.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return folder


def test_files_and_metadata(stills: Path, tmp_path: Path) -> None:
    count, problems = write_moved_stills([stills], tmp_path / "moved", size=32)
    assert count == 6 and len(problems) == 1 and any("broken.png" in problem for problem in problems)
    rows = [json.loads(line) for line in (tmp_path / "moved/metadata.jsonl").read_text().splitlines()]
    assert {row["attributes"]["of"] for row in rows} == {f"box {i}" for i in range(6)}
    for row in rows:
        assert row["attributes"]["motion"] in SMALL_MOTIONS and row["attributes"]["emoji"] == "📦"
        assert row["caption"].endswith("ing") and row["license"] == "CC0-1.0" and "style" not in row["attributes"]
        assert read_sticker(tmp_path / "moved" / row["file_name"]).frames.shape[1:] == (32, 32, 4)
    write_moved_stills([stills], tmp_path / "again", size=32, workers=2)
    for file in (tmp_path / "moved").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    write_moved_stills([stills], tmp_path / "turning", size=32, motions=("turn",))
    assert '"turning"' in (tmp_path / "turning/metadata.jsonl").read_text()
    few, _ = write_moved_stills([stills], tmp_path / "few", size=32, limit=2)
    assert few == 2 and len(list((tmp_path / "few").iterdir())) == 3
    for file in (tmp_path / "few").glob("*.webp"):
        assert file.read_bytes() == (tmp_path / "moved" / file.name).read_bytes()


def test_a_dataset_of_them(stills: Path, tmp_path: Path) -> None:
    write_moved_stills([stills], tmp_path / "moved", size=32)
    settings = PrepareSettings(size=32, splits=(1, 0, 0), split_by="emoji", caption_style=True)
    prepare([tmp_path / "moved"], tmp_path / "data", settings)
    dataset = StickerDataset(tmp_path / "data", "train")
    records = [dataset.record(i) for i in range(len(dataset))]
    assert all(is_moved(record.attributes) and record.captions[0].endswith("ing") for record in records)
    assert all(record.num_frames == FRAMES for record in records)


def test_what_is_refused(stills: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not empty"):
        write_moved_stills([stills], stills, size=32)
    with pytest.raises(ValueError, match="no motion 'hop'; there are bounce"):
        write_moved_stills([stills], tmp_path / "out", motions=("jump", "hop"))
    moving = tmp_path / "moving"
    moving.mkdir()
    (stills / "moves.webp").rename(moving / "moves.webp")
    with pytest.raises(ValueError, match="no still sticker was found"):
        write_moved_stills([moving], tmp_path / "out", size=32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moving", "stills"]
