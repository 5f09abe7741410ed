"""Captions from metadata, text files and file names; cleaning."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rdtf.data import captions
from rdtf.data.captions import Caption, caption_from_name, clean_caption
from rdtf.io.archives import FolderTree
from rdtf.sticker import StickerError


def _folder(root: Path, *names: str) -> list[str]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return list(names)


def find_captions(root: Path, stickers: list[str], **options: Any) -> tuple[dict[str, Caption], list[StickerError]]:
    problems: list[StickerError] = []
    return dict(captions.find_captions(FolderTree(root), sorted(stickers), problems, **options)), problems


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
    assert found[beside].attributes == {"emoji": "🐱"}


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
    }
    assert (caption.license, caption.split) == ("CC BY 4.0", "val")


def test_objects_lists_and_columns(tmp_path: Path) -> None:
    files = _folder(tmp_path, "a.png", "b.png", "c.png")
    _metadata(
        tmp_path,
        {
            "file_name": "a.png",
            "caption": "un gato",
            "language": "es",
            "caption_pt_BR": "um gato",
            "caption_alt": "cat",
        },
        {"file_name": "b.png", "captions": ["one", "two", "one", ""], "caption_zh": ["三", "四"]},
        {"file_name": "c.png", "caption": {"en": "a cat", "ja": "猫"}, "title": "kept"},
    )
    found, problems = find_captions(tmp_path, files)
    assert not problems
    assert found["a.png"].texts == ("un gato", "cat", "um gato")
    assert found["a.png"].attributes == {"language": "es"}
    assert found["b.png"].texts == ("one", "two", "三", "四")
    assert found["c.png"].texts == ("a cat", "猫")
    assert found["c.png"].attributes == {"title": "kept"}
    found, _ = find_captions(tmp_path, files, columns=["title", "caption_alt"])
    assert found["c.png"].texts == ("kept",) and found["a.png"].texts == ("cat", "um gato")


def test_names_of_emoji() -> None:
    assert captions.emoji_name("👩‍🚀") == "woman astronaut" and captions.emoji_name("🇩🇪") == "Germany"
    assert captions.emoji_name(" 🐱 🐶 ") == "cat face, dog face"
    assert captions.emoji_name("👋🏽") == "waving hand medium skin tone"
    assert [captions.emoji_name(text) for text in ("😂!", "a cat", "7", "")] == [None] * 4


def test_emoji_are_tags(tmp_path: Path) -> None:
    files = _folder(tmp_path, "0001.png", "0002.png", "0003.png", "0004.png")
    _metadata(
        tmp_path,
        {"file_name": "0001.png", "caption": "😂"},
        {"file_name": "0002.png", "text": "Red Heart", "emoji": "❤️"},
        {"file_name": "0003.png", "tags": ["funny", "🐱", 7], "sticker_emoji": "🐶"},
    )
    found, _ = find_captions(tmp_path, files)
    assert [found[file].texts for file in files] == [
        ("😂", "face with tears of joy"),
        ("Red Heart",),  # its name says the same
        ("dog face", "cat face"),
        ("",),
    ]
    assert [found[file].guessed for file in files] == [False, False, False, True]


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_tables(tmp_path: Path, ending: str) -> None:
    files = _folder(tmp_path, "sub/a.png", "sub/b.png")
    rows = [
        {"file_name": "a.png", "text": "a cat, red", "caption_zh": "猫", "artist": "Me"},
        {"file_name": "b.png", "text": None, "caption_zh": None, "artist": "You"},
        {"file_name": "gone.png", "text": "x", "caption_zh": None, "artist": None},
        {"file_name": None, "text": "nothing", "caption_zh": None, "artist": None},
    ]
    path = tmp_path / "sub" / f"metadata.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="," if ending == "csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    found, problems = find_captions(tmp_path, files)
    assert found["sub/a.png"].texts == ("a cat, red", "猫") and found["sub/b.png"].texts == ("b",)
    assert found["sub/b.png"].attributes["artist"] == "You"
    counted = "row" if ending == "parquet" else "line"
    first = 3 if ending == "parquet" else 4
    assert [problem.reason.partition(":")[0] for problem in problems] == [
        f"{counted} {first}",
        f"{counted} {first + 1}",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", b"file_name,text\na.png,caf\xe9\n"),
        ("metadata.csv", b'file_name,text\na.png,"never closed\n'),
        ("metadata.parquet", b"PAR1 nothing"),
    ],
)
def test_damaged_tables_are_problems(tmp_path: Path, name: str, content: bytes) -> None:
    files = _folder(tmp_path, "a.png")
    (tmp_path / name).write_bytes(content)
    found, problems = find_captions(tmp_path, files)
    assert found["a.png"].texts == ("a",)
    assert [str(problem.path) for problem in problems] == [name] and "cannot be read" in problems[0].reason


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
    assert found[files[1]].texts == ("x",)
    numbers = [int(problem.reason.split()[1].rstrip(":")) for problem in problems]
    assert numbers == [1, 4, 5, 6, 8]  # NaN is no value, as pandas writes it
    assert {str(problem.path) for problem in problems} == {"metadata.jsonl"}


def test_a_line_too_long_is_passed_over_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdtf.data.metadata_files.MAX_LINE_BYTES", 100)
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
    (tmp_path / "a.txt").write_text("a café", "utf-16")
    found, problems = find_captions(tmp_path, files)
    assert found["a.png"].texts == ("a",) and found["a.png"].guessed
    assert [str(problem.path) for problem in problems] == ["a.txt"]
    assert "not UTF-8" in problems[0].reason


def test_a_text_belongs_to_its_own_file_only(tmp_path: Path) -> None:
    files = _folder(tmp_path, "cat.webp", "cat.happy.webp", "cat.v2.webp", "Mr. Smile.webp", "v1.0/dog.webp")
    for name in ("cat.txt", "Mr.txt", "v1.txt"):
        (tmp_path / name).write_text("a text", "utf-8")
    found, problems = find_captions(tmp_path, files)
    assert [found[file].texts[0] for file in files] == ["a text", "cat.happy", "cat.v", "Mr. Smile", "dog"]
    assert sorted(str(problem.path) for problem in problems) == ["Mr.txt", "v1.txt"]
    assert {problem.reason for problem in problems} == {"belongs to no sticker, and is not read"}


@pytest.mark.parametrize("text", ["a.caption", "a.TXT", "A.txt", "a.webp.txt", "a.cap"])
def test_texts_of_other_trainers(tmp_path: Path, text: str) -> None:
    files = _folder(tmp_path, "a.webp")
    (tmp_path / text).write_text("from a text", "utf-8")
    found, problems = find_captions(tmp_path, files)
    assert found["a.webp"].texts == ("from a text",) and not problems


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_unicode_forms_are_one_name(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFD" if form == "NFC" else "NFC"
    names = [unicodedata.normalize(form, name) for name in ("café.webp", "고양이.webp")]
    files = _folder(tmp_path, *names)
    (tmp_path / unicodedata.normalize(other, "고양이.txt")).write_text("a cat", "utf-8")
    _metadata(tmp_path, {"file_name": unicodedata.normalize(other, "café.webp"), "text": "a cup"})
    found, problems = find_captions(tmp_path, files)
    assert not problems and [found[name].texts for name in names] == [("a cup",), ("a cat",)]


@pytest.mark.parametrize("name", ["train\\my cat.webp", ".\\train\\My Cat.WEBP", "train/my%20cat.webp"])
def test_names_as_windows_and_urls_write_them(tmp_path: Path, name: str) -> None:
    files = _folder(tmp_path, "train/my cat.webp")
    _metadata(tmp_path, {"file_name": name, "text": "found"}, {"file_name": "C:\\x\\gone.webp", "text": "x"})
    found, problems = find_captions(tmp_path, files)
    assert found[files[0]].texts == ("found",)
    assert ["line 2" in problem.reason for problem in problems] == [True]


def test_a_table_as_excel_writes_it_where_the_comma_is_decimal(tmp_path: Path) -> None:
    files = _folder(tmp_path, "b.webp")
    (tmp_path / "metadata.csv").write_text("file_name;text\nb.webp;a cat, red\n", "utf-8-sig")
    found, problems = find_captions(tmp_path, files)
    assert not problems and found["b.webp"].texts == ("a cat, red",)


def test_captions_that_are_no_text(tmp_path: Path) -> None:
    values = ["null", "NaN", "Infinity", '"nan"', '{"en": null}', "[]", '[null, "x"]', "7", "true", "[[1]]"]
    files = _folder(tmp_path, *(f"{number:02}.webp" for number in range(len(values))))
    lines = [f'{{"file_name": "{file}", "caption": {value}}}' for file, value in zip(files, values, strict=True)]
    _metadata(tmp_path, *lines)
    found, problems = find_captions(tmp_path, files)
    assert [found[file].texts[0] for file in files] == ["", "", "", "", "", "", "x", "7", "", ""]
    assert [str(problem.path) for problem in problems] == files[-2:]


@pytest.mark.parametrize(
    "content",
    [
        [{"file_name": "a.webp", "text": "a cat"}],
        {"a.webp": "a cat"},
        {"a.webp": {"text": "a cat"}},
    ],
)
def test_metadata_in_one_json(tmp_path: Path, content: object) -> None:
    files = _folder(tmp_path, "a.webp")
    (tmp_path / "metadata.json").write_text(json.dumps(content), "utf-8")
    found, problems = find_captions(tmp_path, files)
    assert not problems and found["a.webp"].texts == ("a cat",)


def test_cleaning() -> None:
    assert clean_caption("  cafe\u0301\t\n au \x07lait\u202e \ufeff") == "caf\u00e9 au lait"
    assert clean_caption("a" * 5000) == "a" * 4096
    family = "\U0001f468\u200d\U0001f469"  # the joiner is part of the emoji
    assert clean_caption(family) == family


def test_names() -> None:
    names = {"baby_chick.gif": "baby chick", "cat--12.webp": "cat", "3_cats_(4).png": "3 cats", "0042.png": ""}
    assert {name: caption_from_name(Path(name)) for name in names} == names
