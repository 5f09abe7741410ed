"""Workers against files that want too much, and folders that hold what is no file."""

from __future__ import annotations

import errno
import os
import signal
import socket
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rdtf import device
from rdtf.data import workers as workers_module
from rdtf.data.dataset import StickerDataset
from rdtf.data.find import find_items
from rdtf.data.items import Item
from rdtf.data.prepare import prepare
from rdtf.data.process_file import FileResult, Kind, OneFile
from rdtf.data.workers import run_local
from rdtf.files import ShortageError
from rdtf.sticker import Sticker, StickerError
from tests.data.test_prepare import reasons, settings, write_still


def decode_and_want(item: Item, **kwargs: Any) -> Sticker:
    """A decoder that takes memory, in its ways."""
    if item.path.stem == "numpy":
        np.ones((200, 2**20), np.uint8)
    if item.path.stem == "zlib":
        zlib.decompress(zlib.compress(bytes(100 * 2**20), 1))
    if item.path.stem == "slow leak":
        kept = []
        while True:
            kept.append(bytearray(2**20))
    return item.read(**kwargs)


def test_a_file_that_takes_too_much_memory_is_told_so_and_the_worker_goes_on(tmp_path: Path) -> None:
    for i, name in enumerate(["a", "numpy", "slow leak", "zlib", "z"]):
        write_still(tmp_path / "set" / f"{name}.png", i)
    report = prepare([tmp_path / "set"], tmp_path / "data", settings(memory_limit=64), decoder=decode_and_want)
    why = reasons(report)
    assert why == dict.fromkeys(
        ["set/numpy.png", "set/slow leak.png", "set/zlib.png"], "needs more than 64 MiB of memory"
    )
    assert len(StickerDataset(tmp_path / "data")) == 2


def decode_for_want_of(item: Item, **kwargs: Any) -> Sticker:
    """A decoder on a machine that lacks something, the first times or always."""
    stem, _, times = item.path.stem.partition("-")
    tries = item.path.parent.parent / f"{item.path.stem}.tries"
    with tries.open("ab") as stream:
        stream.write(b"x")
    if times and tries.stat().st_size <= int(times):
        if stem == "threads":
            raise StickerError(item.path, "is damaged") from RuntimeError("can't start new thread")
        if stem == "files":
            raise StickerError(item.path, "cannot be opened") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if stem == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    return item.read(**kwargs)


def test_what_the_machine_lacks_is_no_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "PAUSE_SECONDS", 0)
    names = ["a", "files-1", "killed-1", "threads-2"]
    for i, name in enumerate(names):
        write_still(tmp_path / "set" / f"{name}.png", i)
    report = prepare([tmp_path / "set"], tmp_path / "data", settings(), decoder=decode_for_want_of)
    assert not report.rejected and len(StickerDataset(tmp_path / "data")) == 4
    tries = [(tmp_path / f"{name}.tries").stat().st_size for name in names]
    assert tries[1:] == [2, 2, 3]


def test_what_the_machine_lacks_for_good_ends_the_run_which_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "PAUSE_SECONDS", 0)
    for i, name in enumerate(["a", "threads-9"]):
        write_still(tmp_path / "set" / f"{name}.png", i)
    with pytest.raises(ShortageError, match="set/threads-9.png: can't start new thread, 3 times") as caught:
        prepare([tmp_path / "set"], tmp_path / "data", settings(), decoder=decode_for_want_of)
    assert caught.value.exit_code == 71
    report = prepare([tmp_path / "set"], tmp_path / "data", settings())
    assert report.plan == "1 done before the run was stopped, 1 new or changed" and not report.rejected


def test_a_table_is_read_whatever_memory_its_stickers_may_take(tmp_path: Path) -> None:
    rows = []
    for i in range(6):
        write_still(tmp_path / "still.png", i)
        picture = {"bytes": (tmp_path / "still.png").read_bytes(), "path": f"{i}.png"}
        rows.append({"image": picture, "text": "a cat"})
    (tmp_path / "set").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set" / "t.parquet")
    report = prepare([tmp_path / "set"], tmp_path / "data", settings(workers=2, memory_limit=64))
    assert not report.rejected and len(StickerDataset(tmp_path / "data")) == 6


def test_workers_follow_the_cores_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6}, raising=False)
    monkeypatch.setattr(device, "_QUOTA", tmp_path / "cpu.max")
    assert device.usable_cores() == 3
    for quota, cores in {"max 100000": 3, "150000 100000": 2, "50000 100000": 1, "900000 100000": 3}.items():
        (tmp_path / "cpu.max").write_text(quota)
        assert device.usable_cores() == cores


def test_reasons_hold_no_addresses_and_no_control_characters() -> None:
    reason = "cannot identify <_io.BytesIO object at 0x7f3b5c0>\x1b[2J"
    assert FileResult.refused(reason).payload == b"cannot identify <_io.BytesIO object>\\x1b[2J"


def test_the_largest_frames_fit_into_the_smallest_memory_limit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (256, 256, 4), np.uint8)) for _ in range(8)]
    (tmp_path / "set").mkdir()
    frames[0].save(tmp_path / "set" / "a.png", save_all=True, append_images=frames[1:], duration=50)
    report = prepare([tmp_path / "set"], tmp_path / "data", settings(size=256, max_frames=8, memory_limit=64))
    assert not report.rejected


def test_what_lies_in_folders_and_is_no_file(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_still(root / "a.png", 1)
    os.mkfifo(root / "pipe.gif")
    os.mkfifo(root / "metadata.jsonl")
    os.mkfifo(root / "a.txt")
    (root / "round.webp").symlink_to("round.webp")
    (root / "dangling.webp").symlink_to("nowhere.webp")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "up").symlink_to("..")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket.png"))
    odd = [
        b"\xff\xfe.png",
        b"new\nline.png",
        b"<script>alert(1)</script>.png".replace(b"/", b":"),
        b" .png",
        b"-rf.png",
    ]
    for i, name in enumerate(odd):
        Image.fromarray(np.full((8, 8, 4), 40 + i, np.uint8)).save(root / "spare.png")
        (root / "spare.png").rename(root / os.fsdecode(name))
    report = prepare([root], tmp_path / "data", settings())
    names = set(StickerDataset(tmp_path / "data").column("source"))
    assert len(names) == 5 and "set/new\\nline.png" in names  # escaped: it could steer a terminal
    why = reasons(report)
    assert "surrogate" in why["set/\\udcff\\udcfe.png"]  # its name is no text, so it has no caption
    assert set(why) >= {
        f"set/{name}" for name in ("pipe.gif", "round.webp", "dangling.webp", "zero.png", "up", "socket.png")
    }


def test_a_file_that_goes_away_meanwhile(tmp_path: Path) -> None:
    write_still(tmp_path / "a.png", 1)
    (item,) = find_items(tmp_path, "set").items
    item.path.unlink()
    one_file = OneFile(Item.read, settings())
    ((index, result),) = run_local([7], lambda _: item, one_file, 1)
    assert index == 7 and result.kind == Kind.REFUSED and result.payload == b"No such file or directory"
