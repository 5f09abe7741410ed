"""What is found in folders and archives, before anything is decoded."""

from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rdtf.data.find import find_items, source_labels
from rdtf.files import ShortageError
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker, StickerError


def blob(seed: int = 0, count: int = 3, size: int = 16) -> Sticker:
    """A square of a random colour that moves right."""
    rng = np.random.default_rng(seed)
    frames = np.zeros((count, size, size, 4), np.uint8)
    for index in range(count):
        frames[index, 4:12, index : index + 8] = (*rng.integers(0, 256, 3), 255)
    return Sticker(frames, np.arange(count) * 10.0 + 40)


def test_items_are_sorted_and_read_themselves(tmp_path: Path) -> None:
    for i, name in enumerate(["b/x.webp", "b-2/x.webp", "a.png"]):
        save_sticker(blob(i), tmp_path / name)
    (tmp_path / "a.txt").write_text("a square", "utf-8")
    found = find_items(tmp_path, "set")
    assert [item.name for item in found.items] == ["set/a.png", "set/b-2/x.webp", "set/b/x.webp"]
    assert (found.problems, found.passed_over) == ([], 1)
    assert found.items[0].caption.texts == ("a square",)
    item = pickle.loads(pickle.dumps(found.items[2]))
    assert item == found.items[2] and item.path == tmp_path / "b" / "x.webp"
    assert np.array_equal(item.read().frames, blob(0).frames)
    assert item.read(size=8, max_frames=2).frames.shape == (2, 8, 8, 4)


def test_a_stamp_changes_with_the_bytes_and_not_with_the_caption(tmp_path: Path) -> None:
    save_sticker(blob(), tmp_path / "a.png")
    before = find_items(tmp_path, "set").items[0].stamp()
    (tmp_path / "a.txt").write_text("a square", "utf-8")
    item = find_items(tmp_path, "other").items[0]
    assert item.stamp() == before
    os.utime(tmp_path / "a.png", ns=(1, 1))
    assert item.stamp() != before
    (tmp_path / "a.png").unlink()
    with pytest.raises(StickerError, match="No such file"):
        item.stamp()


def test_hidden_folders_are_counted_and_parts_of_systems_are_no_stickers(tmp_path: Path) -> None:
    save_sticker(blob(), tmp_path / "cat.webp")
    hidden = [".git/a/b.webp", "__MACOSX/._cat.webp", "@eaDir/cat.webp/THUMB.webp", "#recycle/x.png", "._cat.webp"]
    for name in hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("cat.webp", *hidden):
            archive.writestr(name, b"x")
    found = find_items(tmp_path, "set")
    assert [item.name for item in found.items] == ["set/cat.webp", "set/set.zip/cat.webp"]
    assert not found.problems and found.passed_over == 2 * len(hidden)


def test_a_link_to_itself_hides_no_other_file(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"round {number}.png").symlink_to(f"round {number}.png")
    found = find_items(tmp_path, "set")
    assert len(found.items) == 20
    assert {problem.reason for problem in found.problems} == {"not a regular file"} and len(found.problems) == 20


def test_names_and_reasons_cannot_steer_a_terminal(tmp_path: Path) -> None:
    save_sticker(blob(), tmp_path / "\x1b[31mred\u202e.png")
    (tmp_path / "bell\x07.xyz").touch()
    found = find_items(tmp_path, "set")
    assert [item.name for item in found.items] == ["set/\\x1b[31mred\\u202e.png"]
    assert [problem.file for problem in found.problems] == ["set/bell\\x07.xyz"]
    assert len(found.items[0].read()) == 3  # it is still found on the disk


def test_what_the_machine_lacks_is_no_verdict_on_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set.zip").touch()

    def fail(*args: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("rdtf.io.archives._zip_members", fail)
    monkeypatch.setattr("rdtf.io.archives._tar_members", fail)
    with pytest.raises(ShortageError, match="Too many open files"):
        find_items(tmp_path, "set")


def test_parts_and_tables_under_other_names_are_told(tmp_path: Path) -> None:
    lottie = {"v": "5", "fr": 30, "layers": [], "assets": [{"id": "i", "u": "images/", "p": "img_0.png"}]}
    (tmp_path / "images").mkdir()
    save_sticker(blob(1), tmp_path / "images" / "img_0.png")
    save_sticker(blob(2), tmp_path / "images" / "other.png")
    (tmp_path / "data.json").write_text(json.dumps(lottie), "utf-8")
    (tmp_path / "data.csv").write_text("a,b", "utf-8")
    (tmp_path / "half.webp.crdownload").touch()
    found = find_items(tmp_path, "set")
    assert [item.name for item in found.items] == ["set/data.json", "set/images/other.png"]
    assert {problem.file: problem.reason for problem in found.problems} == {
        "set/data.csv": "is not read; if it has captions, call it metadata.csv",
        "set/half.webp.crdownload": "the ending '.crdownload' is not a known sticker format",
    }
    assert found.passed_over == 2


def test_equal_names_get_numbers(tmp_path: Path) -> None:
    assert source_labels([tmp_path / "a" / "x", tmp_path / "b" / "x", tmp_path / "y"]) == ["x", "x-2", "y"]


@pytest.mark.stickers
def test_all_real_files_are_found_with_their_captions(real_stickers: Path) -> None:
    for name, count in (("animated", 398), ("gif", 48), ("static", 1286)):
        found = find_items(real_stickers / name, name)
        assert not found.problems
        assert len(found.items) == count and all(item.caption.texts[0] for item in found.items)
