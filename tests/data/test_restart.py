"""Runs that are killed, started again, or started over changed files: the same bytes, and nothing read twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from rdtf import faults, files
from rdtf.data import prepare as prepare_module
from rdtf.data import workers as workers_module
from rdtf.data.dataset import StickerDataset
from rdtf.data.items import Item
from rdtf.data.prepare import PrepareReport, PrepareSettings, prepare
from rdtf.data.settings import PARTS
from rdtf.sticker import Sticker
from tests.data.test_prepare import contents, settings, write_animation, write_still

DEADLY = frozenset({"dies"})


def decode_and_count(item: Item, **kwargs: Any) -> Sticker:
    """Leaves one byte in a file beside the source for each call on a sticker."""
    with (item.path.parent.parent / "calls" / item.path.name).open("ab") as stream:
        stream.write(b"x")
    if item.path.stem in DEADLY:
        os.kill(os.getpid(), signal.SIGSEGV)
    return item.read(**kwargs)


def calls(root: Path) -> dict[str, int]:
    """How often each file was decoded since the last time this was asked."""
    counts = {file.name: file.stat().st_size for file in sorted((root / "calls").iterdir())}
    for file in (root / "calls").iterdir():
        file.unlink()
    return counts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Stills, animations, a copy, and files that are refused: one by its bytes, one for its crash."""
    (tmp_path / "calls").mkdir()
    for i in range(8):
        write_still(tmp_path / "set" / f"still_{i}.png", i)
    for i in range(3):
        write_animation(tmp_path / "set" / f"moving_{i}.webp", 100 + i, count=4 + i)
    shutil.copy(tmp_path / "set" / "still_3.png", tmp_path / "set" / "still_3_copy.png")
    (tmp_path / "set" / "broken.gif").write_bytes(b"GIF89a and no more")
    write_still(tmp_path / "set" / "dies.png", 50)
    return tmp_path


def run(root: Path, name: str = "data", *, overwrite: bool = False, **values: Any) -> PrepareReport:
    return prepare([root / "set"], root / name, settings(**values), overwrite=overwrite, decoder=decode_and_count)


def _run_with_fault(fault: str, root: Path) -> None:
    os.environ[faults.VARIABLE] = fault
    run(root)


def run_killed(root: Path, fault: str) -> None:
    """A run in another process, which kills itself at a named point."""
    process = multiprocessing.get_context("forkserver").Process(target=_run_with_fault, args=(fault, root))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


POINTS = [
    "prepare.record:11",  # the sixth result is written but not committed
    "prepare.record:12",  # behind it
    "prepare.mid_file",
    "prepare.before_manifest",
    "prepare.after_manifest",
]
FEW = ["prepare.record:11"]
ALL = [point if point in FEW else pytest.param(point, marks=pytest.mark.slow) for point in POINTS]


@pytest.mark.parametrize("fault", ALL)
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(root: Path, fault: str) -> None:
    run(root, "clean")
    once = calls(root)
    assert once.pop("dies.png") == 2 and set(once.values()) == {1}
    run_killed(root, fault)
    assert (root / "data" / "manifest.json").exists() == (fault == "prepare.after_manifest")
    report = run(root)
    done = {"prepare.record:11": 5, "prepare.record:12": 6, "prepare.after_manifest": 0}.get(fault, 14)
    if done:
        assert report.plan == f"{done} done before the run was stopped" + (
            f", {14 - done} new or changed" if done < 14 else ""
        )
    again = calls(root)
    assert again.keys() == {*once, "dies.png"}
    again.pop("dies.png")  # its crash may fall to the one run and to the other
    # What is in the store is not read again: all but the file that was being stored and the one behind it.
    twice = sum(count - 1 for count in again.values())
    assert twice <= (2 if done < 14 else 0)
    assert contents(root / "data") == contents(root / "clean")


def test_a_change_that_is_stopped_leaves_the_old_dataset_until_it_is_whole(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root)
    before = contents(root / "data")
    reader = StickerDataset(root / "data")
    monkeypatch.setenv(faults.VARIABLE, "prepare.before_manifest=raise")
    with pytest.raises(faults.FaultError):
        run(root, overwrite=True, size=24)
    monkeypatch.delenv(faults.VARIABLE)
    now = contents(root / "data")
    assert {name: now[name] for name in before} == before
    assert StickerDataset(root / "data").size == 16
    run(root, overwrite=True, size=24)
    assert reader.frames(0).shape[1] == 16  # who reads the old one meanwhile goes on with it
    run(root, "clean", size=24)
    assert contents(root / "data") == contents(root / "clean")


def test_over_a_finished_dataset_only_what_changed_is_read(root: Path) -> None:
    first = run(root)
    calls(root)
    before = {file: file.stat().st_mtime_ns for file in (root / "data").glob("*.*")}
    report = run(root, workers=2, time_limit=30)
    assert report.plan == "14 kept from the last run" and report.manifest == first.manifest
    assert {file: file.stat().st_mtime_ns for file in before} == before

    (root / "set" / "still_2.txt").write_text("a red square", "utf-8")
    assert "captions changed: no frames are needed" in run(root).plan
    assert "a red square" in StickerDataset(root / "data").column("caption")
    assert calls(root) == {}

    write_still(root / "set" / "still_0.png", 60)
    write_still(root / "set" / "a_new.png", 61)
    (root / "set" / "moving_1.webp").unlink()
    (root / "set" / "still_3.png").unlink()  # its copy takes its place, and needs frames of its own
    assert run(root).plan == "11 kept from the last run, 2 new or changed, 2 gone"
    assert calls(root) == {"a_new.png": 1, "still_0.png": 1, "still_3_copy.png": 1}

    shutil.copy(root / "set" / "still_5.png", root / "set" / "a_copy.png")  # is before the one that it is equal to
    report = run(root)
    assert {r.file: r.reason for r in report.rejected}["set/still_5.png"] == "duplicate of set/a_copy.png"
    run(root, "clean")
    assert contents(root / "data") == contents(root / "clean")


def test_a_changed_setting_redoes_what_depends_on_it_and_says_so(root: Path) -> None:
    run(root)
    everything = sorted(calls(root))
    values: dict[str, Any] = {}
    for name, value, said, read in (
        ("seed", 4, "seed changed: no frames are needed for that", []),
        ("split_by", "caption", "split_by changed: no frames are needed for that", []),
        ("time_limit", 20, "time_limit changed: what was stopped by it is tried again", ["dies.png"]),
        ("max_frames", 3, "max_frames changed: all are read again", everything),
    ):
        values[name] = value
        assert said in run(root, overwrite=True, **values).plan
        assert sorted(calls(root)) == read
    run(root, "clean", **values)
    assert contents(root / "data") == contents(root / "clean")


def test_every_setting_is_in_one_part() -> None:
    named = [name for part in PARTS.values() for name in part]
    assert sorted(named) == sorted(PrepareSettings.model_fields)


def test_shards_before_the_first_change_are_not_written_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdtf.data.rows.ROWS_PER_FILE", 4)
    run(root)
    before = {file.name: file.stat().st_ino for file in (root / "data").glob("stickers-*.arrow")}
    write_still(root / "set" / "zz_last.png", 77)
    run(root)
    after = {file.name: file.stat().st_ino for file in (root / "data").glob("stickers-*.arrow")}
    assert len(before) == len(after) == 3
    assert sorted(name for name in after if before.get(name) == after[name]) == sorted(before)[:2]


def test_two_runs_never_hold_a_folder_and_its_lock_is_never_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that opened a removed lock file and one that makes it anew would hold two locks at once."""
    lock, locks = root / "data" / ".lock", set[int]()

    def look(*args: Any) -> None:
        with pytest.raises(ValueError, match="this dataset is in use by process"):
            run(root)
        locks.add(lock.stat().st_ino)
        sweep(*args)
        locks.add(lock.stat().st_ino)

    sweep = prepare_module._sweep
    monkeypatch.setattr(prepare_module, "_sweep", look)
    run(root)
    run(root)
    assert locks == {lock.stat().st_ino}


def test_a_damaged_store_or_dataset_costs_time_and_nothing_else(root: Path) -> None:
    run(root)
    before = contents(root / "data")
    (store,) = (root / "data" / "cache").iterdir()
    store.write_bytes(b"nothing that SQLite can read")
    with pytest.raises(ValueError, match="not known which"):
        run(root)
    run(root, overwrite=True)
    assert contents(root / "data") == before
    (shard,) = (root / "data").glob("stickers-*.arrow")
    shard.write_bytes(before[shard.name][:-100])
    with pytest.raises(ValueError, match="damaged"):
        run(root)
    run(root, overwrite=True)
    assert contents(root / "data") == before


def test_a_full_disk_is_told_and_the_same_command_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fault in ("prepare.record:5=full", "prepare.mid_file=full"):
        monkeypatch.setenv(faults.VARIABLE, fault)
        with pytest.raises(files.DiskError, match=r"data: the disk is full \(.* free\)") as caught:
            run(root)
        assert caught.value.exit_code == 74
        monkeypatch.delenv(faults.VARIABLE)
    assert "14 done before the run was stopped" in run(root).plan
    run(root, "clean")
    assert contents(root / "data") == contents(root / "clean")


def test_a_disk_that_takes_no_database_is_told(root: Path) -> None:
    (root / "data" / "cache" / "prepared.sqlite").mkdir(parents=True)
    with pytest.raises(files.DiskError, match=r"data cannot be written to any more"):
        run(root)


def test_an_interruption_keeps_what_is_done(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = 0

    def hear(worker: Any) -> Any:
        nonlocal heard
        heard += 1
        if heard == 6:
            raise KeyboardInterrupt
        return original(worker)

    original = workers_module._Worker.hear
    monkeypatch.setattr(workers_module._Worker, "hear", hear)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    monkeypatch.undo()
    assert sorted(path.name for path in (root / "data").iterdir()) == [".lock", "cache"]
    assert "done before the run was stopped" in run(root).plan
    run(root, "clean")
    assert contents(root / "data") == contents(root / "clean")
