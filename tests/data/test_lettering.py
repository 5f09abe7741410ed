"""Writing is told from other drawings, on rendered words and on stickers of the built-in world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from rdtf.data.checks import describe
from rdtf.data.find import find_items
from rdtf.data.lettering import is_lettering
from rdtf.pixels import composite, fit
from rdtf.world import draw_sticker


def write(text: str, *, outline: int = 0, turn: float = 0, size: int = 64) -> np.ndarray:
    """One frame with a text in the middle, in blue."""
    picture = Image.new("RGBA", (600, 600))
    ImageDraw.Draw(picture).multiline_text(
        (300, 300),
        text,
        font=ImageFont.load_default(70),
        anchor="mm",
        align="center",
        fill=(30, 60, 180, 255),
        stroke_width=outline,
        stroke_fill=(255, 255, 255, 255),
    )
    return fit(np.array(picture.rotate(turn))[None, 60:540, 60:540], size)


@pytest.mark.parametrize("text", ["HELLO", "good\nmorning", "Thank\nyou!", "2024"])
@pytest.mark.parametrize("outline", [0, 7])
@pytest.mark.parametrize("size", [64, 128])
def test_words_are_lettering(text: str, outline: int, size: int) -> None:
    frames = write(text, outline=outline, size=size)
    assert is_lettering(frames)
    assert is_lettering(frames[:, :, ::-1])  # mirrored too
    on_ground = np.concatenate([composite(frames, (250, 240, 200)), np.full_like(frames[..., 3:], 255)], axis=-1)
    assert is_lettering(on_ground)
    assert "text_only" in describe(frames, np.ones(1))["findings"]


def test_lettering_that_moves_is_lettering_on_every_frame() -> None:
    swaying = np.concatenate([write("HELLO", turn=turn) for turn in (-5, 0, 5)])
    assert is_lettering(swaying)
    becomes_a_face = np.concatenate([swaying, fit(draw_sticker(0, 5, size=64).frames[:1], 64)])
    assert not is_lettering(becomes_a_face)


def test_letters_beside_a_drawing_are_not_lettering_only() -> None:
    frames = write("HELLO")
    frames[:, 42:62, 22:42] = (200, 40, 40, 255)
    assert not is_lettering(frames)
    button = write("HELLO")
    button[button[..., 3] < 128] = (200, 40, 40, 255)
    button[:, :4] = button[:, -4:] = button[:, :, :4] = button[:, :, -4:] = 0
    assert not is_lettering(button)


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 32, 32, 4)), np.full((2, 32, 32, 4), 255), np.eye(64)[None, ..., None]]
)
def test_hardly_anything_is_no_lettering(frames: np.ndarray) -> None:
    assert not is_lettering(np.broadcast_to(255 * (frames > 0), (*frames.shape[:3], 4)).astype(np.uint8))


def test_stickers_of_the_world_are_hardly_ever_taken_for_it() -> None:
    assert sum(is_lettering(draw_sticker(1, number, size=64).frames) for number in range(100)) <= 1


@pytest.mark.stickers
def test_real_stickers_are_hardly_ever_taken_for_it(real_stickers: Path) -> None:
    items = find_items(real_stickers / "static", "static").items[::10]
    assert len(items) > 100
    assert sum(is_lettering(item.read(size=64, max_frames=1).frames) for item in items) <= 1
