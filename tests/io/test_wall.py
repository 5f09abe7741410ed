"""Files of strangers are decoded in a process of their own: what crashes it costs a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rdtf
from rdtf.files import ShortageError
from rdtf.io import read, wall
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker, StickerError

STAND_IN = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
import os, signal
from rdtf.io import wall
read = wall.read_sticker_bytes
def crashing(data, name, **options):
    for number in (signal.SIGSEGV, signal.SIGFPE, signal.SIGKILL, signal.SIGXCPU):
        if number.name in str(name):
            os.kill(os.getpid(), number)
    if "greedy" in str(name):
        raise wall.StickerError(name, "no memory") from MemoryError()
    os.write(1, b"a decoder that talks")
    return read(data, name, **options)
wall.read_sticker_bytes = crashing
wall.serve()
"""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 4), dtype=np.uint8)
    save_sticker(Sticker(frames, np.array([50.0, 1000.0, 70.0])), tmp_path / "clip.png")
    return tmp_path / "clip.png"


def test_what_comes_through_is_what_the_reader_reads(clip: Path):
    for options in ({}, {"size": 20, "max_frames": 2}):
        here, there = read.read_sticker(clip, **options), rdtf.read_sticker(clip, **options)
        assert np.array_equal(here.frames, there.frames) and np.array_equal(here.durations, there.durations)
    assert there.frames.flags.writeable


def test_a_crash_is_a_sentence_that_names_the_file(clip: Path, monkeypatch):
    monkeypatch.setattr(wall, "_CHILD", STAND_IN)
    wall._close_idle()
    data = clip.read_bytes()
    for name, message in (
        ("SIGSEGV.webm", r"SIGSEGV.webm: crashes its decoder \(SIGSEGV\); convert it"),
        ("SIGFPE.json", r"SIGFPE.json: crashes its decoder \(SIGFPE\); convert it"),
        ("SIGXCPU.gif", "SIGXCPU.gif: takes more than 60 s of processor time"),
    ):
        wall.read_bytes(data, clip)
        with pytest.raises(StickerError, match=message) as caught:
            wall.read_bytes(data, Path(name))
        assert caught.value.path == Path(name)
    with pytest.raises(ShortageError, match=r"SIGKILL.gif: its process was killed"):
        wall.read_bytes(data, Path("SIGKILL.gif"))
    if sys.platform.startswith("linux"):
        with pytest.raises(StickerError, match="greedy.gif: needs more than 6144 MiB"):
            wall.read_bytes(data, Path("greedy.gif"))
    wall._close_idle()


def test_the_child_stays_for_the_next_call_and_is_replaced_when_it_has_ended(clip: Path):
    first = rdtf.read_sticker(clip)
    (child,) = wall._idle
    rdtf.read_sticker(clip)
    assert wall._idle == [child] and child.answers >= 2
    child._process.kill()
    assert np.array_equal(rdtf.read_sticker(clip).frames, first.frames)
    assert child not in wall._idle


def test_refusals_are_those_of_the_reader(clip: Path, tmp_path: Path):
    (tmp_path / "cut.png").write_bytes(clip.read_bytes()[:60])
    for name in ("cut.png", "missing.png"):
        with pytest.raises(StickerError) as here:
            read.read_sticker(tmp_path / name)
        with pytest.raises(StickerError) as there:
            rdtf.read_sticker(tmp_path / name)
        assert str(here.value) == str(there.value) and here.value.path == there.value.path
    with pytest.raises(ValueError, match="max_frames must be 1 or more"):
        rdtf.read_sticker(clip, max_frames=0)


def test_the_child_needs_no_torch():
    script = "import rdtf.io.wall, sys; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_child_that_cannot_start_is_told(clip: Path, monkeypatch):
    monkeypatch.setattr(wall, "_CHILD", "raise ImportError('numpy is missing')")
    wall._close_idle()
    with pytest.raises(RuntimeError, match=r"clip\.png could not start: ImportError: numpy is missing"):
        rdtf.read_sticker(clip)
