"""Near-duplicates: copies are found whatever was done to them, how is told, and nothing is taken for another."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.data import duplicates
from rdtf.data.duplicates import SIGNATURE_BYTES, near_pairs, signature
from rdtf.io.read import read_sticker
from rdtf.pixels import fit
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker

Change = Callable[[Sticker], Sticker]


def signed(stickers: list[Sticker]) -> tuple[list[np.ndarray], np.ndarray]:
    """Arguments of ``near_pairs``."""
    made = [signature(sticker.frames, sticker.durations) for sticker in stickers]
    return [np.stack([np.frombuffer(data, np.uint8) for data, _ in made])], np.array([extent for _, extent in made])


def pairs_of(stickers: list[Sticker]) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in near_pairs(*signed(stickers)).rows]


@pytest.fixture(scope="module")
def sticker() -> Sticker:
    return draw_sticker(0, 5, size=96)  # nods, in 12 frames


def smaller(sticker: Sticker) -> Sticker:
    return Sticker(fit(sticker.frames, 48), sticker.durations)


def recompressed(sticker: Sticker) -> Sticker:
    frames = []
    for frame in sticker.frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "WEBP", quality=40)
        frames.append(np.asarray(Image.open(buffer).convert("RGBA")))
    return Sticker(np.stack(frames), sticker.durations)


def of_few_colours(sticker: Sticker) -> Sticker:
    solid = np.where(sticker.frames[..., 3:] >= 128, 255, 0).astype(np.uint8)
    return Sticker(np.concatenate([sticker.frames[..., :3] // 16 * 16 + 8, solid], axis=-1), sticker.durations)


def at_half_rate(sticker: Sticker) -> Sticker:
    ends = np.append(0, np.cumsum(sticker.durations))
    kept = np.arange(0, len(sticker), 2)
    return Sticker(sticker.frames[kept], np.diff(np.append(ends[kept], ends[-1])))


def slower(sticker: Sticker) -> Sticker:
    return Sticker(sticker.frames, 3 * sticker.durations)


def with_margins(sticker: Sticker) -> Sticker:
    return Sticker(np.pad(sticker.frames, ((0, 0), (4, 20), (16, 8), (0, 0))), sticker.durations)


def with_colour_under_nothing(sticker: Sticker) -> Sticker:
    frames = sticker.frames.copy()
    frames[frames[..., 3] == 0] = (255, 0, 255, 0)
    return Sticker(frames, sticker.durations)


@pytest.mark.parametrize(
    "change",
    [smaller, recompressed, of_few_colours, at_half_rate, slower, with_margins, with_colour_under_nothing],
    ids=lambda change: change.__name__,
)
def test_copies_are_found(sticker: Sticker, change: Change) -> None:
    found = near_pairs(*signed([sticker, change(sticker)]))
    assert found.rows.tolist() == [[0, 1]] and found.copies.tolist() == [True]


def backwards(sticker: Sticker) -> Sticker:
    return Sticker(sticker.frames[::-1], sticker.durations[::-1])


def later(sticker: Sticker) -> Sticker:
    by = -(len(sticker) // 4)
    return Sticker(np.roll(sticker.frames, by, 0), np.roll(sticker.durations, by))


def mirrored(sticker: Sticker) -> Sticker:
    return Sticker(sticker.frames[:, :, ::-1], sticker.durations)


@pytest.fixture(scope="module")
def pointing() -> Sticker:
    """A bar that swings from the left to below, with a dot that goes round: like itself in one way only."""
    turns = np.arange(24) / 24
    y, x = np.mgrid[:64, :64]
    frames = np.zeros((24, 64, 64, 4), np.uint8)
    for frame, turn in zip(frames, turns, strict=True):
        swing = np.pi * (0.55 + 0.4 * np.sin(2 * np.pi * turn))
        along, across = (x - 32) * np.cos(swing) + (y - 32) * np.sin(swing), (y - 32) * np.cos(swing)
        across -= (x - 32) * np.sin(swing)
        frame[(np.abs(across) < 5) & (along > 0) & (along < 26)] = (230, 60, 60, 255)
        place = 2 * np.pi * turn
        frame[np.hypot(x - 32 - 20 * np.cos(place), y - 32 - 20 * np.sin(place)) < 8] = (40, 90, 220, 255)
    return Sticker(frames, np.full(24, 40.0))


@pytest.mark.parametrize(
    ("change", "copy"),
    [
        (lambda sticker: sticker, True),
        (later, True),
        (backwards, False),
        (mirrored, False),
        (lambda sticker: mirrored(backwards(sticker)), False),
        (lambda sticker: later(mirrored(recompressed(sticker))), False),
    ],
)
def test_copies_are_told_from_mirrored_and_backwards_ones(pointing: Sticker, change: Change, copy: bool) -> None:
    found = near_pairs(*signed([change(pointing), recoloured(pointing), pointing]))
    assert found.rows.tolist() == [[0, 2]] and found.copies.tolist() == [copy]


def half_faded(sticker: Sticker) -> Sticker:
    frames = sticker.frames.copy()
    frames[..., 3] //= 2
    return Sticker(frames, sticker.durations)


def recoloured(sticker: Sticker) -> Sticker:
    return Sticker(sticker.frames[..., [1, 2, 0, 3]], sticker.durations)


def with_a_mark(sticker: Sticker) -> Sticker:
    frames = sticker.frames.copy()
    y, x = (int(place.mean()) for place in np.nonzero(frames[..., 3].min(0) > 200))
    frames[:, y - 6 : y + 6, x - 6 : x + 6] = (255, 255, 255, 255)
    frames[:, y - 3 : y + 3, x - 3 : x + 3] = (0, 0, 0, 255)
    return Sticker(frames, sticker.durations)


@pytest.mark.parametrize("change", [half_faded, recoloured, with_a_mark], ids=lambda change: change.__name__)
def test_others_are_not(sticker: Sticker, change: Change) -> None:
    assert pairs_of([sticker, change(sticker)]) == []


def test_time_counts() -> None:
    frames = np.zeros((8, 32, 32, 4), np.uint8)
    for i, frame in enumerate(frames):
        frame[12:20, 3 * i : 3 * i + 8] = (30, 160, 240, 255)
    there = Sticker(frames, np.full(8, 100.0))
    held = Sticker(frames, np.array([1500.0] + 7 * [100.0]))  # the same frames, but it waits before it goes
    assert pairs_of([there, Sticker(frames[:1], np.array([9.0])), held]) == []


def test_size_counts_only_where_it_differs_much() -> None:
    square = np.full((1, 40, 40, 4), 255, np.uint8)

    def on_a_canvas(side: int) -> Sticker:
        return Sticker(np.pad(fit(square, side), ((0, 0), (0, 80 - side), (0, 80 - side), (0, 0))), np.ones(1))

    assert pairs_of([on_a_canvas(20), on_a_canvas(26), on_a_canvas(60)]) == [(0, 1)]


def noisy_signatures(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random pictures of which every third is a noisy copy of an earlier one, some of them changed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (count, 4, 4, 4, 4)).repeat(4, 2).repeat(4, 3).reshape(count, SIGNATURE_BYTES)
    copies = np.arange(2, count, 3)
    small[copies] = small[rng.integers(0, 2, len(copies)) + copies - 2]
    windows = small.reshape(count, 4, 16, 16, 4)
    for place, changed in enumerate(copies):
        if place % 4 == 1:
            windows[changed] = windows[changed, :, :, ::-1]
        elif place % 4 == 2:
            windows[changed] = np.roll(windows[changed], 1 + place % 3, 0)
        elif place % 4 == 3:
            windows[changed] = windows[changed, ::-1]
    strength = rng.uniform(0, 0.1, (count, 1)) * 255
    noisy = small + rng.uniform(-1, 1, small.shape) * strength
    return noisy.clip(0, 255).astype(np.uint8), rng.uniform(0.4, 1, count)


def test_the_search_finds_what_comparing_all_with_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    signatures, extents = noisy_signatures(0, 120)
    first, second = np.triu_indices(120, 1)
    scale = np.exp(np.abs(np.log(extents[first] / extents[second])))
    windows = (signatures / 255.0).reshape(-1, 4, 16, 16, 4)
    near = []
    for other in (windows, *(np.roll(windows, by, 1) for by in (1, 2, 3)), windows[:, ::-1], windows[:, :, :, ::-1]):
        squares = (windows[first] - other[second]) ** 2
        near.append(
            (squares.mean((1, 2, 3, 4)) <= 0.045**2)
            & (np.sqrt(squares.mean((1, 4)).max((1, 2))) <= 0.16)
            & (scale <= 1.5)
        )
    wanted = np.flatnonzero(np.any(near, axis=0))
    monkeypatch.setattr(duplicates, "_CHUNK", 32)  # several of them
    pairs, copies = near_pairs([signatures[:41], signatures[41:41], signatures[41:]], extents)
    np.testing.assert_array_equal(pairs, np.stack([first, second], axis=1)[wanted])
    np.testing.assert_array_equal(copies, np.any(near[:4], axis=0)[wanted])
    assert 8 < len(pairs) < 40 and 0 < copies.sum() < len(pairs)


def test_crowds_of_copies_stay_connected() -> None:
    signatures = np.full((400, SIGNATURE_BYTES), 90, np.uint8)
    signatures[:, :20] = np.random.default_rng(0).integers(88, 93, (400, 20))
    pairs = near_pairs([signatures], np.ones(400)).rows
    assert len(pairs) <= 2 * 400 * duplicates.NEIGHBOURS  # of the sticker and of its mirror image
    reached, before = {0}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {int(b) for pair in pairs.tolist() if reached & set(pair) for b in pair}
    assert len(reached) == 400


def test_few_or_mismatched_signatures() -> None:
    assert near_pairs([], np.zeros(0))[0].shape == (0, 2)
    one, extent = noisy_signatures(1, 1)
    assert near_pairs([one], extent)[0].shape == (0, 2)
    with pytest.raises(ValueError, match="1 signatures, but 3 extents"):
        near_pairs([one], np.ones(3))


@pytest.mark.stickers
def test_gifs_and_lotties_of_one_animation_are_found(real_stickers: Path) -> None:
    # (The GIFs of "warning" and "confetti ball" differ from their Lotties: in colour, and in their course.)
    twins = [("animated/1f680.json", "gif/rocket.gif"), ("animated/1f308.json", "gif/rainbow.gif")]
    twins += [("animated/1f407.json", "gif/rabbit.gif"), ("animated/1f514.json", "gif/eye.gif")]
    stickers = [read_sticker(real_stickers / name, size=64, max_frames=40) for pair in twins for name in pair]
    assert pairs_of(stickers) == [(0, 1), (2, 3), (4, 5)]  # a bell is no eye
