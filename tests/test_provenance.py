from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.io.metadata import NOTE, note_of
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pipeline import StickerPipeline
from rdtf.provenance import fingerprint, read_made
from rdtf.sticker import Sticker
from tests.test_pipeline import make_pipeline, picture, pipeline  # noqa: F401 (fixtures)


@pytest.fixture
def place(tmp_path: Path, pipeline: StickerPipeline, monkeypatch) -> Path:  # noqa: F811
    """The current folder, with a model, a sticker of four frames and two pictures."""
    monkeypatch.chdir(tmp_path)
    pipeline.save_pretrained("model")
    frames = np.stack([picture(n) for n in range(4)])
    save_sticker(Sticker(frames, np.full(4, 100.0)), "four.webp")
    for name in ("a.png", "b.png"):
        save_sticker(Sticker(picture(ord(name[0]))[None], np.array([1000.0])), name)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "a <cat>", "--seed", "7", "--frames", "3", "--loop", "--fps", "12", "--guidance", "2"],
        ["animate", "a.png", "it jumps", "--at", "1", "--frames", "3", "--size", "20"],
        ["inbetween", "a.png", "b.png", "--between", "2", "--image-guidance", "1.5"],
        ["extend", "four.webp", "--after", "2", "--before", "1", "--context", "2"],
    ],
    ids=lambda words: words[0],
)
def test_a_sticker_is_made_again_from_its_file(place: Path, words: list[str]):
    code, text = run(*words, "-m", "model", "-o", "out.webp")
    assert code == 0, text
    made = read_made(Path("out.webp"))
    assert made.task == words[0] and made.model == "model"
    assert [i.name for i in made.inputs] == {"animate": ["a.png"], "inbetween": ["a.png", "b.png"]}.get(
        words[0], ["four.webp"] * 2 if words[0] == "extend" else []
    )
    code, text = run("explain", "out.webp", "-o", "again.webp")
    assert code == 0 and made.fingerprint in text, text
    first, again = read_sticker("out.webp"), read_sticker("again.webp")
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.durations, again.durations)
    assert note_of(Path("again.webp").read_bytes()) == note_of(Path("out.webp").read_bytes())


def test_one_of_several_and_other_formats(place: Path):
    code, text = run("generate", "a cat", "-m", "model", "--count", "3", "--frames", "2", "-o", "many.png")
    assert code == 0, text
    assert [read_made(Path(f"many-{n}.png")).seed for n in (1, 2, 3)] == [0, 1, 2]
    assert run("explain", "many-3.png", "-o", "again.gif")[0] == 0
    np.testing.assert_array_equal(
        read_sticker("again.gif").frames[..., 3] > 0, read_sticker("many-3.png").frames[..., 3] >= 128
    )
    code, text = run("explain", "again.gif", "--json")
    assert code == 0 and json.loads(text.replace("\n", ""))["number"] == 2
    code, text = run("generate", "a cat", "-m", "model", "--frames", "2", "-o", "frames/")
    assert code == 0 and read_made(Path("frames/001.png")).caption == "a cat"


def test_what_is_missing_or_wrong_is_told(place: Path, pipeline: StickerPipeline):  # noqa: F811
    assert run("animate", "a.png", "-m", "model", "--frames", "2", "-o", "out.webp")[0] == 0
    Path("elsewhere").mkdir()
    Path("a.png").rename("elsewhere/c.png")
    code, text = run("explain", "out.webp", "-o", "again.webp")
    assert code == 2 and "a.png (SHA-256" in text and "--input" in text and not Path("again.webp").exists()
    assert run("explain", "out.webp", "-o", "again.webp", "--input", "elsewhere/c.png")[0] == 0
    code, text = run("explain", "four.webp")
    assert code == 2 and "does not say how it was made" in text
    code, text = run("explain", "out.webp", "-o", "x.webp", "--model", "nowhere")
    assert code == 2 and "--model" in text
    before = fingerprint(pipeline)
    weight = next(iter(pipeline.dfgn.parameters()))
    with torch.no_grad():
        weight += 1
        assert fingerprint(pipeline) != before
        pipeline.save_pretrained("other")
        weight -= 1
    code, text = run("explain", "out.webp", "-o", "x.webp", "--model", "other", "--input", "elsewhere/c.png")
    assert code == 2 and "is another one" in text


def test_notes_of_strangers_are_checked(place: Path):
    assert run("generate", "a\x1b[31mcat", "-m", "model", "--frames", "1", "-o", "out.png")[0] == 0
    code, text = run("explain", "out.png")
    assert code == 0 and "\x1b" not in text
    four, note = read_sticker("four.webp"), note_of(Path("out.png").read_bytes()) or {}
    for change in (
        {"caption": 5},
        {"inputs": [{"position": 0, "name": "../x", "sha256": "no"}]},
        {"settings": {"output_size": [1]}},
        {"more": 1},
        {"number": -1},
    ):
        save_sticker(Sticker(four.frames, four.durations, "", {NOTE: {**note, **change}}), "bad.webp")
        code, text = run("explain", "bad.webp")
        assert code == 2 and "form that is not known" in text, change
