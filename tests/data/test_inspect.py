"""The page about a dataset: right numbers, all pictures there, and nothing in it that could run."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.data.dataset import StickerDataset
from rdtf.data.inspect import _bars, dataset_statistics, inspect_dataset
from rdtf.data.prepare import prepare
from tests.data.test_prepare import settings, write_animation, write_still

MARKUP = '<script>alert(1)</script><img src=x onerror=alert(2)> & "quoted"'


class Tags(HTMLParser):
    """All tags with their attributes, and all text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stickers")
    for i in range(6):
        write_still(root / "set" / f"red cat_{i}.png", i)
    for i in range(3):
        write_animation(root / "set" / f"moving {'abc'[i]}.webp", 50 + i, count=9)
    (root / "set" / "<b>bad<b>.gif").write_bytes(b"junk")
    line = {"file_name": "red cat_0.png", "caption": MARKUP, "license": "<i>CC0"}
    (root / "set" / "metadata.jsonl").write_text(json.dumps(line), "utf-8")
    prepare([root / "set"], root / "data", settings(splits=(1.0, 0.0, 0.0)))
    return root / "data"


def test_numbers(data: Path) -> None:
    stats = dataset_statistics(StickerDataset(data))
    assert (stats.total, stats.stills, stats.max_frames) == (9, 6, 9)
    assert stats.frame_counts == {1: 6, 9: 3}
    assert stats.distinct == 5 and stats.frequent[:2] == [("cat", 5), ("red", 5)]
    assert stats.counts == {"train": 9, "val": 0, "test": 0}


def test_page_and_sheet(data: Path, tmp_path: Path) -> None:
    page = inspect_dataset(data, tmp_path / "out", count=5, seed=1)
    assert page == tmp_path / "out" / "index.html"
    parsed = Tags(page)
    pictures = [attributes["src"] for tag, attributes in parsed.tags if tag == "img"]
    assert pictures == ["contact_sheet.png"]
    with Image.open(page.parent / "contact_sheet.png") as sheet:
        assert sheet.height >= 5 * 16 and len(np.unique(np.asarray(sheet))) > 10
    for text in ("9 stickers in data", "train", "67%", "set/<b>bad<b>.gif", "<i>CC0"):
        assert text in parsed.text
    again = inspect_dataset(data, tmp_path / "again", count=5, seed=1)
    assert (again.parent / "contact_sheet.png").read_bytes() == (page.parent / "contact_sheet.png").read_bytes()
    assert again.read_bytes() == page.read_bytes()


def test_captions_and_names_with_markup_cannot_run(data: Path, tmp_path: Path) -> None:
    parsed = Tags(inspect_dataset(data, tmp_path))
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "b", "i", "iframe", "object", "link"}
    assert not any(attribute.startswith("on") for _, attributes in parsed.tags for attribute in attributes)
    policy = next(a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a)
    assert policy and "default-src 'none'" in policy and "script-src" not in policy and "unsafe" not in policy


def test_the_sheet_prefers_what_moves(data: Path, tmp_path: Path) -> None:
    def height(count: int) -> int:
        with Image.open(
            inspect_dataset(data, tmp_path / str(count), count=count).parent / "contact_sheet.png"
        ) as sheet:
            return sheet.height

    assert height(9) == height(100) > height(4)  # no more rows than stickers
    with pytest.raises(ValueError, match="count"):
        inspect_dataset(data, tmp_path, count=0)


def test_histogram_bars_cover_every_sticker() -> None:
    counts = {1: 500, 7: 3, 40: 20, 100: 1}
    bars = _bars(counts)
    assert len(bars) <= 40 and sum(bar.count for bar in bars) == 524
    assert bars[0].label == "1 to 3" and bars[0].height == 120
    assert [bar.low for bar in _bars({1: 4, 3: 1})] == [1, 2, 3]
