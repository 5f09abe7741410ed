"""Style words: what captions end in, which stickers get them, and that the plain caption comes back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.data.dataset import StickerDataset
from rdtf.data.prepare import prepare
from rdtf.data.style import with_style, without_style

from .test_prepare import settings, write_still


@pytest.mark.parametrize(
    ("name", "styled"),
    [
        ("twemoji", "cat, twemoji style"),
        ("fluent-3d", "cat, fluent 3d style"),
        ("Line_Art Style", "cat, Line Art style"),
        ("style", "cat"),
        (" ", "cat"),
    ],
)
def test_a_caption_ends_in_its_style_once_and_comes_back(name: str, styled: str) -> None:
    assert with_style("cat", name) == with_style(with_style("cat", name), name) == styled
    assert without_style(styled, name) == "cat"
    assert with_style("", name) == "" and without_style("cat, twemoji style", None) == "cat, twemoji style"


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    said = {"named": {"style": "fluent-3d"}, "odd": {"style": ["flat", "soft"]}, "none": {}}
    for number, (source, more) in enumerate(said.items()):
        for i in range(8):
            write_still(tmp_path / source / f"{i}.png", 10 * number + i)
        rows = [{"file_name": f"{i}.png", "caption": f"face {i}", "emoji": "🐱", **more} for i in range(8)]
        (tmp_path / source / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return [tmp_path / source for source in said]


def test_styles_from_metadata_and_from_the_command(sources: list[Path], tmp_path: Path) -> None:
    given = ["--size", "16", "--workers", "1", "--split-by", "caption", "--splits", "0.5", "0.3", "0.2"]
    data = tmp_path / "data"
    command = ["prepare", *map(str, sources), str(data), *given, "--style", "none=Line_Art"]
    assert CliRunner().invoke(app, command).exit_code == 0
    dataset = StickerDataset(data)
    records = {record.source: record for record in map(dataset.record, range(len(dataset)))}
    assert records["named/0.png"].captions == ("face 0, fluent 3d style", "cat face, fluent 3d style")
    assert records["none/0.png"].caption == "face 0, Line Art style"
    assert records["none/0.png"].attributes["style"] == "Line_Art"
    assert records["odd/0.png"].caption == "face 0"
    plain = {source: without_style(r.caption, r.attributes.get("style")) for source, r in records.items()}
    assert {*plain.values()} == {f"face {i}" for i in range(8)}
    why = {rejection.file: rejection.reason for rejection in dataset.manifest.rejected}
    assert why["odd/0.png"] == "the field 'style' is not text; the sticker is kept without style words"
    # Stickers of one caption share a split whatever their styles are.
    splits = {(plain[source], record.split) for source, record in records.items()}
    assert len(splits) == 8 and len({split for _, split in splits}) > 1


def test_without_being_asked_captions_are_as_metadata_says(sources: list[Path], tmp_path: Path) -> None:
    prepare(sources, tmp_path / "data", settings())
    assert set(StickerDataset(tmp_path / "data").column("caption")) == {f"face {i}" for i in range(8)}
    with pytest.raises(
        ValueError, match=r"a style is given for elsewhere, but the sources are called named, odd, none"
    ):
        prepare(sources, tmp_path / "other", settings(caption_style=True, styles={"elsewhere": "flat"}))
    with pytest.raises(ValueError, match="styles are for caption_style"):
        settings(styles={"": "flat"})
