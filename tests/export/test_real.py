"""Real stickers for every messenger, looked at by code that shares nothing with the export."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rdtf.export.fit import on_canvas
from rdtf.export.search import export_sticker
from rdtf.export.target import load_target, target_names
from rdtf.io.read import read_sticker
from rdtf.sticker import Sticker
from tests.export.refusals import look, refusals

pytestmark = pytest.mark.stickers
KINDS = {"animated": ("json", 20), "fluent": ("webp", 14), "gif": ("gif", 8), "static": ("png", 6)}
MOVING = [name for name in target_names() if name.startswith("line")]


def chosen(folder: Path) -> list[Path]:
    """48 stickers of four kinds, evenly spaced."""
    files = []
    for kind, (ending, count) in KINDS.items():
        found = sorted((folder / kind).glob(f"*.{ending}"))
        files += [found[i * len(found) // count] for i in range(count)]
    return files


def check(sticker: Sticker, name: str, least_db: float) -> None:
    target = load_target(name)
    export = export_sticker(sticker, target)
    assert refusals(export.data, name) == []
    seen = look(export.data)
    lasts, asked = sum(seen.times), float(sticker.durations.sum())
    if len(sticker) > 1 and not target.whole_seconds:
        if asked <= (target.max_ms or np.inf):
            assert lasts == pytest.approx(asked, abs=17)  # a frame of WebM is 33 ms
        else:  # cut on a tick of 8 to 15 a second
            assert target.max_ms - 135 < lasts <= target.max_ms + 1
    if begins := re.search(r"begins at frame (\d+)", "".join(export.changes)):
        shift = 1 - int(begins[1])
        sticker = Sticker(np.roll(sticker.frames, shift, 0), np.roll(sticker.durations, shift))
    assert white_db(sticker, seen.frames, seen.times, name) >= least_db


def white_db(sticker: Sticker, frames: np.ndarray, times: list[float], name: str) -> float:
    """PSNR on white against the sticker at the same moments, the first play only."""
    whole = on_canvas(sticker.frames, load_target(name).canvas)
    side = frames.shape[1:3]
    if whole.shape[1:3] != side:
        whole = on_canvas(
            sticker.frames, load_target(name).canvas.model_copy(update={"width": side[1], "height": side[0]})
        )
    ends, shown = np.cumsum(sticker.durations), np.cumsum(times)
    errors = []
    for moment in np.linspace(0, min(ends[-1], shown[-1]), 16, endpoint=False) + 1:
        pair = [
            clip[min(int(np.searchsorted(end, moment)), len(clip) - 1)].astype(float)
            for clip, end in ((whole, ends), (frames, shown))
        ]
        over = [p[..., :3] * p[..., 3:] / 255 + 255 - p[..., 3:] for p in pair]
        errors.append(np.square(over[0] - over[1]).mean())
    return float(10 * np.log10(255**2 / max(np.mean(errors), 1e-9)))


@pytest.mark.parametrize("name", target_names())
def test_a_real_sticker_for_every_messenger(name: str, real_stickers: Path):
    kind, place = [("animated", 60), ("fluent", 200), ("gif", 3)][target_names().index(name) % 3]
    file = sorted((real_stickers / kind).glob(f"*.{KINDS[kind][0]}"))[place]
    frames = read_sticker(file, size=96, max_frames=6).frames
    check(Sticker(frames, np.full(len(frames), 100.0)), name, 22.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", target_names())
def test_many_real_stickers_for_every_messenger(name: str, real_stickers: Path):
    """All 48, every eighth with as many frames as it has."""
    for number, file in enumerate(chosen(real_stickers)):
        sticker = read_sticker(file, max_frames=12 if number % 8 else 60)
        if len(sticker) == 1 and name in MOVING:
            with pytest.raises(ValueError, match="has to move"):
                export_sticker(sticker, load_target(name))
            continue
        check(sticker, name, 18.0)
