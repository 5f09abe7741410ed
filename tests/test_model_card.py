"""Model cards: what a run tells, what a bare folder tells, and the pictures of the best, the worst and random ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.data.dataset import StickerDataset
from rdtf.text import KnownCaptions
from rdtf.train.settings import changed_settings, recipe_settings
from tests.conftest import SMALLEST_NETWORK

SIZE = 16
ESTIMATE = {"value": 14.25, "low": 13.0, "high": 15.5, "n": 8}


@pytest.fixture(scope="module")
def run(make_pipeline: Callable, split_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a run as a training leaves them, around a network that nothing has trained."""
    folder = tmp_path_factory.mktemp("models") / "my run"
    make_pipeline(SIZE, network=SMALLEST_NETWORK).save_pretrained(folder / "pipeline")
    settings = recipe_settings(
        "tune", start_from="/home/me/secret/base", steps=7, frames=6, threads=1, word_dropout=0.5
    )
    config = {"settings": settings.model_dump(mode="json"), "data": str(split_data)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "log.jsonl").write_text('{"step": 6, "seconds": 1}\n{"step": 7, "seconds": 5400.0}\n')
    return folder


@pytest.fixture(scope="module")
def report(split_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``rdtf evaluate`` writes; the later a sticker the better its figure."""
    data = StickerDataset(split_data, "val")
    ids = data.column("id")
    task = {
        "pattern": "10000000",
        "clips": len(ids),
        "methods": {
            "model": {"psnr_white": ESTIMATE, "flicker": ESTIMATE},
            "crossfade": {"psnr_white": {**ESTIMATE, "value": 15.75}},
        },
        "ratios": {"model": {"half_transparent": {**ESTIMATE, "value": 1.25}}},
        "over_crossfade": {**ESTIMATE, "value": -1.5},
        "by_clip": [10.0 + i for i in range(len(ids))],
    }
    facts: dict[str, Any] = {
        "fingerprint": data.fingerprint, "splits": ["val"], "steps": 1, "samples": 2, "seed": 3, "stickers": ids,
        "frames": {"from one image": task}, "left_out": {"flow": "no <OpenCV>"},
        "generation": {"text": {"clips": 8, "motion energy": ESTIMATE}},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("report") / "evaluation.json"
    path.write_text(json.dumps(facts))
    return path


def card(*words: object) -> str:
    result = CliRunner().invoke(app, ["card", *map(str, words)])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return (Path(words[2]) / "README.md").read_text("utf-8")  # type: ignore[arg-type]


def test_the_card_of_a_run(run: Path, report: Path, split_data: Path, tmp_path: Path):
    text = card(run, "-o", tmp_path, "--evaluation", report, "--licence", "CC BY 4.0")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "rdtf" and "stickers" in front["tags"]

    [command] = [line for line in text.splitlines() if line.startswith("rdtf train")]
    assert command.startswith("rdtf train data 'my run' --recipe tune") and "--set steps=7" in command
    assert "--set start_from=base" in command and "--set word_dropout=0.5" in command and "secret" not in text
    told = json.loads(text.partition("```json\n")[2].partition("```")[0])
    assert changed_settings(told, {}).word_dropout == 0.5  # settings that the training takes
    assert not {"size", "model", "codec", "text"} & told.keys()  # the model that it began with decides these
    assert "7 optimiser steps took 1.50 hours" in text and "weights of base" in text

    data = StickerDataset(split_data)
    [(named, count)] = data.manifest.licenses.items()
    assert f"| world | {len(data)} |" in text and f"| {named} | {count} |" in text
    assert data.fingerprint in text
    network = run / "pipeline" / "dfgn"
    assert f"| {sum(file.stat().st_size for file in network.iterdir()):,} |" in text
    held = StickerDataset(split_data, "val")
    assert f"| from one image | 10000000 | {len(held)} | 14.250 \\[13.000, 15.500\\] | 15.750" in text
    assert "| task | flicker | half transparent, made / real |" in text
    assert "| from one image | 14.250 \\[13.000, 15.500\\] | 1.250 \\[13.000, 15.500\\] |" in text
    assert "Not measured: flow (no &lt;OpenCV&gt;)." in text
    assert "1.50 dB" in text.partition("cannot do")[2]  # worse than a cross-fade

    assert f"The {len(held) // 2} best of {len(held)}" in text
    for name, index in (("best", len(held) - 1), ("worst", 0)):
        assert f"({name}.png)" in text
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape[0] == 4 + 2 * (len(held) // 2) * (SIZE + 4)
        first, alpha = held.frames(index)[0][..., :3], held.frames(index)[0][..., 3] == 255
        shown = pixels[4 : 4 + SIZE, 148 : 148 + SIZE]
        assert np.array_equal(shown[alpha], first[alpha])  # the real one of that figure
    assert (tmp_path / "random.png").is_file() and "captions from the split val" in text


def test_random_captions_are_known_ones_if_the_model_lists_them(make_pipeline: Callable, tmp_path: Path):
    pipeline = make_pipeline(SIZE, network=SMALLEST_NETWORK)
    pipeline.known = KnownCaptions.of_stickers(
        [("a cat", "noto style", []), ("a dog", "", []), ("a cow", "", [])], {"a dog"}
    )
    pipeline.save_pretrained(tmp_path / "model")
    text = card(tmp_path / "model", "-o", tmp_path / "card")
    assert "3 of 3 of the names that it was trained on" in text and "move as a whole, by the motion in brackets" in text
    assert (tmp_path / "card/random.png").is_file()


def test_the_card_of_a_folder_without_a_run(run: Path, tmp_path: Path, split_data: Path, report: Path):
    alone = (run / "pipeline").rename(run.parent / "alone")
    try:
        text = card(alone, "-o", tmp_path, "--title", "A *model*")
        assert "How it was trained is not known" in text and "licences are not known" in text
        assert "# A \\*model\\*" in text and "has not stated one" in text
        assert "No picture" in text and "rdtf evaluate DATA" in text and not (tmp_path / "random.png").exists()
        text = card(alone, "-o", tmp_path, "--data", split_data)
        assert "no evaluation of single stickers" in " ".join(text.split()) and (tmp_path / "random.png").is_file()
        (tmp_path / "other.json").write_text(json.dumps({**json.loads(report.read_text()), "fingerprint": "0"}))
        text = card(alone, "-o", tmp_path, "--data", split_data, "--evaluation", tmp_path / "other.json")
        assert "no evaluation of single stickers" in " ".join(text.split())
    finally:
        alone.rename(run / "pipeline")
    for words, message in (
        ([run.parent, "-o", tmp_path], "holds no trained model"),
        ([run, "-o", tmp_path, "--evaluation", run / "config.json"], "is no report of rdtf evaluate"),
        ([run, "-o", tmp_path, "--data", tmp_path], "holds no prepared dataset"),
    ):
        result = CliRunner().invoke(app, ["card", *map(str, words)])
        assert result.exit_code == 2 and message in " ".join(result.output.split())
