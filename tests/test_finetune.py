"""Fine-tuning on a few stickers: it begins, goes on, holds some out, and ends with a sheet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rdtf import hub
from rdtf.cli import app
from rdtf.copy_decoder import CopyDecoder
from rdtf.data.dataset import StickerDataset, read_manifest
from rdtf.io.write import save_sticker
from rdtf.loading import load_pipeline
from rdtf.sticker import Sticker
from rdtf.text import KnownCaptions
from rdtf.world import draw_sticker
from tests.conftest import SMALLEST_NETWORK
from tests.train.test_run import CrashError, after, crash

SIZE = 16


@pytest.fixture(autouse=True)
def shipped(make_pipeline: Callable, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the model of the package, with settings of its own and a copy decoder."""
    folder = tmp_path_factory.getbasetemp() / "finetune-shipped"
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", folder)
    if not folder.exists():
        make_pipeline(
            SIZE,
            network=SMALLEST_NETWORK,
            guidance=1.5,
            still_first=True,
            copy_decoder=CopyDecoder(widths=(8, 8), references=1),
        ).save_pretrained(folder)
    return folder


def stickers(folder: Path, count: int, still: bool = False) -> Path:
    """Drawn stickers without captions."""
    folder.mkdir()
    for i in range(count):
        drawn = draw_sticker(5, i, size=SIZE)
        save_sticker(Sticker(drawn.frames[:1], np.array([100.0])) if still else drawn, folder / f"{i:02}.png")
    return folder


def tune(*words: object) -> str:
    result = CliRunner().invoke(app, ["finetune", *map(str, words), "--threads", "1"])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def refused(*words: object) -> str:
    result = CliRunner().invoke(app, ["finetune", *map(str, words), "--threads", "1"])
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_twenty_stickers_without_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stopped in the middle by a crash, the same command ends it; another one is refused."""
    folder, run = stickers(tmp_path / "mine", 20), tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(CrashError):
        after(patch, 3, crash)
        CliRunner().invoke(app, ["finetune", str(folder), str(run), "--steps", "4", "--threads", "1"],
                           catch_exceptions=False)  # fmt: skip
    shutil.copy(folder / "00.png", folder / "new.png")
    assert "stickers that have come since" in tune(folder, run, "--steps", 4)
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert (settings["recipe"], settings["start_from"], settings["steps"]) == ("tune", "shipped", 4)
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]
    counts = read_manifest(run / "data").counts
    assert sum(counts.values()) == 20 and 2 <= counts["val"] <= 6

    tuned, base = load_pipeline(run), load_pipeline("shipped")
    assert (tuned.config.guidance, tuned.config.still_first) == (1.5, True)  # the model's own
    assert tuned.copy_decoder is not None
    with Image.open(run / "before-after.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    rows = 3 * min(6, counts["val"])
    assert pixels.shape == (4 + rows * (SIZE + 4), 156 + 8 * (SIZE + 4), 3) or pixels.shape[0] == 4 + rows * (SIZE + 4)
    before, after_ = (pixels[4 + n * (SIZE + 4) :][:SIZE] for n in (1, 2))
    first, rest = slice(148, 148 + SIZE), slice(148 + SIZE + 4, None)
    assert np.array_equal(before[:, first], after_[:, first])  # the given frame
    assert not np.array_equal(before[:, rest], after_[:, rest])
    assert "was begun otherwise (steps 4, now 5)" in refused(folder, run, "--steps", 5)
    assert base.config.sample_size == tuned.config.sample_size == SIZE


def test_minutes_become_steps_that_the_run_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With LoRA on a few stills: the number of steps is measured once and written down."""
    monkeypatch.setattr("rdtf.train.plan._SECONDS", 0.0)
    folder, run = stickers(tmp_path / "mine", 3, still=True), tmp_path / "run"
    said = tune(folder, run, "--tune", "lora", "--minutes", 0.0001)
    settings = json.loads((run / "config.json").read_text())["settings"]
    assert f"0.0001 minutes are {settings['steps']} steps" in said
    assert settings["max_minutes"] is None and settings["tune"] == "lora" and settings["steps"] < 10
    assert len(StickerDataset(run / "data", "val")) == 1 and (run / "before-after.png").is_file()


@pytest.mark.parametrize("asked", [("--replay", 3), ()])
def test_replay_trains_on_what_the_model_draws(tmp_path: Path, shipped: Path, monkeypatch, asked: tuple):
    """The model's own stickers are trained on, never held out, and keep names and styles apart."""
    known = KnownCaptions({"cat": (["noto style"], ["kitten"]), "red kite": ([], [])}, stills=["red kite"])
    known.save(shipped)
    monkeypatch.setattr("rdtf.finetune.REPLAY", 3)
    try:
        folder, run = stickers(tmp_path / "mine", 8), tmp_path / "run"
        tune(folder, run, "--steps", 2, *asked)
        train, val = (StickerDataset(run / "data", split) for split in ("train", "val"))
        replayed = [record for record in map(train.record, range(len(train))) if record.source.startswith("replay/")]
        assert len(train) + len(val) == 11 and len(replayed) == 3
        lengths = {record.caption: record.num_frames for record in replayed}
        assert lengths.keys() == {"cat, noto style", "red kite"}
        assert lengths["red kite"] == 1 < lengths["cat, noto style"]
        tuned = load_pipeline(run).known
        assert tuned is not None and {"cat", "red kite"} <= {*tuned.names} and "cat, noto style" not in tuned.names
        assert "red kite" in tuned.stills and "cat" not in tuned.stills
        assert tuned.fit("kitten").caption == "kitten" or tuned.fit("cat").caption == "cat, noto style"
    finally:
        (shipped / "known_captions.json").unlink()
    assert "use --replay 0" in refused(folder, tmp_path / "other", "--replay", 1)


def test_what_is_missing_is_told(tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch):
    one = stickers(tmp_path / "one", 1)
    assert "at least two are needed" in refused(one, tmp_path / "run")
    assert "lies in it" in refused(one, one / "run") and not (one / "run").exists()
    assert "must be above 0" in refused(one, tmp_path / "run", "--minutes", 0)
    assert "holds no fine-tuning" in refused(one, tmp_path)
    assert "no such folder or archive" in refused(tmp_path / "nowhere", tmp_path / "run")
    assert "unknown tune" in refused(stickers(tmp_path / "two", 2), tmp_path / "run", "--tune", "dora")
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "none")
    assert "carries no model of its own" in refused(one, tmp_path / "run")


def test_near_duplicates_cannot_be_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rdtf.finetune._SEEDS", 2)
    folder = stickers(tmp_path / "mine", 2)
    rows = [{"file_name": f"{i:02}.png", "split": "train"} for i in range(2)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert "no part of the stickers can be held out" in refused(folder, tmp_path / "run")
