from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import rdtf.files as files
from rdtf.faults import VARIABLE, FaultError
from rdtf.files import (
    DiskError,
    atomic_file,
    check_space,
    check_writable,
    disk_errors,
    folder_lock,
    mend,
    publish,
    remove,
    write_text,
)


def folder(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "inner").mkdir()
    (path / "inner/a.txt").write_text(content)
    return path


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_folder_takes_the_place_of_another(tmp_path: Path):
    for content in ("one", "two"):
        publish(folder(tmp_path / "x.partial", content), tmp_path / "x")
        assert (tmp_path / "x/inner/a.txt").read_text() == content
        assert names(tmp_path) == ["x"]


def test_a_crash_between_the_renames_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    publish(folder(tmp_path / "x.partial", "one"), tmp_path / "x")
    monkeypatch.setenv(VARIABLE, "files.mid_publish=raise")
    with pytest.raises(FaultError):
        publish(folder(tmp_path / "x.partial", "two"), tmp_path / "x")
    assert names(tmp_path) == ["x.old", "x.partial"]
    (tmp_path / "other.old").write_text("not ours")
    mend(tmp_path, "x")
    assert names(tmp_path) == ["other.old", "x"]
    assert (tmp_path / "x/inner/a.txt").read_text() == "one"


def test_a_half_removed_folder_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "files.mid_remove=raise")
    with pytest.raises(FaultError):
        remove(folder(tmp_path / "step-1", "x"))
    assert names(tmp_path) == ["step-1.removed"]
    mend(tmp_path, "step-*")
    assert names(tmp_path) == []


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / ("n" * 250 + ".json")  # as long as names can be
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="in between"), atomic_file(path) as file:
        file.write(b"half of it")
        assert path.read_text() == "old"
        raise RuntimeError("in between")
    monkeypatch.setenv(VARIABLE, "files.before_replace=raise")
    with pytest.raises(FaultError):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == [path.name]
    code = (
        "import sys; from pathlib import Path; from rdtf.files import write_text; write_text(Path(sys.argv[1]), 'new')"
    )
    environment = {**os.environ, VARIABLE: "files.before_replace=kill"}
    assert subprocess.run([sys.executable, "-c", code, str(path)], env=environment).returncode == -9
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    mend(tmp_path, "any")
    assert names(tmp_path) == [path.name]


def test_a_folder_or_a_device_is_never_replaced_by_a_file(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", Path(os.devnull)):
        with pytest.raises(ValueError, match=f"{path} is not a regular file; choose another name"):
            write_text(path, "x")


def test_a_full_disk_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, 12_300_000))
    check_space(tmp_path, 5_000_000)
    with pytest.raises(DiskError, match=r"400\.0 MB are needed, 12\.3 MB free") as error:
        check_space(tmp_path, 400_000_000)
    assert str(tmp_path) in str(error.value)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(DiskError, match="disk is full"), disk_errors(tmp_path):
            raise OSError(number, os.strerror(number))
    with pytest.raises(DiskError, match="cannot be written"), disk_errors(tmp_path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_libraries_say_about_a_full_disk(tmp_path: Path):
    """A real refusal of the system, through a file object and through safetensors."""
    with pytest.raises(DiskError, match="disk is full"), disk_errors(tmp_path), Path("/dev/full").open("w") as file:
        file.write("x")
    code = (
        "import resource, signal, sys, numpy; from pathlib import Path; from safetensors.numpy import save_file\n"
        "from rdtf.files import disk_errors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with disk_errors(Path(sys.argv[1])): save_file({'a': numpy.zeros(9999)}, sys.argv[1] + '/a.safetensors')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "rdtf.files.DiskError" in done.stderr and "disk is full" in done.stderr, done.stderr
    save_file({"a": np.zeros(9999)}, tmp_path / "a.safetensors")  # which fits without the limit


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_writable(tmp_path / "new/folder")
    assert names(tmp_path / "new/folder") == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError, match="choose another folder"):
        check_writable(tmp_path / "file/folder")
    monkeypatch.setenv(VARIABLE, "files.probe=readonly")
    with pytest.raises(DiskError, match=r"new.*cannot be written to"):
        check_writable(tmp_path / "new")
    with pytest.raises(DiskError, match="disk is full"):
        monkeypatch.setenv(VARIABLE, "files.probe=full")
        check_writable(tmp_path / "new")


def test_a_lock_names_its_holder_and_goes_with_it(tmp_path: Path):
    run, link = tmp_path / "run", tmp_path / "link"
    run.mkdir()
    link.symlink_to(run)
    code = "import sys, time; from pathlib import Path; from rdtf.files import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1]), 'this run'): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for name in (run, link):  # under any name
            refusal = pytest.raises(ValueError, match=f"this run is in use by process {holder.pid} on ")
            with refusal, folder_lock(name, "this run"):
                pass
        (run / ".lock.json").write_text("torn")
        with pytest.raises(ValueError, match="another process"), folder_lock(run, "this run"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with folder_lock(link, "this run"):  # a dead process blocks nobody
        assert json.loads((run / ".lock.json").read_text())["pid"] == os.getpid()
    with folder_lock(run, "this run"):
        pass
    assert not (run / ".lock.json").exists()


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[tuple[str, str]] = []
    rename, replace, sync, fsync = Path.rename, Path.replace, files.sync, os.fsync
    monkeypatch.setattr(files, "sync", lambda path: (order.append(("sync", path.name)), sync(path)))
    monkeypatch.setattr(os, "fsync", lambda number: (order.append(("fsync", "")), fsync(number)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (order.append(("rename", to.name)), rename(self, to)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append(("replace", to.name)), replace(self, to)))
    publish(folder(tmp_path / "x.partial", "one"), tmp_path / "x")
    at = order.index(("rename", "x"))
    assert {("sync", "a.txt"), ("sync", "inner"), ("sync", "x.partial")} <= set(order[:at])
    assert order[at + 1] == ("sync", tmp_path.name)
    order.clear()
    write_text(tmp_path / "a.json", "text")
    assert order[:3] == [("fsync", ""), ("replace", "a.json"), ("sync", tmp_path.name)]


def test_no_other_code_writes_files_that_people_keep():
    """``atomic_file`` writes them all; what is listed here is written otherwise, for the reason beside it."""
    known = {
        "files.py": 2,  # the probe of `check_writable`, and who holds a lock
        "train/checkpoint.py": 3,  # within a folder that `publish` renames
        "data/prepare.py": 1,
        "data/publish.py": 3,  # within a folder that is renamed as a whole
        "io/write.py": 2,  # within a folder that is renamed as a whole
        "train/hardware.py": 1,  # /proc
    }
    found: dict[str, int] = {}
    root = Path(files.__file__).parent
    for path in root.rglob("*.py"):
        count = len(re.findall(r"\.write_(?:text|bytes)\(|\bsave_file\(|sheet\.save\(out", path.read_text()))
        count and found.__setitem__(path.relative_to(root).as_posix(), count)
    assert found.items() <= known.items()
