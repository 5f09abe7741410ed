"""Generated stickers are drawn again by their model for larger canvases. All others are scaled up, and that is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.io.metadata import NOTE
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pixels import composite, fit
from rdtf.provenance import find_given, inputs_near, make_again, read_made
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker


def run(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def export(file: str, *more: str) -> tuple[Sticker, list[str]]:
    run("export", file, "-o", "out", "--overwrite", "--to", "whatsapp", "--to", "slack", "--workers", "1", *more)
    whatsapp, slack = json.loads(Path("out/export.json").read_text("utf-8"))
    assert not any("drawn" in change or "filter" in change for change in slack["changes"])  # it is no larger
    return read_sticker(Path("out", whatsapp["file"])), whatsapp["changes"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def near(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square error over white."""
    difference = composite(a, (255, 255, 255)).astype(float) - composite(b, (255, 255, 255))
    return float(np.sqrt(np.square(difference).mean()))


@pytest.mark.parametrize(
    "words", [("generate", "rocket"), ("generate", "purple rocket jumping"), ("animate", "cat.png")]
)
def test_a_generated_sticker_is_drawn_by_its_model(place: Path, words: tuple[str, ...]):
    from rdtf.loading import load_pipeline

    save_sticker(Sticker.at_fps(draw_sticker(1, 0, size=400).frames[:1]), "cat.png")
    run(*words, "--frames", "3", "--steps", "2", "-o", "made.webp")
    exported, changes = export("made.webp")
    assert changes[0] == "drawn by its model at 512 px"
    note = read_made(Path("made.webp"))
    given = find_given(note, inputs_near(note, Path("made.webp")))
    again = make_again(note, load_pipeline("shipped"), given, output_size=512)
    scaled = fit(read_sticker("made.webp").frames, 512)
    first = [0, 1]  # later frames of a jump may be equal and stand in the file once
    assert near(exported.frames[first], again.frames[first]) < 4 < near(exported.frames[first], scaled[first])


def test_where_the_model_cannot_draw_it_the_reason_is_told(place: Path):
    save_sticker(Sticker.at_fps(draw_sticker(1, 0, size=128).frames[:1]), "cat.png")
    assert not any("model" in change for change in export("cat.png")[1])  # nobody generated it
    run("animate", "cat.png", "--frames", "2", "--steps", "1", "-o", "made.webp")
    Path("cat.png").rename("dog.png")
    exported, changes = export("made.webp")
    assert "cat.png" in changes[0] and "scaled up by a filter" in changes[0]
    assert near(exported.frames, fit(read_sticker("made.webp").frames, 512)) < 4
    Path("dog.png").rename("cat.png")
    changed, note = read_sticker("made.webp"), read_made(Path("made.webp")).model_dump(mode="json")
    frames = changed.frames.copy()
    frames[1, 32:96, 32:96] = (0, 255, 0, 255)
    save_sticker(Sticker(frames, changed.durations, "", {NOTE: note}), "made.webp")
    assert "was changed" in export("made.webp")[1][0]
    assert "holds no trained model" in export("made.webp", "-m", "nowhere")[1][0]


def test_a_sticker_that_would_move_otherwise_at_the_larger_size_is_scaled(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rdtf.making._hardly_moves", lambda frames: frames.shape[1] > 200)
    run("generate", "rocket", "--frames", "2", "--steps", "1", "-o", "made.webp")
    _, changes = export("made.webp")
    assert any("it would move in another way" in change for change in changes)
