"""Motions of the whole figure and other main colours: what they do to pictures, and to calls of a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rdtf.cli import app
from rdtf.evaluate.frames import half_transparent
from rdtf.io.read import read_sticker
from rdtf.making import MOVED, UNPAINTED, make, moved_remark, understand
from rdtf.options import WORDS_OPTIONS
from rdtf.pixels import turn_hue
from rdtf.provenance import read_made
from rdtf.request import StickerOutput
from rdtf.sticker import Sticker
from rdtf.text import Fit, KnownCaptions
from rdtf.whole_figure import ANY_MOTION, HUES, LIVELY, LOOPING, NO_MOTION, main_hue, move_picture, paint, part_words

RED, GREEN, BLUE = (230, 20, 20), (30, 200, 40), (30, 60, 220)


def disc(colour: tuple[int, int, int], size: int = 32) -> np.ndarray:
    """A disc of a colour with a grey dot."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    out = np.zeros((size, size, 4), np.uint8)
    out[x**2 + y**2 < (size / 2.5) ** 2] = (*colour, 255)
    out[x**2 + y**2 < 9] = (128, 128, 128, 255)
    return out


def two_colours(size: int = 64, margin: int = 0) -> np.ndarray:
    """A red square with a blue upper half."""
    out = np.zeros((size, size, 4), np.uint8)
    out[margin : size - margin, margin : size - margin] = (*RED, 255)
    out[margin : size // 2, margin : size - margin, :3] = BLUE
    return out


@pytest.mark.parametrize("motion", LOOPING)
@pytest.mark.parametrize("margin", [0, 12])
@pytest.mark.parametrize("frames", [8, 16])
def test_the_first_frame_is_the_picture_and_the_others_are_whole(motion: str, margin: int, frames: int) -> None:
    picture = two_colours(margin=margin)
    moved = move_picture(picture, motion, frames)
    assert moved.shape == (frames, 64, 64, 4) and np.array_equal(moved[0], picture)
    alpha = moved[..., 3].astype(int)
    steps = np.abs(np.diff(moved.astype(int), axis=0)).max(axis=(1, 2, 3))
    assert steps.max() > 100 and (frames == 16 or (steps > 20).sum() > len(steps) / 3)
    if motion not in ("peek", "turn"):
        area = (64 - 2 * margin) ** 2
        assert (alpha.sum((1, 2)) / 255 > 0.3 * area).all()
        seen = moved[alpha > 250][:, :3].astype(int)
        nearest = np.abs(seen[:, None] - np.array([RED, BLUE])).sum(-1).min(1)
        assert (nearest < 30).mean() > 0.85  # the two colours, and a line where they meet
    assert half_transparent(moved) < 0.1


def test_a_spinning_picture_stands_on_its_head_half_way() -> None:
    moved = move_picture(two_colours(margin=16), "spin", 8)
    assert np.abs(moved[4].astype(int) - moved[0, ::-1, ::-1]).mean() < 4
    still = move_picture(two_colours(margin=16), "spin", 1)
    assert np.array_equal(still[0], two_colours(margin=16))


@pytest.mark.parametrize("motion", ["bounce", "dance", "jump", "shiver", "spin"])
def test_two_frames_move(motion: str) -> None:
    moved = move_picture(two_colours(margin=12), motion, 2).astype(int)
    assert np.abs(moved[1] - moved[0]).max() > 100


def test_a_picture_may_hide_and_comes_back() -> None:
    drawn = move_picture(disc(RED), "peek", 8)[..., 3].sum((1, 2))
    assert drawn[0] > 0.99 * drawn.max() and drawn.min() < 0.6 * drawn[0]


def test_what_cannot_be_moved_or_painted() -> None:
    with pytest.raises(ValueError, match="no motion 'hop'; there are bounce"):
        move_picture(disc(RED), "hop", 8)
    with pytest.raises(ValueError, match="wholly transparent"):
        move_picture(np.zeros((8, 8, 4), np.uint8), "jump", 8)
    with pytest.raises(ValueError, match="no colour 'mauve'; there are red"):
        paint(disc(RED)[None], "mauve")


@pytest.mark.parametrize(
    ("colour", "hue"), [(RED, 0), ((250, 200, 30), 46), (GREEN, 123), (BLUE, 230), ((120, 120, 120), None)]
)
def test_the_main_hue(colour: tuple[int, int, int], hue: float | None) -> None:
    found = main_hue(disc(colour))
    assert found is None if hue is None else abs((found - hue + 180) % 360 - 180) < 4


def test_many_colours_or_nothing_have_no_main_hue() -> None:
    several = np.concatenate([disc(RED), disc(GREEN), disc(BLUE)])
    assert main_hue(several) is None and main_hue(np.zeros((8, 8, 4), np.uint8)) is None
    assert paint(several[None], "blue") is None


@pytest.mark.parametrize("colour", HUES)
def test_all_frames_are_painted_alike(colour: str) -> None:
    frames = np.stack([disc(GREEN), np.roll(disc(GREEN), 3, axis=1)])
    painted = paint(frames, colour)
    assert painted is not None
    assert np.array_equal(painted[1], np.roll(painted[0], 3, axis=1))
    assert np.array_equal(painted[..., 3], frames[..., 3]) and painted[0, 16, 16].tolist() == [128, 128, 128, 255]
    found = main_hue(painted[0])
    assert found is not None and abs((found - HUES[colour] + 180) % 360 - 180) < 6


def test_turned_hues() -> None:
    r, g, b, _ = turn_hue(disc(RED), 85)[16, 8].astype(int)
    assert g > 220 and r < 40 and b < 40


@pytest.mark.parametrize(
    ("caption", "rest", "words"),
    [
        ("a purple cat jumping up and down", "a cat", {"motion": "jump", "colour": "purple"}),
        ("a cat dances", "a cat", {"motion": "dance"}),
        ("A rocket is spinning", "A rocket", {"motion": "spin"}),
        ("Jumping!", "", {"motion": "jump"}),
        ("blue rocket, noto style", "rocket, noto style", {"colour": "blue"}),
        ("a jumper", "a jumper", {}),
        ("waving", "waving", {}),  # a motion of an arm
        ("", "", {}),
    ],
)
def test_words_of_a_caption(caption: str, rest: str, words: dict[str, str]) -> None:
    assert part_words(caption) == (rest, words)


@pytest.fixture
def pipe(make_pipeline: Callable):
    pipe = make_pipeline(16, steps=1, still_first=True)
    pipe.known = KnownCaptions.of_stickers([("dragon", "", []), ("woman dancing", "", []), ("red heart", "", [])])
    return pipe


def test_only_words_that_the_model_does_not_know_become_settings(pipe) -> None:
    def found(caption: str, given: tuple[int, ...] = ()) -> tuple[str, dict[str, str]]:
        fit, words = understand(pipe, caption, given=given)
        return fit.caption, words

    assert found("purple dragon jumping") == ("dragon", {"motion": "jump", "colour": "purple"})
    assert found("woman dancing") == ("woman dancing", {}) and found("red heart") == ("red heart", {})
    assert found("blue red heart") == ("heart", {"colour": "blue"}) or found("blue red heart")[1] == {"colour": "blue"}
    assert found("jumping", (0,)) == ("", {"motion": "jump"})
    assert found("my blue cat jumping", (0,)) == ("", {"motion": "jump"})  # a picture keeps its colours
    assert found("jumping", (0, 4)) == ("", {}) and found("jumping", (3,)) == ("", {})
    assert understand(pipe, "dragon jumping", True)[1] == {"motion": "jump"}
    with pytest.raises(ValueError, match="not trained on 'my cat'"):
        understand(pipe, "my cat jumping", True, given=(0,))
    pipe.known = None  # free text: the network is asked for everything
    assert found("purple dragon jumping") == ("purple dragon jumping", {})


def test_what_is_known_as_a_still_moves_as_a_whole(pipe) -> None:
    pipe.known = KnownCaptions.of_stickers([("pizza", "", []), ("dragon", "", [])], {"dragon"})
    fit, words = understand(pipe, "pizza")
    assert (fit, words) == (Fit("pizza", still=True), {"motion": ANY_MOTION})
    assert understand(pipe, "green pizza jumping")[1] == {"motion": "jump", "colour": "green"}
    assert understand(pipe, "dragon")[1] == {} and understand(pipe, "pizza", given=[0])[1] == {}
    made = make(pipe, fit.caption, num_frames=4, seed=1, num_stickers_per_prompt=2, **words)
    assert [sticker.attributes[MOVED] for sticker in made] == [LIVELY[1], LIVELY[2]]
    for sticker in made:
        assert np.array_equal(sticker.frames, move_picture(sticker.frames[0], sticker.attributes[MOVED], 4))
    assert "only still pictures" in moved_remark(fit, words, made) and "bounce, jump" in moved_remark(fit, {}, made)
    assert not moved_remark(fit, {"motion": "jump"}, made)
    [still] = make(pipe, fit.caption, num_frames=1, **words)
    assert len(still) == 1 and not still.attributes.get("loops")


def test_what_hardly_moves_moves_as_a_whole_unless_it_shall_not(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    [lively] = make(pipe, "dragon", num_frames=4)
    assert np.array_equal(lively.frames, pipe("dragon", num_frames=4).stickers[0].frames)
    assert not moved_remark(Fit("dragon"), {}, [lively])

    def hardly(*args, num_frames: int = 8, seed: int = 0, **rest) -> StickerOutput:
        frames = np.repeat(disc(RED)[None], num_frames, 0)
        frames[1:, 16, 16] = 0  # a dot that blinks
        return StickerOutput([Sticker(frames, np.full(num_frames, 125.0), "dragon", {"seed": seed})])

    monkeypatch.setattr(type(pipe), "__call__", hardly)
    for frames in (None, {0: disc(RED)}):
        [moved] = make(pipe, "dragon", frames, num_frames=6, seed=5, fps=4.0)
        assert np.array_equal(moved.frames, move_picture(disc(RED), LIVELY[2], 6))
        assert moved.durations.tolist() == [250.0] * 6 and moved.attributes[MOVED] == LIVELY[2]
        assert "hardly moves it" in moved_remark(Fit("dragon"), {}, [moved])
        [own] = make(pipe, "dragon", frames, num_frames=6, motion=NO_MOTION)
        assert not own.frames[1:, 16, 16].any() and MOVED not in own.attributes
    several = make(pipe, "", {0: disc(RED)}, motion=ANY_MOTION, seed=1, num_stickers_per_prompt=3)
    assert [sticker.attributes[MOVED] for sticker in several] == [LIVELY[1], LIVELY[2], LIVELY[0]]
    for frames in ({0: disc(RED), 4: disc(RED)}, {3: disc(RED)}):  # the user has said where the figure is
        assert MOVED not in make(pipe, "dragon", frames, num_frames=6)[0].attributes


def test_a_call_with_a_motion_makes_one_frame_and_moves_it(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    forward = pipe.dfgn.forward
    monkeypatch.setattr(
        pipe.dfgn, "forward", lambda noisy, *rest: lengths.append(noisy.shape[2]) or forward(noisy, *rest)
    )
    [still] = make(pipe, "dragon", num_frames=1, seed=3)
    moved = make(pipe, "dragon", motion="turn", num_frames=6, seed=3, fps=4.0, num_stickers_per_prompt=2)
    assert lengths == [1, 1, 1] and len(moved) == 2
    assert np.array_equal(moved[0].frames, move_picture(still.frames[0], "turn", 6))
    assert moved[0].durations.tolist() == [250.0] * 6
    assert not np.array_equal(moved[0].frames, moved[1].frames)
    lengths.clear()
    [given] = make(pipe, "", {0: disc(RED, 20)}, motion="jump", output_size=40)
    assert lengths == [] and given.frames.shape == (8, 40, 40, 4)
    with pytest.raises(ValueError, match="no motion 'hop'"):
        make(pipe, "dragon", motion="hop")
    assert lengths == []
    for frames, settings in (({1: disc(RED)}, {"motion": "jump"}), ({0: disc(RED)}, {"colour": "red"})):
        with pytest.raises(ValueError, match="give it as the first frame|from words"):
            make(pipe, "", frames, **settings)


def test_a_call_with_a_colour_paints_or_says_that_it_could_not(pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    [plain] = make(pipe, "dragon", num_frames=2, seed=3)
    for hue in (None, 40.0):
        monkeypatch.setattr("rdtf.whole_figure.main_hue", lambda picture, hue=hue: hue)
        [sticker] = make(pipe, "dragon", colour="blue", num_frames=2, seed=3)
        assert (UNPAINTED in sticker.attributes) == (hue is None)
        assert np.array_equal(sticker.frames, plain.frames) == (hue is None)


def test_the_options_name_all_motions_and_colours() -> None:
    help_of = {name: get_args(WORDS_OPTIONS[name])[1].help for name in ("motion", "colour")}
    assert all(name in help_of["motion"] for name in LOOPING) and all(name in help_of["colour"] for name in HUES)


def test_the_commands(pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe.save_pretrained("model")
    Image.fromarray(disc(RED), "RGBA").save("cat.png")

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == 0, result.output
        return result.output

    output = run("animate", "cat.png", "my cat jumping", "-m", "model", "-o", "a.webp", "--size", "32")
    assert "'my cat'" in output
    assert np.array_equal(read_sticker(Path("a.webp")).frames, move_picture(disc(RED), "jump", 8))
    run("animate", "cat.png", "--motion", "spin", "-m", "model", "-o", "b.webp", "--frames", "4")
    run("generate", "blue dragon dancing", "-m", "model", "-o", "c.webp")
    assert {"motion": "dance", "colour": "blue"}.items() <= read_made(Path("c.webp")).settings.items()
    for name in "abc":
        run("explain", f"{name}.webp", "-m", "model", "-o", f"again-{name}.webp")
        assert Path(f"again-{name}.webp").read_bytes() == Path(f"{name}.webp").read_bytes()
    Path("captions.txt").write_text("dragon\npurple dragon\ndragon spinning\n")
    run("generate", "--from", "captions.txt", "-m", "model", "-o", "many")
    rows = [json.loads(line) for line in Path("many/manifest.jsonl").read_text().splitlines()]
    assert [(row["motion"], row["colour"]) for row in rows] == [(None, None), (None, "purple"), ("spin", None)]
    assert read_made(Path("many/000003.webp")).settings["motion"] == "spin"
    third = read_sticker(Path("many/000003.webp")).frames
    assert np.abs(third[4].astype(int) - third[0, ::-1, ::-1]).mean() < 12
    assert "0 were there" not in run("generate", "--from", "captions.txt", "-m", "model", "-o", "many")
