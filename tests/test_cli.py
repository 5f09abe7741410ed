"""The command line: what it makes, and what it says to mistakes (a line and exit code 2, no traceback)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from rdtf import hub
from rdtf.cli import app
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import fit
from rdtf.research.compare import Comparison
from rdtf.sticker import Sticker
from rdtf.train.settings import recipe_settings

SIZE = 16


@pytest.fixture(scope="session")
def model(make_pipeline: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved pipeline of a tiny network of random weights, in a run's folder."""
    run = tmp_path_factory.mktemp("model") / "run"
    make_pipeline(SIZE).save_pretrained(run / "pipeline")
    return run


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three pictures of the model's size, with soft edges; nothing under alpha 0."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(3):
        frame = rng.integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
        frame[:4] = 0
        Image.fromarray(frame, "RGBA").save(folder / f"{i}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("animation") / "wave.webp"
    frames = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 4), dtype=np.uint8)
    frames[..., 3] |= 1
    save_sticker(Sticker(frames, np.array([100.0, 100.0, 100.0, 100.0])), path)
    return path


@pytest.fixture
def unused_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StickerPipeline, "__call__", lambda *_a, **_k: pytest.fail("the model ran for nothing"))


def rdtf(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def made(*words: object) -> Result:
    result = rdtf(*words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result


def refused(*words: object) -> str:
    """The error line of a call that must fail."""
    result = rdtf(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert "Traceback" not in result.output
    lines = result.output.splitlines()
    assert len(lines) == 1, result.output
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


# ------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("command", ["generate", "animate", "inbetween", "extend"])
def test_a_missing_model(
    command: str, pictures: list[Path], animation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "none")
    inputs = {"generate": ["a cat"], "animate": pictures[:1], "inbetween": pictures, "extend": [animation]}[command]
    line = refused(command, *inputs, "-m", tmp_path / "nowhere", "-o", tmp_path / "x.webp")
    assert f"{tmp_path / 'nowhere'} holds no trained model" in line
    line = refused(command, *inputs, "-o", tmp_path / "x.webp")  # no model named
    assert "carries no model of its own" in line and "rdtf train" in line
    assert not (tmp_path / "x.webp").exists()


def test_a_missing_dataset(model: Path, tmp_path: Path):
    missing = tmp_path / "nowhere"
    assert str(missing) in refused("train", missing, tmp_path / "run")
    assert str(missing) in refused("inspect", missing, tmp_path / "page")
    assert str(missing) in refused("evaluate", missing, "-m", model, "-o", tmp_path / "evaluation.json")
    assert str(missing) in refused("train-codec", missing, tmp_path / "codec")
    assert str(missing) in refused("prepare", missing, tmp_path / "data")
    assert "no run to resume" in refused("train", missing, tmp_path / "other", "--resume")
    assert not (tmp_path / "codec").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "huge"], ["huge", "tiny, small"]),
        (["--recipe", "quick"], ["quick", "fast, paper"]),
        (["--curriculum", "steep"], ["steep", "adaptive-normalised"]),
        (["--codec", "f3"], ["f3", "'f4' or 'f8'"]),
        (["--set", "lr"], ["--set lr", "name=value"]),
        (["--set", "learning_speed=1"], ["learning_speed"]),
        (["--set", "lr=-1"], ["lr", "greater than 0"]),
        (["--set", "lr=fast"], ["lr", "number"]),
        (["--set", "lr=1", "--set", "lr.b=2"], ["--set lr.b=2", "already"]),
        (["--set", "recipe=paper"], ["--recipe"]),
        (["--set", "objective.path=straight"], ["objective.path"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_settings_of_a_training(tiny_data: Path, tmp_path: Path, options: list[str], words: list[str]):
    line = refused("train", tiny_data, tmp_path / "run", *options)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run" / "config.json").exists()


def test_settings_reach_the_training(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import rdtf.train.run as loop

    seen = []
    monkeypatch.setattr(
        loop, "train", lambda data, run, settings: seen.append(settings) or loop.TrainReport(run, 3, 6.0, True)
    )
    made("train", tiny_data, tmp_path, "--set", "seed=3", "--set", "lr=0.5", "--set", "sampling.steps=7", "--steps", 9)
    made("train", tiny_data, tmp_path, "--set", "seed=3", "--seed", 0)  # 0 is a value, too
    assert (seen[0].seed, seen[0].lr, seen[0].sampling.steps, seen[0].steps) == (3, 0.5, 7, 9)
    assert seen[1].seed == 0 and seen[1].text == recipe_settings("fast").text


@pytest.mark.usefixtures("unused_model")
def test_wrong_requests(model: Path, pictures: list[Path], animation: Path, tmp_path: Path):
    def out(name: str = "x.webp") -> list[object]:
        return ["-o", tmp_path / name]

    assert "at least two images" in refused("inbetween", "-m", model, pictures[0], *out())
    assert "17 frames; at most 16" in refused("inbetween", "-m", model, *pictures, "--between", 7, *out())
    assert "18 frames; at most 16" in refused("inbetween", "-m", model, *pictures, "--between", 5, "--loop", *out())
    assert "nothing to add" in refused("extend", "-m", model, animation, "--after", 0, *out())
    long = refused("extend", "-m", model, animation, "--after", 13, "--context", 4, *out())
    assert "17 frames; at most 16" in long
    for ending in ("x.bmp", "x.mp4", "x.v2"):
        assert "unknown ending" in refused("generate", "-m", model, "a cat", *out(ending))
        assert "unknown ending" in refused("extend", "-m", model, animation, *out(ending))
    assert not list(tmp_path.iterdir())
    Image.new("RGBA", (SIZE, SIZE)).save(tmp_path / "empty.png")
    assert "is transparent" in refused("animate", "-m", model, tmp_path / "empty.png", *out())


def test_numbers_out_of_range(model: Path, tmp_path: Path):
    for option, value in (("--frames", 17), ("--frames", 0), ("--count", 0), ("--steps", 0), ("--fps", 0)):
        result = rdtf("generate", "-m", model, "a cat", option, value, "-o", tmp_path / "x.webp")
        assert result.exit_code == 2
        assert option in result.output


@pytest.mark.usefixtures("unused_model")
@pytest.mark.parametrize("name", ["note.png", "[red]x.png", "[bold]x.png"])
def test_an_image_that_is_none(model: Path, tmp_path: Path, name: str):
    path = tmp_path / ("long" * 30) / name  # wider than any line: the path must stay in one piece
    assert f"{path}: " in refused("animate", "-m", model, path)
    path.parent.mkdir()
    path.write_text("no picture")
    assert f"{path}: " in refused("animate", "-m", model, path)
    assert f"{path}: " in refused("inbetween", "-m", model, path, path)
    assert f"{path}: " in refused("extend", "-m", model, path)


# ---------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("command", "options", "frames", "given"),
    [
        ("generate", ["a cat"], 8, {}),
        ("animate", ["0.png"], 8, {0: 0}),
        ("animate", ["0.png", "a cat", "--at", 2, "--frames", 4, "--size", 24], 4, {2: 0}),
        ("inbetween", ["0.png", "1.png", "2.png"], 5, {0: 0, 2: 1, 4: 2}),
        ("inbetween", ["0.png", "1.png", "--between", 3, "--loop", "--size", 24], 8, {0: 0, 4: 1}),
    ],
    ids=["text", "image", "image-and-text", "between", "between-loop"],
)
def test_frames_made_and_given(model, pictures, tmp_path: Path, command, options, frames, given):
    out = tmp_path / "new" / "folder" / "x.webp"  # which does not exist yet
    words = [pictures[0].parent / word if str(word).endswith(".png") else word for word in options]
    result = made(command, "-m", model, *words, "-o", out)
    assert str(out) in result.output
    sticker = read_sticker(out)
    side = 24 if "--size" in options else SIZE
    assert sticker.frames.shape == (frames, side, side, 4)
    assert sticker.durations.tolist() == [125.0] * frames
    for position, number in given.items():
        picture = np.asarray(Image.open(pictures[number]))
        assert np.array_equal(sticker.frames[position], fit(picture[None], side)[0]), position


@pytest.mark.parametrize(
    ("options", "total", "first"),
    [
        (["--after", 0, "--before", 2, "--size", 24], 6, 2),
        (["--after", 1, "--before", 1, "--caption", "a caption"], 6, 1),
    ],
    ids=["backward", "both"],
)
def test_extending(model: Path, animation: Path, tmp_path: Path, options: list, total: int, first: int):
    made("extend", "-m", model, animation, *options, "-o", tmp_path / "x.webp")
    sticker, source = read_sticker(tmp_path / "x.webp"), read_sticker(animation)
    assert np.array_equal(sticker.frames[first : first + 4], fit(source.frames, 24 if "--size" in options else SIZE))
    assert sticker.durations.tolist() == [100.0] * total  # at its own pace


def test_extending_keeps_some_of_a_long_sticker(model: Path, animation: Path, tmp_path: Path):
    made("extend", "-m", model, animation, "--context", 2, "--after", 1, "-o", tmp_path / "x.webp")
    sticker, source = read_sticker(tmp_path / "x.webp"), read_sticker(animation)
    assert len(sticker) == 3
    assert np.array_equal(sticker.frames[:2], source.frames[[0, 2]])
    assert sticker.durations.tolist() == [200.0] * 3


def test_extending_keeps_the_times_of_the_given_frames(model: Path, tmp_path: Path):
    times = [50.0, 1000.0, 50.0, 1000.0]
    frames = np.random.default_rng(2).integers(1, 256, (4, SIZE, SIZE, 4), dtype=np.uint8)
    save_sticker(Sticker(frames, np.array(times)), tmp_path / "uneven.png")
    made("extend", "-m", model, tmp_path / "uneven.png", "--before", 1, "--after", 2, "-o", tmp_path / "x.webp")
    longer = read_sticker(tmp_path / "x.webp")
    assert longer.durations.tolist() == [525.0, *times, 525.0, 525.0]
    made("explain", tmp_path / "x.webp", "-m", model, "-o", tmp_path / "again.webp")
    again = read_sticker(tmp_path / "again.webp")
    assert np.array_equal(again.frames, longer.frames) and np.array_equal(again.durations, longer.durations)
    made("extend", "-m", model, tmp_path / "uneven.png", "--fps", 10, "-o", tmp_path / "even.webp")
    assert read_sticker(tmp_path / "even.webp").durations.tolist() == [100.0] * 7


@pytest.mark.usefixtures("unused_model")
def test_nothing_is_made_that_is_not_read_again(model: Path, tmp_path: Path):
    frames = np.random.default_rng(2).integers(1, 256, (2, SIZE, SIZE, 4), dtype=np.uint8)
    save_sticker(Sticker(frames, np.array([20_000.0, 30_000.0])), tmp_path / "slow.webp")
    before = sorted(tmp_path.iterdir())
    line = refused("extend", "-m", model, tmp_path / "slow.webp", "--after", 2, "-o", tmp_path / "x.webp")
    assert "the 4 frames would last 100.0 s" in line and "--fps" in line
    line = refused("generate", "-m", model, "a cat", "--fps", 0.1, "-o", tmp_path / "x.webp")
    assert "the 8 frames would last 80.0 s" in line
    assert sorted(tmp_path.iterdir()) == before


def test_words_beyond_the_window_are_told(model: Path, tmp_path: Path):
    caption = " ".join(f"word{n}" for n in range(34))
    out = ["--frames", 1, "-o", tmp_path / "x.webp"]
    assert (
        "does not read the whole caption; left out: word32 word33"
        in made("generate", "-m", model, caption, *out).output
    )
    assert "left out" not in made("generate", "-m", model, caption.partition(" word32")[0], *out).output


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("x.gif", {"x-1.gif", "x-2.gif"}),
        ("x.sheet.png", {"x-1.sheet.png", "x-2.sheet.png"}),
        ("v1.0/", {"v1.0-1", "v1.0-2"}),
        ("[red]x.webp", {"[red]x-1.webp", "[red]x-2.webp"}),
    ],
)
def test_every_kind_of_output(model: Path, tmp_path: Path, name: str, files: set[str]):
    result = made("generate", "-m", model, "a cat", "--frames", 3, "--count", 2, "-o", f"{tmp_path}/{name}")
    assert {path.name for path in tmp_path.iterdir()} == files
    for path in tmp_path.iterdir():
        assert f"Wrote {path}" in result.output
        if path.is_dir():
            assert sorted(p.name for p in path.iterdir()) == ["000.png", "001.png", "002.png", "durations.json"]
            assert Image.open(path / "000.png").mode == "RGBA"
        elif "sheet" in name:
            assert Image.open(path).size == (3 * SIZE, SIZE)
        else:
            sticker = read_sticker(path)
            assert sticker.frames.shape == (3, SIZE, SIZE, 4)
            assert sticker.durations == pytest.approx([125.0] * 3, abs=10)


def test_what_of_a_suite_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []

    def compare(comparison: Comparison, jobs: int | None) -> Path:
        seen.append(comparison.suite)
        return comparison.out / "index.html"

    monkeypatch.setattr("rdtf.research.compare.compare", compare)
    result = made("compare", "--variant", "lora", "--steps", 1000, "--seeds", 2, "-o", tmp_path / "out")
    assert f"Wrote {tmp_path / 'out/tables.md'}" in result.output
    (suite,) = seen
    assert (set(suite.variants), suite.steps, suite.seeds) == ({"lora", "rdtf"}, 1000, (0, 1))
    made("compare", "--pixels", 48, "--set", "size=small", "--set", "model={}", "-o", tmp_path / "out")
    assert (seen[-1].pixels, seen[-1].training["size"], seen[-1].training["model"]) == (48, "small", {})
    assert "they were prepared in" in refused("compare", tmp_path, "--pixels", 48, "-o", tmp_path / "out")
    assert "has no variant laro; choose of untrained, lora, " in refused(
        "compare", "--variant", "laro", "-o", tmp_path / "out"
    )
    assert "unknown suite 'tiny'; choose one of small" in refused("compare", "--suite", "tiny", "-o", tmp_path / "out")
