"""The README's commands: all of them parse, and the cheap ones run, one after the other, with smaller numbers."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.copy_decoder import CopyDecoder
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker
from rdtf.world import write_world
from tests.conftest import SMALLEST_NETWORK

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURES = (".png", ".apng", ".webp", ".gif", ".jpg", ".json", ".tgs", ".webm", ".mp4")
LONG = ("demo", "finetune", "train-codec")  # tested elsewhere
TRAINING = [
    *("--size", "tiny", "--steps", "2", "--batch-size", "4", "--threads", "1", "--codec", "pixel2"),
    *("--set", f"model={json.dumps(SMALLEST_NETWORK)}", "--set", "num_augmented=0", "--set", "previews=0"),
]
SMALLER = {
    "world": ["--count", "12", "--size", "16"],
    "prepare": ["--size", "16", "--workers", "1"],
    "plan": TRAINING,
    "train": TRAINING,
    "train-copy-decoder": ["--steps", "1", "--clips", "4", "--threads", "1"],
    "generate": ["--steps", "1"],
    "animate": ["--steps", "1"],
    "inbetween": ["--steps", "1"],
    "extend": ["--steps", "1"],
    "evaluate": ["--steps", "1", "--samples", "1", "--limit", "5"],
}


def blocks(*languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """The words of each ``rdtf`` command, without ``rdtf``."""
    lines = "\n".join(blocks("sh", "bash", "shell", "console")).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line[1:] for line in words if line and line[0].endswith("rdtf")]


def test_there_are_commands():
    assert {"prepare", "train", "generate", "animate", "inbetween", "extend"} <= {c[0] for c in commands()}


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_parses(words: list[str]):
    group = typer.main.get_command(app)
    assert words[0] in group.commands, f"no command {words[0]}"  # type: ignore[attr-defined]
    group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]


def test_make_targets_exist():
    named = re.findall(r"^make (\w+)", "\n".join(blocks("sh", "bash", "shell", "console")), re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_somewhere():
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", README)]
    for target in targets:
        if target and not target.startswith(("http:", "https:")):
            assert (ROOT / target).exists(), target


def test_commands_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rdtf.train.copy_decoder.CopyDecoder", lambda: CopyDecoder(widths=(8, 8), references=1))
    drawn = write_world(tmp_path / "drawn", 100, 0, size=16, vocabulary="small")
    moving = next(s for s in map(read_sticker, sorted(drawn.glob("sticker-*"))) if len(s) >= 8)
    moving = Sticker(moving.frames[:3], moving.durations[:3])  # encoding for messengers takes time a frame
    Path("captions.csv").write_text("caption\na cat\na red ghost\n", encoding="utf-8")
    ran = []
    for words in commands():
        if words[0] in LONG:
            continue
        # Folders and files that a reader would bring along.
        if words[0] == "prepare":
            for source in _positional(words)[:-1]:
                if not Path(source).exists():
                    Path(source).parent.mkdir(parents=True, exist_ok=True)
                    Path(source).symlink_to(drawn, target_is_directory=True)
        for name in _positional(words):
            if name.endswith(PICTURES) and not Path(name).exists():
                save_sticker(moving, name)
        resuming = ["--steps", "3"] if "--resume" in words else None
        result = CliRunner().invoke(app, [*words, *(resuming or SMALLER.get(words[0], []))])
        assert result.exit_code == 0, f"rdtf {shlex.join(words)}\n{result.output}\n{result.exception!r}"
        ran.append(words)
        out = next((after for word, after in pairwise(words) if word in ("-o", "--out")), None)
        if out is not None and "--count" not in words:
            assert Path(out).exists(), f"rdtf {shlex.join(words)} wrote no {out}"
    assert len(ran) >= 6
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


def _positional(words: list[str]) -> list[str]:
    """The words that are neither options nor their values (in the README, every option but the flags has one)."""
    flags = ("--loop", "--resume", "--overwrite")
    return [
        word
        for before, word in pairwise(words)
        if not word.startswith("-") and (not before.startswith("-") or before in flags)
    ]
