"""Stickers in other colours: which are made, how they look, and how they are described."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.data.derived import write_derived
from rdtf.data.recoloured import HUES, Recolour, main_hue
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.pixels import turn_hue
from rdtf.sticker import Sticker


def disc(colour: tuple[int, int, int], size: int = 32) -> np.ndarray:
    """A disc of a colour with a grey dot."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    out = np.zeros((size, size, 4), np.uint8)
    out[x**2 + y**2 < (size / 2.5) ** 2] = (*colour, 255)
    out[x**2 + y**2 < 9] = (128, 128, 128, 255)
    return out


@pytest.mark.parametrize(
    ("colour", "hue"),
    [((230, 20, 20), 0), ((250, 200, 30), 46), ((30, 200, 40), 123), ((30, 60, 220), 230), ((120, 120, 120), None)],
)
def test_the_main_hue(colour: tuple[int, int, int], hue: float | None) -> None:
    found = main_hue(disc(colour))
    assert found is None if hue is None else abs((found - hue + 180) % 360 - 180) < 4


def test_many_colours_or_nothing_have_no_main_hue() -> None:
    parts = [disc((230, 20, 20)), disc((30, 200, 40)), disc((30, 60, 220))]
    assert main_hue(np.concatenate(parts)) is None
    assert main_hue(np.zeros((8, 8, 4), np.uint8)) is None


def test_turned_hues_keep_greys_and_alpha() -> None:
    red = disc((230, 20, 20))
    green = turn_hue(red, 85)
    assert np.array_equal(green[..., 3], red[..., 3])
    assert green[16, 16].tolist() == [128, 128, 128, 255]
    r, g, b, _ = green[16, 8].astype(int)
    assert g > 220 and r < 40 and b < 40


@pytest.fixture
def stickers(tmp_path: Path) -> Path:
    folder = tmp_path / "stickers"
    folder.mkdir()
    Image.fromarray(disc((30, 200, 40)), "RGBA").save(folder / "dragon.png")
    Image.fromarray(disc((230, 20, 20)), "RGBA").save(folder / "red ball.png")
    Image.fromarray(disc((90, 90, 90)), "RGBA").save(folder / "stone.png")
    away = np.zeros((32, 32, 4), np.uint8)
    away[0, 0] = (230, 20, 20, 255)
    save_sticker(Sticker.at_fps(np.stack([away, away, disc((30, 60, 220))])), folder / "fish.webp")
    lines = [
        {"file_name": "dragon.png", "caption": ["dragon", "monster"], "emoji": "🐉", "style": "flat"},
        {"file_name": "red ball.png", "caption": "red ball"},
        {"file_name": "stone.png", "caption": "stone"},
        {"file_name": "fish.webp", "caption": "fish", "license": "CC0-1.0"},
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_stickers_of_one_colour_get_others(stickers: Path, tmp_path: Path) -> None:
    count, problems = write_derived([stickers], tmp_path / "out", Recolour(32, count=3))
    assert (count, problems) == (6, [])
    rows = [json.loads(line) for line in (tmp_path / "out/metadata.jsonl").read_text().splitlines()]
    for row in rows:
        colour, of = row["attributes"]["colour"], row["attributes"]["of"]
        assert row["caption"] == f"{colour} {of}" and of in ("dragon", "fish")
        assert colour != {"dragon": "green", "fish": "blue"}[of]
        sticker = read_sticker(tmp_path / "out" / row["file_name"])
        assert len(sticker) == 1
        found = main_hue(sticker.frames[0])
        assert found is not None and abs((found - HUES[colour] + 180) % 360 - 180) < 6
        if of == "dragon":
            assert row["caption_1"] == f"{colour} monster" and row["attributes"]["style"] == "flat"
        else:
            assert row["license"] == "CC0-1.0"
    assert len({row["caption"] for row in rows}) == 6
