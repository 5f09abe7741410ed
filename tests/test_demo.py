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
from rdtf.cli.demo import DemoSettings, _by_shipped_model, run_demo
from rdtf.io.read import read_sticker
from rdtf.text import KnownCaptions
from rdtf.world import is_held_out
from tests.conftest import TINY_NETWORK

SETTINGS = DemoSettings(
    stickers=120,
    size=16,
    training=(
        *("--codec", "pixel2", "--batch-size", "4", "--threads", "1"),
        *("--set", f"model={json.dumps(TINY_NETWORK)}", "--set", "sampling.steps=1"),
        *("--set", "previews=0", "--set", "num_augmented=0"),
    ),
    prompts=(("cat", "green", "dance"), ("cat", "red", "spin")),
    shipped=(),
)
STEPS = 3
GIVEN = {
    "image-to-video": [0],
    "image-and-text-to-video": [0],
    "image-third": [2],
    "in-between": [0, 2, 4],
    "in-between-as-a-loop": [0, 2, 4],
    "extend-forward": [0, 1, 2, 3],
    "extend-backward": [2, 3, 4, 5],
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
    used = [command[1] for command in commands(demo)]
    assert set(used) == {"world", "prepare", "train", "report", "generate", "animate", "inbetween", "extend"}
    marked = re.findall('<h3>([^<]*) <span class="badge">combination', html)
    assert marked == ["a red cat spinning, happy"]  # only what training never combined
    assert (demo / "run/report.html").is_file()


def test_the_model_of_the_package_comes_first(make_pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "SHIPPED_FOLDER", tmp_path / "shipped")
    assert _by_shipped_model(tmp_path, ["cat", "dog"], seed=3) == []
    make_pipeline().save_pretrained(tmp_path / "shipped")
    cards = _by_shipped_model(tmp_path, ["cat", "dog"], seed=3)
    assert [shlex.split(card["command"])[:3] for card in cards] == [
        ["rdtf", "generate", name] for name in ("cat", "dog")
    ]


def test_the_model_of_the_package_knows_its_captions():
    known = KnownCaptions.load(hub.SHIPPED_FOLDER)
    assert known is not None and set(DemoSettings().shipped) <= set(known.names)


def test_default_prompts_have_both_kinds():
    prompts = DemoSettings().prompts
    unseen = [is_held_out({"body": body, "colour": colour, "action": action}) for body, colour, action in prompts]
    assert 3 <= sum(unseen) <= len(prompts) - 6


def test_given_frames_come_back_exactly(demo: Path):
    for name, positions in GIVEN.items():
        sticker = read_sticker(demo / "stickers" / f"{name}.webp")
        assert len(sticker) == (5 if name == "in-between" else 6)
        files = sorted((demo / "given").glob(f"{name}-[0-9].webp"))
        given = np.concatenate([read_sticker(file).frames for file in files])
        assert np.array_equal(sticker.frames[positions], given), name


def test_commands_on_the_page_make_the_same_stickers(demo: Path, tmp_path: Path):
    (command,) = (c for c in commands(demo) if c[-1].endswith("in-between-as-a-loop.webp"))
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
