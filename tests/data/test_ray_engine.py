"""The Ray engine beside the local one: the same bytes, and deaths of processes that cost a file at most."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from rdtf.data.items import Item
from rdtf.data.prepare import prepare
from rdtf.sticker import Sticker
from tests.data.test_prepare import contents, decode_or_die, reasons, settings, write_animation, write_still
from tests.data.test_workers import decode_and_want


def decode_or_kill(item: Item, **kwargs: Any) -> Sticker:
    """Takes its process of Ray along: once if it is shy, else each time."""
    seen = item.path.with_suffix(".seen")
    if item.path.stem == "wild" or (item.path.stem == "shy" and not seen.exists()):
        seen.touch()
        forkserver = psutil.Process().parent()
        assert forkserver is not None
        os.kill(forkserver.ppid(), signal.SIGKILL)
    if item.path.stem == "memory":
        return decode_and_want(Item(item.name, str(item.path.with_stem("slow leak")), item.caption), **kwargs)
    return decode_or_die(item, **kwargs)


def test_without_ray_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_still(tmp_path / "set" / "a.png", 1)
    with pytest.raises(ValueError, match=r"pip install 'rdtf\[ray\]'"):
        prepare([tmp_path / "set"], tmp_path / "data", settings(engine="ray"))


@pytest.mark.slow
def test_the_same_bytes_as_by_the_local_engine(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    root = tmp_path / "set"
    for i in range(20):
        write_still(root / f"still_{i:02}.png", i)
        write_animation(root / f"moving_{i:02}.webp", 100 + i, count=2 + i % 7)
    for i, name in enumerate(["deadly", "endless", "odd", "memory", "zz_copy"]):
        write_still(root / f"{name}.png", 19 if name == "zz_copy" else 50 + i)
    (root / "broken.gif").write_bytes(b"GIF89a and no more")
    values: dict[str, Any] = {"time_limit": 2, "memory_limit": 64, "workers": 2}
    reports = [
        prepare([root], tmp_path / engine, settings(engine=engine, **values), decoder=decode_or_kill)
        for engine in ("local", "ray")
    ]
    why = [reasons(report) for report in reports]
    assert why[0] == why[1] and len(why[0]) == 6
    assert "SIGSEGV" in why[1]["set/deadly.png"] and "64 MiB" in why[1]["set/memory.png"]
    assert contents(tmp_path / "local") == contents(tmp_path / "ray")
    again = prepare([root], tmp_path / "local", settings(engine="ray", **values), decoder=decode_or_kill)
    assert again.plan == "46 kept from the last run"


@pytest.mark.slow
def test_processes_that_die_cost_a_file_at_most(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    root = tmp_path / "set"
    for i, name in enumerate([*(f"still_{i:02}" for i in range(30)), "shy", "wild"]):
        write_still(root / f"{name}.png", i)
    report = prepare([root], tmp_path / "ray", settings(engine="ray", workers=2), decoder=decode_or_kill)
    assert reasons(report) == {"set/wild.png": "took its worker along twice"}
    assert report.manifest.sources == {"set": 31}
