from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.export import encode
from rdtf.export.batch import Source
from rdtf.export.check import problems_of
from rdtf.export.encode import merged
from rdtf.export.fit import on_clock
from rdtf.export.pack import emoji_of, write_packs
from rdtf.export.search import _LADDERS, Export, export_sticker
from rdtf.export.target import Target, load_target, target_names
from rdtf.io.encode import Clip, apng, binary_alpha, cleared, gif
from rdtf.io.metadata import NOTE, note_of
from rdtf.io.palette import Colours
from rdtf.io.read import read_sticker_bytes
from rdtf.io.write import save_sticker
from rdtf.sticker import Sticker

SMALL = {"max_bytes": 3000, "source": "a test", "checked_on": "2026-01-01", "title": "small sticker"}


def ball(frames: int = 8, ms: float = 125.0, size: int = 64) -> Sticker:
    """A ball with a soft edge that goes around once, on transparency."""
    pictures = []
    for angle in np.arange(frames) * 2 * np.pi / frames:
        large = Image.new("RGBA", (4 * size, 4 * size))
        x, y = 4 * size * (0.5 + 0.25 * np.cos(angle)), 4 * size * (0.5 + 0.25 * np.sin(angle))
        ImageDraw.Draw(large).ellipse(
            (x - size * 0.8, y - size * 0.8, x + size * 0.8, y + size * 0.8), (230, 80, 30, 255)
        )
        pictures.append(np.array(large.resize((size, size), Image.Resampling.BOX)))
    return Sticker(np.stack(pictures), np.full(frames, ms), "a red ball", {"loops": True})


def small(kind: str, **rules) -> Target:
    canvas = {"rule": "exact", "width": 48, "height": 48}
    return Target.model_validate({"format": kind, "canvas": canvas, **SMALL, **rules})


@pytest.fixture(scope="module")
def exports() -> dict[str, Export]:
    return {name: export_sticker(ball(), load_target(name)) for name in target_names()}


@pytest.mark.parametrize("name", target_names())
def test_every_target_accepts_what_is_made_for_it(name: str, exports: dict[str, Export]):
    export, target = exports[name], load_target(name)
    assert problems_of(export.data, target) == []
    sticker = read_sticker_bytes(export.data, f"ball{target.suffix}")
    assert sticker.durations.sum() == pytest.approx(1000, abs=1)  # the speed stays
    middle = sticker.frames.shape[1] // 2
    assert sticker.frames[0, 0, 0, 3] == 0 and sticker.frames[:, middle, middle, 3].min() < 128  # transparency stays
    assert sticker.frames[..., 3].max() == 255
    assert export.psnr > 30
    if target.format != "webm":  # a video repeats frames, and compression makes the repeated ones differ
        assert len(merged(Clip(sticker.frames, sticker.durations)).frames) == 8


def test_a_file_for_one_messenger_breaks_the_rules_of_others(exports: dict[str, Export]):
    telegram, line = exports["telegram"].data, exports["line"].data
    assert problems_of(line, load_target("telegram")) == ["It has to be WebM (VP9), and it is PNG or APNG."]
    assert any("260 x 260" in p or "270 x 270" in p for p in problems_of(line, load_target("discord")))
    assert problems_of(telegram, load_target("whatsapp")) == ["It has to be WebP, and it is WebM (VP9)."]
    assert "loop for ever" in " ".join(problems_of(line, load_target("signal")))
    assert problems_of(b"<html>", load_target("line"))[0].startswith("It cannot be read")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"max_bytes": 100}, "at most 100 are allowed"),
        ({"max_ms": 500}, "at most 500"),
        ({"max_fps": 5}, "more than 5 frames a second"),
        ({"min_frame_ms": 200}, "at least 200 are wanted"),
        ({"max_frames": 4}, "at most 4 are allowed"),
        ({"min_frames": 9}, "at least 9 are wanted"),
        ({"whole_seconds": [2, 3]}, "2, 3 whole seconds"),
        ({"loops": "counted", "max_loops": 4, "max_total_ms": 4000}, "endlessly"),
        ({"canvas": {"rule": "longest", "width": 512, "height": 512}}, "one side has to be 512"),
        ({"canvas": {"rule": "square", "width": 40, "height": 40}}, "10 to 40|1 to 40"),
        ({"canvas": {"rule": "line", "width": 320, "height": 270, "smallest": 270}}, "at least 270"),
        ({"alpha": "binary"}, "half-transparent"),
    ],
)
def test_every_rule_is_checked(rules: dict, says: str):
    data = apng(Clip(ball(size=48).frames, ball().durations))
    [problem] = problems_of(data, small("apng", **{"max_bytes": None, **rules}))
    assert any(part in problem for part in says.split("|")), problem


def test_a_palette_is_refused_where_true_colour_is_wanted():
    indices, palette = Colours(ball(size=48).frames).reduced(16)
    data = apng(Clip(palette[indices], ball().durations), palette, indices)
    assert problems_of(data, small("apng", truecolour=True, max_bytes=None)) == [
        "Its PNG has a palette; RGB or RGBA is wanted."
    ]


@pytest.mark.parametrize("kind", ["webp", "apng", "gif", "webm"])
def test_quality_goes_down_until_the_file_fits_and_the_speed_stays(kind: str):
    rng = np.random.default_rng(0)
    noisy = Sticker(rng.integers(0, 256, (6, 48, 48, 4), np.uint8) | np.uint8([0, 0, 0, 255]), np.full(6, 100.0))
    large = export_sticker(noisy, small(kind, max_bytes=None))
    limit = len(large.data) // 2
    squeezed = export_sticker(noisy, small(kind, max_bytes=limit))
    assert len(squeezed.data) <= limit
    assert squeezed.psnr < large.psnr
    assert squeezed.duration_ms == pytest.approx(600, abs=1)
    with pytest.raises(ValueError, match="stays below"):
        export_sticker(noisy, small(kind, max_bytes=60))


@pytest.mark.parametrize("kind", ["gif", "webp", "apng", "webm"])
def test_a_fast_sticker_keeps_its_speed(kind: str):
    """A GIF has at most 50 frames a second, so it loses frames and no speed."""
    export = export_sticker(ball(30, 1000 / 60), small(kind, max_bytes=200_000))
    seen = read_sticker_bytes(export.data, Path("fast"))
    assert seen.durations.sum() == pytest.approx(500, abs=17)
    assert len(seen) == (15 if kind in ("gif", "webm") else 30)


def test_a_long_sticker_is_cut_and_that_is_told():
    clip, done = on_clock(ball(12, 400), load_target("telegram"))
    assert clip.durations.sum() == 3000 and done == ["cut from 4.8 s to 3 s"]
    np.testing.assert_array_equal(clip.frames, ball(12, 400).frames[:8])


@pytest.mark.parametrize(
    ("frames", "ms", "seconds", "plays"),
    [(8, 125, 1, 4), (12, 125, 3, 1), (8, 110, 1, 4), (10, 190, 2, 2), (12, 168, 2, 2)],
)
def test_line_gets_whole_seconds_without_another_speed(frames: int, ms: float, seconds: int, plays: int):
    clip, _ = on_clock(ball(frames, ms), load_target("line"))
    assert clip.durations.sum() == 1000 * seconds and clip.plays == plays
    assert list(clip.durations[:-1]) == [ms] * (len(clip.durations) - 1)  # only the last frame may be held
    data = apng(clip)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["loop"] == plays


def test_four_seconds_that_are_a_little_more_as_a_float_play_once():
    clip, _ = on_clock(ball(8, 193 / 60 * 1000 / 8), load_target("line"))
    assert 4000 < clip.durations.sum() < 4000.001 and clip.plays == 1
    assert not any("plays" in problem for problem in problems_of(apng(clip), load_target("line")))


@pytest.mark.parametrize(
    ("durations", "fps"),
    [
        ([125] * 4, 8.0),  # as slow as the sticker
        ([100, 200, 100, 100], 10.0),
        ([100, 150, 100, 100], 20.0),  # two ticks and three
        ([333, 417, 334, 416], 12.0),  # four ticks and five, rounded
        ([1000 / 30] * 4, 30.0),
        ([100, 137, 61, 90], 30.0),  # no clock fits
        ([20] * 4, 25.0),  # every second frame of 50 a second
    ],
)
def test_a_webm_has_no_more_ticks_than_its_frames_need(durations: list[float], fps: float):
    sticker = ball(4)
    sticker = Sticker(sticker.frames, np.array(durations, np.float64))
    made = export_sticker(sticker, load_target("telegram"))
    assert made.settings["file_fps"] == pytest.approx(fps, abs=0.01)
    seen = read_sticker_bytes(made.data, Path("a.webm"))
    assert seen.durations.sum() == pytest.approx(sum(durations), abs=500 / fps)


def test_too_few_frames_for_line_are_refused():
    with pytest.raises(ValueError, match="3 different frames; .* needs at least 5"):
        export_sticker(ball(3, 300), load_target("line"))
    with pytest.raises(ValueError, match="has to move"):
        export_sticker(ball(1), load_target("line"))


def test_the_still_of_a_loop_is_not_an_empty_frame():
    sticker = ball()
    sticker.frames[0] = 0
    clip, done = on_clock(sticker, load_target("whatsapp"))
    assert clip.frames[0, ..., 3].any() and "begins at frame" in done[0]
    clip, done = on_clock(Sticker(sticker.frames, sticker.durations, "", {"loops": False}), load_target("whatsapp"))
    assert not clip.frames[0].any() and done == []


def test_equal_frames_stay_in_an_apng():
    frames = np.repeat(ball(3, size=16).frames, 2, axis=0)
    data = apng(Clip(frames, np.full(6, 50.0)))
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 6
    np.testing.assert_array_equal(read_sticker_bytes(data, "a.png").frames, cleared(frames))


def test_no_dark_fringe_in_webm():
    """Pixels of the ball's edge keep its colour, though chroma is stored at half the size."""
    frames = binary_alpha(ball(2, size=64).frames)
    seen = read_sticker_bytes(encode.webm(Clip(frames, np.full(2, 500.0)), 14, 10.0), "a.webm")
    edge = (frames[0, ..., 3] == 255) & (seen.frames[0, ..., 3] > 200)
    error = np.abs(seen.frames[0][edge][:, :3].astype(int) - frames[0][edge][:, :3]).max()
    assert error < 40
    assert (seen.frames[0, ..., 3] > 128).sum() == pytest.approx((frames[0, ..., 3] == 255).sum(), rel=0.02)


def test_palettes_hold_what_matters():
    frames = ball().frames
    indices, palette = Colours(frames).reduced(64)
    assert len(palette) <= 64 and indices.shape == frames.shape[:3]
    reduced = palette[indices]
    assert (reduced[frames[..., 3] == 0] == 0).all()
    solid = frames[..., 3] == 255
    assert np.abs(reduced[solid].astype(int) - frames[solid]).max() <= 8
    few = np.zeros((1, 2, 2, 4), np.uint8)
    few[0, 0, 0] = (1, 2, 3, 255)
    indices, palette = Colours(few).reduced(16)
    np.testing.assert_array_equal(palette[indices], few)


def ramp(*levels: float) -> np.ndarray:
    """Two equal frames of 48 x 48, opaque: grey from the first to the last level, left to right."""
    grey = np.rint(np.interp(np.linspace(0, 1, 48), np.linspace(0, 1, len(levels)), levels)).astype(np.uint8)
    picture = np.broadcast_to(grey[:, None], (2, 48, 48, 3))
    return np.concatenate([picture, np.full((2, 48, 48, 1), 255, np.uint8)], -1)


def test_dithering_keeps_what_is_seen_from_afar_and_stands_still():
    frames, errors = ramp(0, 255), []  # its three colours are 82 and 92 apart
    for dither in (False, True):
        indices, palette = Colours(frames).reduced(3, dither)
        np.testing.assert_array_equal(indices[0], indices[1])
        wrong = palette[indices].astype(float) - frames
        assert np.abs(wrong).max() < 92
        errors.append(np.abs(wrong.reshape(2, 12, 4, 12, 4, 4).mean((2, 4))).mean())
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("kind", ["gif", "apng"])
def test_a_palette_is_dithered_where_that_fits_and_looks_better(kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(_LADDERS, kind, (8,))
    fades, flat = (Sticker(ramp(*levels), np.full(2, 100.0)) for levels in ((0, 255), (40, 40)))
    dithered = export_sticker(fades, small(kind, max_bytes=None))
    assert dithered.settings["dither"] and "dither" not in export_sticker(flat, small(kind)).settings
    tight = export_sticker(fades, small(kind, max_bytes=len(dithered.data)))  # 97 % of it are filled
    assert "dither" not in tight.settings and tight.psnr > dithered.psnr


@pytest.mark.parametrize("kind", ["webp", "apng", "gif", "webm"])
def test_the_note_of_a_sticker_goes_along_within_the_limit(kind: str):
    note = {"caption": "a red ball", "seed": 3}
    sticker = Sticker(ball(4).frames, np.full(4, 100.0), "", {NOTE: note})
    size = len(export_sticker(ball(4), small(kind, max_bytes=None)).data)
    noted = export_sticker(sticker, small(kind, max_bytes=max(size + 600, 8000)))
    assert note_of(noted.data) == note and problems_of(noted.data, small(kind, max_bytes=max(size + 600, 8000))) == []
    assert note_of(export_sticker(sticker, small(kind, max_bytes=None, metadata=False)).data) is None
    long = Sticker(sticker.frames, sticker.durations, "", {NOTE: {"caption": "x" * 5000}})
    export = export_sticker(long, small(kind, max_bytes=max(size + 600, 8000)))
    assert note_of(export.data) is None and "left out" in export.changes[0]


def test_wrong_targets_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="did you mean telegram"):
        load_target("telegrm")
    wrong = tmp_path / "mine.json"
    wrong.write_text('{"format": "mp4"}')
    with pytest.raises(ValueError, match="mine.json"):
        load_target(str(wrong))
    wrong.write_text(json.dumps({**SMALL, "format": "gif", "canvas": {"rule": "free"}}))
    assert load_target(str(wrong)).max_bytes == 3000


@pytest.mark.parametrize("plays", [0, 1, 2])
def test_plays_of_a_gif(plays: int):
    indices, palette = Colours(binary_alpha(ball(size=48).frames)).reduced(16)
    data = gif(Clip(palette[indices], ball().durations, plays), palette, indices)
    rules = {"loops": "counted", "max_loops": 1, "max_total_ms": 9000}
    said = {0: ["It plays endlessly; 1 to 1 are wanted."], 1: [], 2: ["It plays 2; 1 to 1 are wanted."]}
    assert problems_of(data, small("gif", max_bytes=None, **rules)) == said[plays]


# ------------------------------------------------------------------------------------------------------------- packs


def test_emoji_of_a_sticker():
    assert emoji_of({"emoji": "😀👍"}, "x", 3) == ("😀", "👍")
    assert emoji_of({}, "red heart", 3) == ("❤️",)
    assert emoji_of({}, "Jack-O-Lantern, fluent 3d style", 3) == ("🎃",)
    assert emoji_of({}, "woman: beard, noto style", 3) == ("🧔‍♀️",)
    assert emoji_of({}, "a cat 🐱 waves", 1) == ("🐱",)
    assert emoji_of({}, "nothing that has a name", 3) == ("✨",)


def test_packs_are_full_and_whole(tmp_path: Path, exports: dict[str, Export]):
    save_sticker(ball(), tmp_path / "ball.webp")

    def stickers(target: str, count: int) -> list[tuple[Source, Export]]:
        return [(Source(f"s{i}", tmp_path / "ball.webp", "red circle"), exports[target]) for i in range(count)]

    whatsapp = load_target("whatsapp")
    report = write_packs(stickers("whatsapp", 32), whatsapp, "whatsapp", tmp_path / "w", name="Balls", author="Me")
    counts = [len(list(folder.glob("*.webp"))) for folder in report.packs]
    assert counts == [29, 3] and not report.left_out  # none is below three
    contents = json.loads((report.packs[0] / "contents.json").read_text("utf-8"))["sticker_packs"][0]
    assert contents["animated_sticker_pack"] and contents["stickers"][0]["emojis"] == ["🔴"]
    with Image.open(report.packs[0] / "tray.png") as tray:
        assert tray.size == (96, 96) and (report.packs[0] / "tray.png").stat().st_size <= 50 * 1024
    with zipfile.ZipFile(report.packs[0].with_suffix(".wastickers")) as archive:
        assert {"title.txt", "author.txt", "tray.png", "01.webp"} <= set(archive.namelist())

    line = load_target("line")
    report = write_packs(stickers("line", 9), line, "line", tmp_path / "l", name="Balls", author="Me")
    assert list(report.left_out) == ["s8"] and len(report.packs) == 1
    with Image.open(report.packs[0] / "main.png") as main:
        assert main.size == (240, 240) and main.n_frames == 8
    with Image.open(report.packs[0] / "tab.png") as tab:
        assert tab.size == (96, 74)
    with pytest.raises(ValueError, match="too few"):
        write_packs(stickers("line", 7), line, "line", tmp_path / "n", name="Balls", author="Me")
    with pytest.raises(ValueError, match="1 to 128 characters"):
        write_packs(stickers("line", 8), line, "line", tmp_path / "n", name="B" * 200, author="Me")
    with pytest.raises(ValueError, match="no packs"):
        write_packs([], load_target("gif"), "gif", tmp_path / "n", name="Balls", author="Me")


# ---------------------------------------------------------------------------------------------------- the command line


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    save_sticker(ball(), "in/ball.webp")
    Path("in/ball.txt").write_text("red heart")

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, list(words))
        return result.exit_code, result.output

    code, text = run("export", "in/ball.webp", "--to", "line", "--to", "slack", "-o", "out", "--workers", "1")
    assert code == 0, text
    report = json.loads(Path("out/export.json").read_text("utf-8"))
    assert [(row["target"], row["file"]) for row in report] == [("line", "line/ball.png"), ("slack", "slack/ball.gif")]
    assert all(Path("out", row["file"]).stat().st_size == row["bytes"] for row in report)
    code, text = run("export", "in/ball.webp", "--to", "line", "-o", "out", "--workers", "1")
    assert code == 2 and "--overwrite" in text
    code, text = run("check", "out/line/ball.png", "--for", "line")
    assert code == 0 and "keeps every rule" in text
    code, text = run("check", "out/line/ball.png", "--for", "telegram")
    assert code == 1 and "WebM" in text
    code, text = run("export", "in/ball.webp", "--to", "lin")
    assert code == 2 and "did you mean line" in text
    code, text = run("pack", "in", "--to", "slack", "-o", "packs", "--name", "Balls", "--workers", "1")
    assert code == 0, text
    assert json.loads(Path("packs/balls/pack.json").read_text("utf-8"))["stickers"][0]["text"] == "red heart"
    code, text = run("pack", "in", "--to", "slack", "-o", "packs")
    assert code == 2 and "not empty" in text
