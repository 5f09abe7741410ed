"""Checks and fixes, on frames made by hand and on captions as people write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS, check_captions, describe
from rdtf.data.fixes import clear_background, crop_to_content, drawn_box
from rdtf.pixels import composite
from rdtf.world import draw_sticker


def square(count: int = 4, size: int = 40, at: int = 8, side: int = 24, step: int = 1) -> np.ndarray:
    """A square on transparency that moves to the right and back."""
    frames = np.zeros((count, size, size, 4), np.uint8)
    for i, frame in enumerate(frames):
        x = at + step * min(i, count - i)
        frame[at : at + side, x : x + side] = (200, 60, 20, 255)
    return frames


def failed(frames: np.ndarray) -> list[str]:
    found = describe(frames, np.full(len(frames), 100.0))["checks"]
    assert set(found) <= set(FRAME_CHECKS)
    return found


def with_ground(frames: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.concatenate([composite(frames, colour), np.full_like(frames[..., 3:], 255)], axis=-1)


def noise(*shape: int) -> np.ndarray:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 4), np.uint8)
    frames[..., 3] = 255
    return frames


def test_checks_of_frames() -> None:
    assert failed(square()) == []
    assert failed(square(count=1)) == []
    still = square(step=0)
    still[1::2, 10, 10, 0] += 2  # as recompression does
    assert failed(still) == ["still_animation"]
    hollow = square(count=6)
    hollow[3] = 0
    assert failed(hollow) == ["empty_frames"]
    assert failed(square(side=12, at=14)) == ["margins"]
    assert failed(noise(2, 40, 40)) == ["opaque"]
    assert failed(with_ground(square(), (250, 250, 250))) == ["flat_background"]


def test_the_box_of_a_drawing_is_that_of_all_frames() -> None:
    assert drawn_box(square(at=8, side=24, step=0)[..., 3]) == (8, 8, 32, 32)
    assert drawn_box(square(at=8, side=24)[..., 3]) == (8, 8, 32, 34)
    assert crop_to_content(square()).shape == (4, 24, 26, 4)


def test_a_cleared_background_gives_back_the_sticker() -> None:
    sticker = draw_sticker(0, 5, size=96)
    ground = (90, 200, 120)
    cleared = clear_background(with_ground(sticker.frames, ground))
    alpha, before = cleared[..., 3].astype(int), sticker.frames[..., 3].astype(int)
    assert np.abs(alpha - before).mean() < 3
    assert ((alpha > 0) & (alpha < 255)).sum() > 0.25 * ((before > 0) & (before < 255)).sum()  # a soft edge, not a cut
    for other in ((255, 0, 255), (20, 20, 20)):  # on another ground no trace of the old one is left
        assert np.abs(composite(cleared, other).astype(int) - composite(sticker.frames, other)).mean() < 4


def test_what_is_enclosed_stays() -> None:
    ring = np.zeros((1, 40, 40, 4), np.uint8)
    ring[:, 8:32, 8:32] = (200, 60, 20, 255)
    ring[:, 16:24, 16:24] = 0
    cleared = clear_background(with_ground(ring, (255, 255, 255)))
    assert (cleared[0, 18:22, 18:22] == 255).all() and not cleared[0, :8].any()


@pytest.mark.parametrize("frames", [noise(2, 40, 40), square(), np.full((1, 20, 20, 4), 255, np.uint8)])
def test_backgrounds_that_are_not_flat_stay(frames: np.ndarray) -> None:
    assert clear_background(frames) is frames


def test_what_is_cleared_can_be_cropped() -> None:
    frames = crop_to_content(clear_background(with_ground(square(step=0), (0, 0, 255))))
    assert frames.shape[1:3] == (24, 24) and (frames == (200, 60, 20, 255)).all()


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    texts, found = check_captions([text])
    assert set(found) <= set(CAPTION_CHECKS)
    return texts[0], found


@pytest.mark.parametrize(
    ("text", "cleaned", "found"),
    [
        ("a cat <3 you", "a cat <3 you", ()),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2", ()),
        ("keycap #", "keycap #", ()),
        ("#1 dad", "#1 dad", ()),
        ("a_b and 2*3*4", "a_b and 2*3*4", ()),
        ("meet me @ noon", "meet me @ noon", ()),
        ("rock & roll; AT&T", "rock & roll; AT&T", ()),
        ("<b>a cat</b><br/> waves", "a cat waves", ("cleaned",)),
        ('<a href="x">cat</a> &amp; dog &#128077;', "cat & dog 👍", ("cleaned",)),
        ("a **happy** [cat](http://x.y)", "a happy cat", ("cleaned",)),
        ("cat https://example.com/a?b=c waving", "cat waving", ("cleaned",)),
        ("cat t.me/stickers by me@mail.example", "cat by", ("cleaned",)),
        ("by @artist_1: a dog", "by : a dog", ("cleaned",)),
        ("#HappyBirthday #blue_cat #生日", "Happy Birthday blue cat 生日", ("cleaned",)),
        ("IMG_20210304", "IMG_20210304", ("file_name",)),
        ("sticker", "sticker", ("file_name",)),
        ("1f600", "1f600", ()),
        ("3fa85f64-5717-4562-b3fc-2c963f66afa6", "3fa85f64-5717-4562-b3fc-2c963f66afa6", ("file_name",)),
        ("funny.cat.GIF", "funny.cat.GIF", ("file_name",)),
        ("facade", "facade", ()),
        ("🐶🐶", "🐶🐶", ()),
        ("@someone", "", ("no_caption", "cleaned")),
        ("", "", ("no_caption",)),
        ("la " * 33, ("la " * 33).strip(), ("long_caption",)),
        ("la " * 32, ("la " * 32).strip(), ()),
        ("猫" * 33, "猫" * 33, ("long_caption",)),
        ("a" * 33, "a" * 33, ("long_caption",)),
    ],
)
def test_captions(text: str, cleaned: str, found: tuple[str, ...]) -> None:
    assert clean(text) == (cleaned, found)


def test_several_captions() -> None:
    texts, found = check_captions(["<i>a cat</i>", "a cat", "@x1", "кошка", "猫"])
    assert texts == ("a cat", "кошка", "猫") and found == ("cleaned",)


def test_description_has_its_columns() -> None:
    facts: dict[str, Any] = describe(square(), np.full(4, 50.0))
    assert facts["loops"] and facts["seam"] == pytest.approx(1) and facts["motion"] > 0
    assert len(facts["coverage"]) == 4 and len(facts["signature"]) == 4096 and 0.5 < facts["extent"] < 1
