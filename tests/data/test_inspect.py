"""The page about a dataset: right numbers, nothing left out in silence, nothing in it that could run or be loaded."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

import rdtf.data.inspect as inspect_module
from rdtf.data.dataset import Rejection, StickerDataset
from rdtf.data.inspect import inspect_dataset, reason_kinds
from rdtf.data.prepare import prepare
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker
from tests.data.test_checks import square, with_ground
from tests.data.test_prepare import settings, write_animation, write_still

MARKUP = '<script>alert(1)</script><img src=x onerror=alert(2)> & "quoted" \' {{ 7 * 7 }}'
NASTY = "<img src=x onerror=alert(3)> '\"{{ 7 * 7 }}.png"


class Tags(HTMLParser):
    """All tags with their attributes, and all text; fails on tags that do not nest."""

    VOID = ("meta", "img")

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def stickers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stills and animations, one on a flat ground, one of markup, near-duplicates, and files that are refused."""
    folder = tmp_path_factory.mktemp("stickers") / "set"
    for i in range(6):
        write_still(folder / f"red cat_{i}.png", i)
    write_still(folder / NASTY, 9)
    for i in range(3):
        write_animation(folder / f"moving {'abc'[i]}.webp", 50 + i, count=9)
    save_sticker(Sticker.at_fps(with_ground(square(), (250, 250, 250))), folder / "ground.webp")
    for size in (40, 80):
        frames = square().repeat(size // 40, axis=1).repeat(size // 40, axis=2)
        save_sticker(Sticker.at_fps(frames), folder / f"twin {size}.webp")
    shutil.copy(folder / "red cat_4.png", folder / "red cat_4 copy.png")
    (folder / "<b>bad<b>.gif").write_bytes(b"junk")
    lines = [
        {"file_name": "red cat_0.png", "caption": MARKUP, "license": "<i>CC0"},
        {"file_name": "twin 40.webp", "caption": "javascript:alert(4)", "split": "train"},
        {"file_name": "twin 80.webp", "caption": "javascript:alert(4)", "split": "test"},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def data(stickers: Path) -> Path:
    prepare([stickers], stickers.parent / "data", settings(splits=(1.0, 0.0, 0.0)))
    return stickers.parent / "data"


@pytest.fixture(scope="module")
def page(data: Path) -> Path:
    return inspect_dataset(data, data.parent / "look", count=5, seed=1)


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_everything_is_in_the_lists_beside_the_page(data: Path, page: Path) -> None:
    dataset = StickerDataset(data)
    found = rows_of(page.parent / "checks.csv")
    assert found[0] == ["check", "file", "split"]
    assert sorted(map(tuple, found[1:])) == sorted(
        (code, record.source, record.split)
        for record in map(dataset.record, range(len(dataset)))
        for code in record.checks + record.caption_checks
    )
    rejected = rows_of(page.parent / "rejected.csv")
    assert rejected[1:] == [[r.file, r.reason] for r in dataset.manifest.rejected] and len(rejected) == 3
    head, *members = rows_of(page.parent / "near_duplicates.csv")
    assert head == ["group", "file", "split"]
    assert members == [["0", "set/twin 40.webp", "train"], ["0", "set/twin 80.webp", "test"]]


def test_the_page_tells_it(page: Path) -> None:
    parsed = Tags(page)
    for text in (
        "13 stickers in data",
        "A flat background",
        "rdtf prepare --background transparent",
        "Leaks: 1 groups",
    ):
        assert text in parsed.text
    for text in ("6 animations (6 frames at the median) and 7 stills", "1 of 1 held-out stickers have a first caption"):
        assert text in parsed.text
    for text in (NASTY, "set/<b>bad<b>.gif", "<i>CC0", "duplicate of another file", "javascript:alert(4)"):
        assert text in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text  # nothing of a caption is worked out


def test_every_picture_is_in_the_page_and_can_be_read(data: Path, page: Path) -> None:
    pictures = [attributes["src"] for tag, attributes in Tags(page).tags if tag == "img"]
    assert len(pictures) > 15
    moving = 0
    for source in pictures:
        head, _, body = str(source).partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(b64decode(body))) as image:
            image.load()
            moving += getattr(image, "n_frames", 1) > 1
            assert image.height <= 80
    assert moving > 4
    again = inspect_dataset(data, page.parent.parent / "again", count=5, seed=1)
    assert all((again.parent / file.name).read_bytes() == file.read_bytes() for file in page.parent.iterdir())


def test_captions_and_names_with_markup_cannot_run(page: Path) -> None:
    parsed = Tags(page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "i", "iframe", "object", "link", "base", "form"}
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        if tag == "a":
            assert str(attributes["href"]).startswith("#") or (page.parent / str(attributes["href"])).is_file()
    assert "b" not in names
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script-src" not in policy and "unsafe" not in policy


def test_the_page_stays_small_and_says_what_it_does_not_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_module, "KINDS", 1)
    monkeypatch.setattr(inspect_module, "EXAMPLES", 1)
    monkeypatch.setattr(inspect_module, "LENGTH", 12)
    page = Tags(inspect_dataset(data, tmp_path))
    assert "1 more kinds of reasons are not shown" in page.text and "set/twin 40\N{HORIZONTAL ELLIPSIS}" in str(
        page.tags
    )


def test_clips_prefer_what_moves(data: Path, tmp_path: Path) -> None:
    def clips(count: int) -> int:
        text = Tags(inspect_dataset(data, tmp_path / str(count), count=count)).text
        return len(re.findall(r"\d+ of \d+ frames|a still", text))

    assert clips(4) == 4 and clips(100) == 12  # no more than training has
    with pytest.raises(ValueError, match="count"):
        inspect_dataset(data, tmp_path, count=0)


def test_nothing_but_stills_and_no_captions(tmp_path: Path) -> None:
    for i in range(2):
        write_still(tmp_path / "set" / f"{i}.png", i)
    prepare([tmp_path / "set"], tmp_path / "data", settings())
    text = Tags(inspect_dataset(tmp_path / "data", tmp_path / "look")).text
    assert "nothing moves" in text and "Every file is in the dataset." in text and "None were found." in text


def test_reasons_are_grouped_by_what_they_have_in_common() -> None:
    reasons = ["is 3000 x 20 pixels", "is 17 x 4.5 pixels", "duplicate of set/a 'b'.png", "line 3: 'x y' is not there"]
    kinds = reason_kinds([Rejection(file=str(i), reason=reason) for i, reason in enumerate(reasons)])
    assert [(kind, len(found)) for kind, found in kinds] == [
        ("is N x N pixels", 2),
        ("duplicate of another file", 1),
        ("line N: \N{HORIZONTAL ELLIPSIS} is not there", 1),
    ]
