from __future__ import annotations

import base64
import io
import json
import re
import shlex
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import rdtf.cli.demo
from rdtf import hub
from rdtf.cli import app
from rdtf.cli.demo import DemoSettings, _make, _shipped_requests, _shipped_section, run_demo, smooth
from rdtf.io.read import read_sticker
from rdtf.text import KnownCaptions
from rdtf.world import is_held_out
from tests.conftest import TINY_NETWORK

SETTINGS = DemoSettings(
    stickers=220,
    size=16,
    training=(
        *("--codec", "pixel2", "--batch-size", "4", "--threads", "1"),
        *("--set", f"model={json.dumps(TINY_NETWORK)}", "--set", "sampling.steps=1"),
        *("--set", "previews=0", "--set", "num_augmented=0"),
    ),
    prompts=(("cat", "green", "dance"), ("cat", "red", "spin")),
    shipped=0,
)
STEPS = 3
GIVEN = {
    "image-to-video": {0},
    "image-and-text-to-video": {0},
    "image-and-text-to-video-image-third": {2},
    "in-between": {0, 2, 4},
    "in-between-as-a-loop": {0, 2, 4},
    "extend-forward": {0, 1, 2, 3},
    "extend-backward": {2, 3, 4, 5},
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rdtf.cli.demo, "usable_cores", lambda: 1)  # no processes in tests
        page = run_demo(out, steps=STEPS, settings=SETTINGS)
    assert page == out / "index.html"
    return out


def commands(demo: Path) -> list[list[str]]:
    html = (demo / "index.html").read_text(encoding="utf-8")
    blocks = re.findall("<pre>(.*?)</pre>", html, re.DOTALL)
    return [shlex.split(unescape(line)) for block in blocks for line in block.splitlines()]


def test_page_shows_every_task_with_its_pictures(demo: Path):
    html = (demo / "index.html").read_text(encoding="utf-8")
    pictures = [unescape(path) for path in re.findall('<img[^>]* src="([^"]*)"', html)]
    assert len(set(pictures)) == 2 + 7 * 2
    for picture in pictures:
        kind, _, data = picture.partition(";base64,")
        assert kind.startswith("data:image/")
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    for words in ("Loss per task", "Curriculum", "small part of the built-in world", "combination not in training"):
        assert words in html
    used = [command[1] for command in commands(demo)]
    assert set(used) == {"world", "prepare", "train", "generate", "animate", "inbetween", "extend"}
    assert Image.open(demo / "contact_sheet.png").height > 2 * SETTINGS.size


def test_only_combinations_out_of_training_are_marked(demo: Path):
    html = (demo / "index.html").read_text(encoding="utf-8")
    marked = re.findall('<h3>([^<]*) <span class="badge">combination', html)
    assert marked == ["a red cat spinning, happy"]


def test_the_model_of_the_package_comes_first(make_pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "shipped")
    settings = DemoSettings(shipped=2)
    assert _shipped_requests(settings, seed=3) == []
    pipeline = make_pipeline()
    pipeline.known = KnownCaptions.of_stickers([(name, "", []) for name in ("cat", "cow", "dog", "fox")])
    pipeline.save_pretrained(tmp_path / "shipped")
    requests = _shipped_requests(settings, seed=3)
    assert [request.command[1] for request in requests] == ["cat", "dog"]
    cards = [_make(tmp_path, request, "shipped")[0] for request in requests]
    assert "2 names" in _shipped_section(cards).text[0]
    assert [shlex.split(card.command)[:3] for card in cards] == [["rdtf", "generate", name] for name in ("cat", "dog")]


def test_default_prompts_have_both_kinds():
    prompts = DemoSettings().prompts
    unseen = [is_held_out({"body": body, "colour": colour, "action": action}) for body, colour, action in prompts]
    assert 3 <= sum(unseen) <= len(prompts) - 6


@pytest.mark.parametrize("name", GIVEN)
def test_given_frames_come_back_exactly(demo: Path, name: str):
    sticker = read_sticker(demo / "stickers" / f"{name}.webp")
    assert len(sticker) == (5 if name == "in-between" else 6)
    if name.startswith("extend"):
        given = dict(zip(sorted(GIVEN[name]), read_sticker(demo / "given" / f"{name}.webp").frames, strict=True))
    else:
        given = {i: read_sticker(demo / "given" / f"{name}-{i}.png").frames[0] for i in GIVEN[name]}
    for position, frame in given.items():
        assert np.array_equal(sticker.frames[position], frame), position


@pytest.mark.parametrize("name", ["text-02", "in-between-as-a-loop"])
def test_commands_on_the_page_make_the_same_stickers(demo: Path, tmp_path: Path, name: str):
    (command,) = (c for c in commands(demo) if c[-1].endswith(f"{name}.webp"))
    again = tmp_path / "again.webp"
    assert command[0] == "rdtf"
    result = CliRunner().invoke(app, [*command[1:-1], str(again)])
    assert result.exit_code == 0, result.output
    first, second = read_sticker(command[-1]), read_sticker(again)
    assert np.array_equal(first.frames, second.frames)
    assert first.durations == pytest.approx(second.durations)


def test_an_earlier_demo_is_replaced_and_nothing_else(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class ReachedError(Exception):
        pass

    def draw(*_args: object, **_options: object) -> None:
        raise ReachedError

    monkeypatch.setattr(rdtf.cli.demo, "_rdtf", draw)
    old = tmp_path / "old"
    old.mkdir()
    (old / ".rdtf-demo").touch()
    (old / "index.html").touch()
    with pytest.raises(ReachedError):
        run_demo(old, steps=STEPS)
    assert not (old / "index.html").exists()

    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    for path in (other, other / "thesis.txt"):
        with pytest.raises(ValueError, match="holds no demo"):
            run_demo(path, steps=STEPS)
    assert (other / "thesis.txt").exists()


def test_the_training_hangs_on_no_clock(demo: Path):
    """The same command makes the same model: a number of steps, and no minutes."""
    asked = json.loads((demo / "run/config.json").read_text())["settings"]
    assert asked["max_minutes"] is None
    assert asked["steps"] == STEPS
    assert "--minutes" not in DemoSettings().training


def test_a_command_that_fails_ends_the_demo(tmp_path: Path):
    result = CliRunner().invoke(app, ["demo", str(tmp_path / "out"), "--seed", "-1"])
    assert result.exit_code == 2
    assert not (tmp_path / "out/index.html").exists()


def test_smooth_keeps_constants_and_ends():
    flat = smooth([(i, 3.0) for i in range(1000)], 50)
    assert len(flat) == 50
    assert flat[0][0] == 0
    assert flat[-1][0] == 999
    assert {y for _, y in flat} == {3.0}


def test_smooth_is_the_mean_around_a_point():
    zigzag = smooth([(i, float(i % 2)) for i in range(400)], 400)
    assert all(abs(y - 0.5) < 0.1 for _, y in zigzag[20:-20])
    assert smooth([(7, 2.0)], 50) == [(7.0, 2.0)]
