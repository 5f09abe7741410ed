from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.train_namer as training
from benchmarks.train_namer import NamerReport, NamerTrainSettings, augmented, split_drawings, train_namer
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.evaluate.namer import Namer, NamerConfig, naming, sticker_name
from rdtf.io.write import save_sticker
from rdtf.rng import torch_rng
from rdtf.sticker import Sticker

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 230), "white": (250, 250, 250)}


def drawing(colour: tuple[int, int, int], side: int) -> np.ndarray:
    frame = np.zeros((1, 32, 32, 4), np.uint8)
    frame[0, 16 - side : 16 + side, 16 - side : 16 + side] = (*colour, 255)
    return frame


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four names, four drawings each: squares of other sizes."""
    folder = tmp_path_factory.mktemp("namer")
    for name, colour in COLOURS.items():
        for side in (6, 8, 10, 12):
            save_sticker(Sticker(drawing(colour, side), np.array([100.0])), folder / f"set/{name}_{side}.png")
            (folder / f"set/{name}_{side}.txt").write_text(f"{name} square", "utf-8")
    prepare([folder / "set"], folder / "data", PrepareSettings(size=32, workers=1))
    return folder / "data"


def quick(**changed: object) -> NamerTrainSettings:
    values = {"steps": 80, "batch": 16, "size": 16, "left_out": 1.0, "threads": 1, **changed}
    return NamerTrainSettings.model_validate(values)


def test_it_names_drawings_that_it_never_saw(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TOP", 1)
    monkeypatch.setattr("rdtf.evaluate.namer.TOP", 2)
    report = train_namer(dataset, tmp_path / "out", quick())
    assert (report.names, report.drawings, report.left_out) == (4, 12, 4)
    assert report.named == 1.0
    assert NamerReport.model_validate_json((tmp_path / "out/report.json").read_text()) == report

    namer = Namer.load(tmp_path / "out")
    assert namer.digest == report.digest
    red, blue = (drawing(COLOURS[name], 9).repeat(4, 0) for name in ("red", "blue"))
    turned = np.concatenate([red[:3], blue[:1]])
    rates = naming(namer, [red, turned], ["red square", "red square"])
    assert rates["named"].value == 1.0
    assert rates["last frame named in top 2"].value <= rates["named in top 2"].value
    wrong = naming(namer, [red, red], ["blue square", "white square"])
    assert wrong["named"].value == 0.0
    with pytest.raises(ValueError, match="does not know 'dragon'"):
        naming(namer, [red], ["dragon"])


def test_same_seed_same_namer(dataset: Path, tmp_path: Path) -> None:
    prints = [
        train_namer(dataset, tmp_path / f"{i}", quick(steps=2, seed=seed)).digest for i, seed in enumerate((0, 0, 1))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_left_out_drawings_are_of_names_that_training_knows() -> None:
    names = ["a", "a", "a", "b", "b", "", "c", "c", "c", "c"]
    shown, proof = split_drawings(names, 1.0, seed=0)
    assert sorted(names[i] for i in proof) == ["a", "c"]
    assert sorted([*shown, *proof]) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_a_name_is_free_of_style_case_and_variation_selectors() -> None:
    assert sticker_name("Red Heart, twemoji style", {"style": "twemoji"}, "caption") == "red heart"
    assert sticker_name("", {"emoji": "❤️"}, "emoji") == sticker_name("", {"emoji": "❤"}, "emoji") == "❤"
    assert sticker_name("heart", {}, "emoji") == ""


def test_augmented_frames_are_valid_and_differ() -> None:
    frames = torch.zeros(8, 4, 16, 16)
    frames[:, :, 4:12, 4:12] = torch.tensor([0.9, 0.5, 0.1, 1.0])[:, None, None]
    out = augmented(frames, torch_rng(0, 0, "test"))
    assert out.shape == frames.shape and out.min() >= 0 and out.max() <= 1
    assert (out[:, :3] <= out[:, 3:] + 1e-6).all()
    assert len({frame.numpy().tobytes() for frame in out}) == 8


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no namer in"):
        Namer.load(tmp_path)
    Namer(NamerConfig(size=16, widths=(4, 8), embedding=8, names=("a", "b"))).save(tmp_path / "namer")
    (tmp_path / "namer/model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="train one anew"):
        Namer.load(tmp_path / "namer")
