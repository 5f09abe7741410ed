"""Stickers for a file of captions: the same as one by one, and after every stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from rdtf import many
from rdtf.cli import app
from rdtf.io.read import read_sticker
from rdtf.many import MANIFEST, Outcome, generate_many, read_rows
from rdtf.pipeline import StickerPipeline
from rdtf.provenance import read_made
from tests.test_pipeline import make_pipeline, pipeline  # noqa: F401 (fixtures)

SETTINGS = {"num_inference_steps": 1, "num_frames": 2, "guidance_scale": 1.0}
CAPTIONS = ["a cat", "a dog, waving", "ein Käse", "a cat"]


@pytest.fixture
def place(tmp_path: Path, pipeline: StickerPipeline, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """The current folder, with a model and a file of captions."""
    monkeypatch.chdir(tmp_path)
    pipeline.save_pretrained("model")
    Path("captions.txt").write_text("\n".join(CAPTIONS) + "\n", "utf-8")
    return tmp_path


def run(source: str = "captions.txt", out: str = "out", **changed: Any) -> Outcome:
    options = {name: changed.pop(name) for name in ("ending", "engine", "workers") if name in changed}
    return generate_many(Path(source), Path(out), "model", {**SETTINGS, **changed}, **options)


def test_each_row_is_the_sticker_of_its_caption_and_seed(place: Path, pipeline: StickerPipeline) -> None:  # noqa: F811
    assert run(seed=5) == Outcome(made=4, kept=0)
    lines = [json.loads(line) for line in Path("out", MANIFEST).read_text("utf-8").splitlines()]
    assert [(line["file"], line["caption"], line["seed"]) for line in lines] == [
        (f"00000{i + 1}.webp", caption, 5 + i) for i, caption in enumerate(CAPTIONS)
    ]
    for line in lines:
        alone = pipeline(line["caption"], seed=line["seed"], **SETTINGS).stickers[0]
        sticker = read_sticker(Path("out", line["file"]))
        visible = alone.frames[..., 3:] > 0
        assert np.array_equal(np.where(visible, sticker.frames, 0), np.where(visible, alone.frames, 0))
        assert read_made(Path("out", line["file"])).seed == line["seed"]


def test_stopped_at_any_moment_the_same_call_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(out="whole")
    save = many.save_sticker
    written = 0

    def stopping(*arguments: Any) -> None:
        nonlocal written
        if written == 2:
            raise KeyboardInterrupt
        written += 1
        save(*arguments)

    monkeypatch.setattr(many, "save_sticker", stopping)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.setattr(many, "save_sticker", save)
    Path("out/000001.webp").unlink()
    assert run() == Outcome(made=3, kept=1)
    assert run() == Outcome(made=0, kept=4)
    for name in ("000001.webp", "000002.webp", "000003.webp", "000004.webp"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    assert len(Path("out", MANIFEST).read_text().splitlines()) == 4


@pytest.mark.slow
def test_the_same_stickers_by_ray(place: Path) -> None:
    pytest.importorskip("ray")
    run(out="local")
    assert run(out="ray", engine="ray", workers=2) == Outcome(made=4, kept=0)
    Path("ray", "000002.webp").unlink()
    assert run(out="ray", engine="ray", workers=1) == Outcome(made=1, kept=3)
    for file in sorted(Path("local").glob("*.webp")):
        assert Path("ray", file.name).read_bytes() == file.read_bytes()
    assert Path("local", MANIFEST).read_text() == Path("ray", MANIFEST).read_text()


def test_nothing_is_mixed(place: Path) -> None:
    run()
    with pytest.raises(ValueError, match="000001.webp is there and was made otherwise: num_frames was 2, now 3"):
        run(num_frames=3)
    with pytest.raises(ValueError, match="seed was 0, now 1"):
        run(seed=1)
    Path("captions.txt").write_text("a cow\n" + "\n".join(CAPTIONS[1:]), "utf-8")
    with pytest.raises(ValueError, match="caption was 'a cat', now 'a cow'"):
        run()
    Path("mine").mkdir()
    Path("mine/000001.webp").write_bytes(b"mine")
    with pytest.raises(ValueError, match=r"000001.webp does not say how it was made"):
        run(out="mine")
    assert Path("mine/000001.webp").read_bytes() == b"mine"


def test_files_of_captions(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text('caption,name,seed,price\n"a cat, happy",cat,7,3\n\nplain,,,\n', "utf-8-sig")
    assert [(row.caption, row.name, row.seed) for row in read_rows(table)] == [
        ("a cat, happy", "cat", 7),
        ("plain", None, None),
    ]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"caption": "x", "seed": 3}\n\n{"caption": "y"}\n', "utf-8")
    assert [(row.caption, row.seed) for row in read_rows(lines)] == [("x", 3), ("y", None)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text\nx\n", "row 1: caption"),
        ("a.csv", b"caption,seed\nx,1\ny,many\n", "row 2: seed"),
        ("a.csv", b"caption,name\nx,../../x\n", "row 1: name"),
        ("a.jsonl", b'{"caption": "x"}\n{"caption": \n', "row 2 cannot be read"),
        ("a.jsonl", b'{"title": "x"}\n', "row 1: caption"),
        ("a.txt", "K\xe4se\n".encode("latin-1"), "not UTF-8"),
        ("a.txt", b"\n", "holds no captions"),
        ("a.csv", b"caption,name\nx,Cat\ny,cat\n", "two rows have the name 'cat'"),
        ("a.xlsx", b"", "captions are read from"),
    ],
)
def test_bad_files_are_refused_before_anything_is_made(place: Path, name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run(name)
    assert not Path("out").exists()


def test_the_command(place: Path) -> None:
    words = ["generate", "--from", "captions.txt", "-m", "model", "--frames", "2", "--steps", "1"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and "-o" in refused.output
    for kept in (0, 4):
        result = CliRunner().invoke(app, [*words, "-o", "out", "--format", "gif"])
        assert result.exit_code == 0 and f"({kept} were there already)" in result.output
    assert sorted(path.name for path in Path("out").glob("*.gif")) == [f"00000{i}.gif" for i in range(1, 5)]
    both = CliRunner().invoke(app, [*words[:3], "a cat", "-m", "model", "-o", "out"])
    assert both.exit_code == 2 and "a file of captions with --from" in " ".join(both.output.split())


def test_a_stopped_command_says_how_to_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "save_sticker", stop)
    words = ["generate", "--from", "captions.txt", "-m", "model", "--frames", "2", "--steps", "1", "-o", "out"]
    stopped = CliRunner().invoke(app, words)
    assert stopped.exit_code == 75
    assert "goes on in out" in stopped.output and "Error" not in stopped.output
