"""What a sticker may replace: files that were named, and empty folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.io.write import check_target, save_sticker
from rdtf.sticker import Sticker, StickerError


def sticker(n: int = 3) -> Sticker:
    frames = np.zeros((n, 4, 5, 4), np.uint8)
    frames[..., 3] = 255
    frames[:, 0, 0, 0] = np.arange(n)
    return Sticker.at_fps(frames)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ours(folder: Path) -> None:
    save_sticker(sticker(), folder)


def files(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"mine")

    return make


OTHERS = {
    "a pack": files("1.webp", "2.webp", "3.webp"),
    "photos by year": files("2023/holiday.jpg", "2024/birthday.jpg"),
    "hidden files": files(".1"),
    "frames that were written here": ours,
    "a file": lambda folder: folder.write_bytes(b"mine"),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_a_folder_that_holds_anything_is_left_as_it_is(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "keys")
    before = contents(tmp_path)
    for call in (check_target, lambda path: save_sticker(sticker(2), path)):
        with pytest.raises(ValueError, match=r"keys: is there already and is no empty folder"):
            call(tmp_path / "keys")
    assert contents(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    ours(tmp_path / "keys")
    assert len(contents(tmp_path / "keys")) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_inputs_are_never_replaced(tmp_path: Path) -> None:
    ours(tmp_path / "keys")
    picture = tmp_path / "keys" / "000.png"
    (tmp_path / "other.png").hardlink_to(picture)
    for out in (tmp_path / "keys", f"{tmp_path}/keys/", tmp_path / "keys" / ".." / "keys", picture, tmp_path):
        with pytest.raises(ValueError, match=r"input .*000\.png; choose another name|is a folder"):
            check_target(out, [picture])
    with pytest.raises(ValueError, match=r"is the input .* by another name"):
        check_target(tmp_path / "other.png", [picture])
    check_target(tmp_path / "keys" / "smooth.webp", [picture])


@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("animate keys/000.png", "keys/000.png"),
        ("animate keys/000.png", "keys"),
        ("inbetween keys/000.png keys/001.png", "keys/"),
        ("inbetween keys/000.png keys/000-1.png --count 2", "keys/000.png"),
        ("extend keys/000.png", "keys/000.png"),
    ],
)
def test_commands_refuse_to_replace_their_inputs_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, out: str
) -> None:
    ours(tmp_path / "keys")
    (tmp_path / "keys" / "000-1.png").write_bytes((tmp_path / "keys" / "000.png").read_bytes())
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*command.split(), "-m", "nowhere", "-o", out])
    assert result.exit_code == 2
    assert "would replace the input" in result.output
    assert contents(tmp_path) == before


def test_links_devices_long_names_and_missing_folders(tmp_path: Path) -> None:
    save_sticker(sticker(), tmp_path / "a.webp")
    (tmp_path / "link.webp").symlink_to(tmp_path / "a.webp")
    (tmp_path / "lost.webp").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.webp").mkdir()
    before = contents(tmp_path)
    for out, why in {
        tmp_path / "link.webp": "is a symbolic link",
        tmp_path / "lost.webp": "is a symbolic link",
        tmp_path / "folder.webp": "is a folder or a device",
        tmp_path / "a.webp" / "b.webp": "a.webp is no folder",
        tmp_path / f"{'a' * 251}.webp": "cannot be written: File name too long",
        Path("~/a.webp"): "was not replaced by the shell",
    }.items():
        for call in (check_target, lambda path: save_sticker(sticker(), path)):
            with pytest.raises(ValueError, match=why):
                call(out)
    assert contents(tmp_path) == before
    save_sticker(sticker(), tmp_path / f"{'a' * 250}.webp")  # the longest name there is
    save_sticker(sticker(), tmp_path / ("a" * 255))


def test_a_full_or_read_only_disk_is_told_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("rdtf.io.write.tempfile.TemporaryFile", refused)
    with pytest.raises(StickerError, match=r"deep/a\.webp: cannot be written: Read-only"):
        check_target(tmp_path / "deep" / "a.webp")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StickerError, match="keys: cannot be written: No space"):
        save_sticker(sticker(2), tmp_path / "keys")
    assert list(tmp_path.iterdir()) == []
