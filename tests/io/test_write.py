from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rdtf.io.encode import Clip, apng, binary_alpha, gif, webp
from rdtf.io.palette import Colours
from rdtf.io.read import read_sticker
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker, StickerError


def sticker_with_equal_neighbours(n: int = 9, height: int = 21, width: int = 34) -> Sticker:
    """Frames 3 to 5 are equal, frame 6 is empty, the last one is noise with every alpha; odd sizes."""
    rng = np.random.default_rng(0)
    frames = np.zeros((n, height, width, 4), np.uint8)
    for index in range(n):
        frames[index, 3 : 9 + index, index : index + 11] = 200, 8 * index, 90, 255
    frames[:, 12:15] = 10, 80, 160, 70
    frames[4] = frames[5] = frames[3]
    frames[6] = 0
    frames[-1] = rng.integers(0, 256, frames[-1].shape)
    frames[-1, :, :4, 3] = 0
    return Sticker(frames, rng.integers(20, 200, n).astype(np.float64))


def visible(frames: np.ndarray) -> np.ndarray:
    return np.where(frames[..., 3:] > 0, frames, np.uint8(0))


@pytest.mark.parametrize("ending", ["webp", "png", "apng"])
def test_every_frame_comes_back_exactly(tmp_path: Path, ending: str) -> None:
    sticker = sticker_with_equal_neighbours()
    save_sticker(sticker, tmp_path / f"a.{ending}")
    back = read_sticker(tmp_path / f"a.{ending}")
    assert np.array_equal(back.frames, visible(sticker.frames))
    assert np.array_equal(back.durations, sticker.durations)


def test_gif_writes_every_frame_with_a_hard_edge(tmp_path: Path) -> None:
    sticker = sticker_with_equal_neighbours()
    save_sticker(sticker, tmp_path / "a.gif")
    back = read_sticker(tmp_path / "a.gif")
    solid = sticker.frames[..., 3] >= 128
    assert np.array_equal(back.frames[..., 3], np.where(solid, 255, 0))
    assert len(back) == len(sticker)
    assert np.abs(np.cumsum(back.durations) - np.cumsum(sticker.durations)).max() <= 10
    difference = np.abs(back.frames[solid][:, :3].astype(int) - sticker.frames[solid][:, :3])
    assert difference.mean() < 16  # the last frame is noise: some 400 colours more than the palette has


def test_gif_with_few_colours_keeps_them_exactly(tmp_path: Path) -> None:
    frames = sticker_with_equal_neighbours().frames[:-1]
    save_sticker(Sticker.at_fps(frames), tmp_path / "a.gif")
    solid = frames[..., 3] >= 128
    assert np.array_equal(read_sticker(tmp_path / "a.gif").frames[solid][:, :3], frames[solid][:, :3])


def test_gif_edges_keep_the_stickers_colour(tmp_path: Path) -> None:
    frames = np.zeros((2, 8, 8, 4), np.uint8)
    frames[..., :3] = 250, 200, 20
    frames[:, 2:6, 2:6, 3] = 150  # a soft yellow edge; mixed with black or white it would change
    save_sticker(Sticker.at_fps(frames), tmp_path / "a.gif")
    assert (read_sticker(tmp_path / "a.gif").frames[:, 2:6, 2:6] == [250, 200, 20, 255]).all()


@pytest.mark.parametrize(("ending", "step"), [("gif", 10), ("webp", 1), ("apng", 1)])
def test_rounding_of_durations_never_adds_up(tmp_path: Path, ending: str, step: int) -> None:
    sticker = Sticker.at_fps(sticker_with_equal_neighbours(30).frames, fps=24.0)
    save_sticker(sticker, tmp_path / f"a.{ending}")
    ends = np.cumsum(read_sticker(tmp_path / f"a.{ending}").durations)
    assert np.abs(ends - np.cumsum(sticker.durations)).max() <= step / 2 + 1e-6


def test_gif_frames_that_browsers_would_slow_down_are_20_ms(tmp_path: Path) -> None:
    frames = sticker_with_equal_neighbours().frames[:4]
    save_sticker(Sticker(frames, np.array([4, 4, 100, 52.0])), tmp_path / "a.gif")
    assert read_sticker(tmp_path / "a.gif").durations.tolist() == [20, 20, 70, 50]


@pytest.mark.parametrize("plays", [0, 1, 3])
def test_number_of_plays(plays: int) -> None:
    frames = binary_alpha(sticker_with_equal_neighbours().frames[:4])
    clip = Clip(frames, np.full(4, 50.0), plays)
    indices, palette = Colours(frames).reduced(256)
    for kind, data in {"gif": gif(clip, palette, indices), "webp": webp(clip), "apng": apng(clip)}.items():
        with Image.open(io.BytesIO(data)) as image:
            # A GIF says how often to start again, and nothing if it is not to.
            expected = {0: 0, 1: None, 3: 2}[plays] if kind == "gif" else plays
            assert image.info.get("loop") == expected


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "apng"])
def test_a_still_is_one_plain_picture(tmp_path: Path, ending: str) -> None:
    frames = sticker_with_equal_neighbours().frames[:1]
    save_sticker(Sticker.at_fps(frames), tmp_path / f"a.{ending}")
    with Image.open(tmp_path / f"a.{ending}") as image:
        assert getattr(image, "n_frames", 1) == 1
    back = read_sticker(tmp_path / f"a.{ending}")
    assert np.array_equal(back.frames[frames[..., 3] == 255], frames[frames[..., 3] == 255])


def test_sheet_has_all_frames_in_rows_of_eight(tmp_path: Path) -> None:
    sticker = sticker_with_equal_neighbours(9)
    save_sticker(sticker, tmp_path / "a.sheet.png")
    sheet = np.array(Image.open(tmp_path / "a.sheet.png"))
    assert sheet.shape == (42, 8 * 34, 4)
    assert np.array_equal(sheet[:21, 34:68], visible(sticker.frames)[1])
    assert np.array_equal(sheet[21:, :34], visible(sticker.frames)[8])
    assert not sheet[21:, 34:].any()


@pytest.mark.parametrize("name", ["frames", "v1.5/"])
def test_folder_of_frames(tmp_path: Path, name: str) -> None:
    sticker = sticker_with_equal_neighbours()
    save_sticker(sticker, f"{tmp_path}/{name}")
    folder = tmp_path / name
    durations = json.loads((folder / "durations.json").read_text())["durations"]
    assert list(durations) == [f"{index:03d}.png" for index in range(9)]
    assert list(durations.values()) == sticker.durations.tolist()
    assert sorted(path.name for path in folder.iterdir()) == [*durations, "durations.json"]
    for frame, file in zip(sticker.frames, durations, strict=True):
        assert np.array_equal(np.array(Image.open(folder / file)), np.where(frame[..., 3:] > 0, frame, 0))
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_above_are_made_and_a_failure_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "er" / "a.webp"
    sticker = sticker_with_equal_neighbours()
    save_sticker(sticker, path)
    before = path.read_bytes()

    def no_space(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", no_space)
    with pytest.raises(StickerError, match=r"a\.webp: cannot be written: No space left"):
        save_sticker(Sticker.at_fps(sticker.frames[:2]), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    frames = np.zeros((2, 1, 16_390, 4), np.uint8)
    with pytest.raises(StickerError, match="at most 16383 px"):
        save_sticker(Sticker.at_fps(frames), tmp_path / "a.webp")
    with pytest.raises(StickerError, match=r"at most 65\.535 s"):
        save_sticker(Sticker(frames, np.array([70_000.0, 1.0])), tmp_path / "a.apng")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.bmp", "a.json", "a.v2"])
def test_unknown_endings_are_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown ending.*\.sheet\.png, \.webp, \.png, \.apng, \.gif"):
        save_sticker(sticker_with_equal_neighbours(), tmp_path / name)
