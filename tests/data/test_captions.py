"""Captions from metadata, text files and file names; cleaning; which captions forbid a mirror image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rdtf.data import captions
from rdtf.data.captions import Caption, caption_from_name, clean_caption, is_flippable
from rdtf.data.trees import FolderTree
from rdtf.sticker import StickerError


def _folder(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return list(names)


def find_captions(root: Path, stickers: list[str], **options: Any) -> tuple[dict[str, Caption], list[StickerError]]:
    return captions.find_captions(FolderTree(root), stickers, **options)


def _metadata(folder: Path, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(texts), "utf-8")


def test_each_source_in_its_turn(tmp_path: Path) -> None:
    in_metadata, beside, by_name = _folder(tmp_path, "a.png", "b.png", "happy_red-cat_012.png")
    _metadata(tmp_path, {"file_name": "a.png", "caption": "from metadata"}, {"file_name": "b.png", "emoji": "🐱"})
    (tmp_path / "a.txt").write_text("not this", "utf-8")
    (tmp_path / "b.txt").write_text("\ufefffrom the\ntext file\n", "utf-8")
    found, problems = find_captions(tmp_path, [in_metadata, beside, by_name])
    assert not problems
    assert [found[file].texts for file in (in_metadata, beside, by_name)] == [
        ("from metadata",),
        ("from the text file", "cat face"),
        ("happy red cat",),
    ]
    assert found[beside].attributes == {"emoji": "🐱", "languages": ["", "en"]}


def test_all_metadata_fields_are_kept(tmp_path: Path) -> None:
    files = _folder(tmp_path, "a.png")
    _metadata(
        tmp_path,
        {
            "file_name": "a.png",
            "text": "a cat",
            "caption_zh": "一只猫",
            "caption_alt": "a cat",
            "keywords": ["cat"],
            "source": "somewhere",
            "license": "CC BY 4.0",
            "split": "validation",
            "attributes": {"body": "cat", "colour": "red"},
        },
    )
    found, problems = find_captions(tmp_path, files)
    caption = found[files[0]]
    assert not problems
    assert caption.texts == ("a cat", "一只猫")  # the equal one is not kept twice
    assert caption.attributes == {
        "keywords": ["cat"],
        "source": "somewhere",
        "body": "cat",
        "colour": "red",
        "languages": ["", "zh"],
    }
    assert (caption.license, caption.split) == ("CC BY 4.0", "val")


def test_bad_lines_are_reported_by_number_and_harm_no_other(tmp_path: Path) -> None:
    files = _folder(tmp_path, "a.png", "b.png")
    _metadata(
        tmp_path,
        "{broken",
        "",
        {"file_name": "a.png", "caption": "fine"},
        {"file_name": "a.png", "caption": "again"},
        {"file_name": "../../etc/passwd", "caption": "outside"},
        ["no object"],
        '{"file_name": "b.png", "caption": "x", "score": NaN}',
        "[" * 100_000,
    )
    found, problems = find_captions(tmp_path, files)
    assert found[files[0]].texts == ("fine",)
    assert found[files[1]].texts == ("b",)
    numbers = [int(problem.reason.split()[1].rstrip(":")) for problem in problems]
    assert numbers == [1, 4, 5, 6, 7, 8]
    assert {str(problem.path) for problem in problems} == {"metadata.jsonl"}


def test_a_line_too_long_is_passed_over_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions, "MAX_LINE_BYTES", 100)
    files = _folder(tmp_path, "a.png", "b.png")
    _metadata(tmp_path, {"file_name": "a.png", "caption": "x" * 450}, {"file_name": "b.png", "caption": "short"})
    found, problems = find_captions(tmp_path, files)
    assert found[files[1]].texts == ("short",)
    assert [problem.reason for problem in problems] == ["line 1: longer than 100 bytes"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"caption": "cut\0off"}, "NUL"),
        ({"caption": "half \ud83d"}, "surrogate"),
        ({"caption": 7}, "not text"),
        ({"caption": "x", "split": "holdout"}, "split 'holdout'"),
        ({"caption": "x", "attributes": [1]}, "not an object"),
    ],
)
def test_an_unusable_entry_costs_its_sticker_and_says_why(tmp_path: Path, entry: dict, reason: str) -> None:
    files = _folder(tmp_path, "a.png")
    _metadata(tmp_path, {"file_name": "a.png", **entry})
    found, problems = find_captions(tmp_path, files)
    assert not found
    assert str(problems[0].path) == files[0]
    assert reason in problems[0].reason and "line 1" in problems[0].reason


def test_the_nearest_metadata_wins_and_reaches_subfolders(tmp_path: Path) -> None:
    files = _folder(tmp_path, "sub/a.png", "sub/b.png")
    _metadata(tmp_path, {"file_name": "sub/a.png", "caption": "far a"}, {"file_name": "sub/b.png", "caption": "far b"})
    _metadata(tmp_path / "sub", {"file_name": "a.png", "caption": "near a"})
    found, problems = find_captions(tmp_path, files)
    assert not problems
    assert [found[file].texts[0] for file in files] == ["near a", "far b"]


def test_no_caption_is_read_from_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    files = _folder(tmp_path / "set", "cat.png")
    (tmp_path / "set" / "cat.txt").symlink_to(tmp_path / "secret.txt")
    found, _ = find_captions(tmp_path / "set", files)
    assert found[files[0]].texts == ("cat",)


def test_text_files_that_are_not_utf8(tmp_path: Path) -> None:
    files = _folder(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    found, problems = find_captions(tmp_path, files)
    assert not found and "not UTF-8" in problems[0].reason


def test_cleaning() -> None:
    assert clean_caption("  cafe\u0301\t\n au \x07lait\u202e \ufeff") == "caf\u00e9 au lait"
    assert clean_caption("a" * 5000) == "a" * 4096
    family = "\U0001f468\u200d\U0001f469"  # the joiner is part of the emoji
    assert clean_caption(family) == family


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("baby_chick.gif", "baby chick"),
        ("cat--12.webp", "cat"),
        ("3_cats_(4).png", "3 cats"),
        ("0042.png", ""),
        ("dog2.png", "dog"),
    ],
)
def test_names(name: str, caption: str) -> None:
    assert caption_from_name(Path(name)) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "COOL button",
        "backhand index pointing left",
        "Right-facing fist",
        "a cat turning clockwise",
        "up arrows",
        "keycap #",
        "flag in hole",
        "eight o'clock",
        "one-thirty",
        "pool 8 ball",
        "dog saying LOL",
        "letter m",
        "mobile phone off",
        "circled M",
        "第２名",
        "向左的箭头",
        "写着字的牌子",
        "闹钟",
        "红旗",
    ],
)
def test_captions_that_forbid_a_mirror_image(caption: str) -> None:
    assert not is_flippable(caption)


@pytest.mark.parametrize(
    "caption", ["", "waving hand", "a bright red cat jumps", "I love you", "A dog", "flagpole eel", "一只红色的猫在跳"]
)
def test_captions_that_allow_it(caption: str) -> None:
    assert is_flippable(caption)
