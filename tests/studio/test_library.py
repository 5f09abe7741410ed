"""The studio without its page: the folder of stickers, uploads, making and cancelling, the timeline, settings."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rdtf.copy_decoder import CopyDecoder
from rdtf.io.write import save_sticker
from rdtf.loading import load_pipeline
from rdtf.options import WORDS_OPTIONS
from rdtf.provenance import find_given, inputs_near, make_again, read_made
from rdtf.sticker import Sticker
from rdtf.studio import views
from rdtf.studio.forms import fields_of, values_of
from rdtf.studio.library import Entry, Library
from rdtf.studio.maker import Maker, Models, Progress, task_of
from rdtf.studio.timeline import Slot, Timeline
from rdtf.text import KnownCaptions
from rdtf.world import draw_sticker


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "studio")


@pytest.fixture
def maker(library: Library, model: Path, tmp_path: Path) -> Maker:
    return Maker(Models([model], tmp_path / "runs"), library)


def made(maker: Maker, *args: Any, **options: Any) -> tuple[str, ...]:
    async def all_of() -> tuple[str, ...]:
        return [step.keys async for step in maker.make(*args, **options)][-1]

    return asyncio.run(all_of())


def test_given_frames_come_back_and_the_file_says_how_it_was_made(maker: Maker, model: Path, tmp_path: Path):
    drawn = draw_sticker(1, 0, size=16)
    save_sticker(drawn, tmp_path / "cat.png")
    library = maker.library
    key = library.give(tmp_path / "cat.png")
    keys = made(maker, "tiny", "a <cat>", pins=[(2, key, 0)], count=2, settings={"num_frames": 4, "seed": 5})
    assert len(keys) == 2 and library.listed() == sorted(keys, reverse=True)
    for number, one in enumerate(keys):
        sticker = library.read(one)
        assert len(sticker) == 4
        shown = np.where(drawn.frames[0][..., 3:] > 0, drawn.frames[0], np.uint8(0))
        np.testing.assert_array_equal(sticker.frames[2], shown)
        assert library.entry(one) == Entry(one, "a <cat>", 5 + number, "tiny")
        note = read_made(library.path(one))
        assert note.task == "animate"
        again = make_again(note, load_pipeline(model), find_given(note, inputs_near(note, library.path(one))))
        alpha = again.frames[..., 3:] > 0
        np.testing.assert_array_equal(np.where(alpha, again.frames, np.uint8(0)), sticker.frames)


def test_a_model_with_a_copy_decoder_keeps_the_pixels_of_a_larger_picture(
    library: Library, make_pipeline: Callable, tmp_path: Path
):
    make_pipeline(copy_decoder=CopyDecoder(widths=(8, 8), references=1)).save_pretrained(tmp_path / "sharp")
    maker = Maker(Models([tmp_path / "sharp"], tmp_path / "runs"), library)
    drawn = draw_sticker(1, 0, size=40).frames[:1]
    save_sticker(Sticker.at_fps(drawn), tmp_path / "cat.png")
    pins = [(0, library.give(tmp_path / "cat.png"), 0)]
    for asked, size in ((None, 40), (24, 24)):
        settings = {"num_frames": 2, "output_size": asked}
        [key] = made(maker, "sharp", "", pins=pins, settings=settings)
        assert library.read(key).size == (size, size)
        assert read_made(library.path(key)).settings["output_size"] == size
        if asked is None:
            shown = np.where(drawn[0][..., 3:] > 0, drawn[0], np.uint8(0))
            np.testing.assert_array_equal(library.read(key).frames[0], shown)
    [key] = made(maker, "sharp", "a cat", settings={"num_frames": 1})
    assert library.read(key).size == (16, 16)


def test_who_cancels_ends_what_runs_and_what_waits_and_others_are_served_in_turn(maker: Maker):
    long = {"num_inference_steps": 3000, "num_frames": 2}
    quick = {"num_inference_steps": 1, "num_frames": 1}

    async def all_of(settings: dict, begun: asyncio.Event) -> tuple[str, ...]:
        keys: tuple[str, ...] = ()
        async with aclosing(maker.make("tiny", "a cat", settings=settings)) as steps:
            async for step in steps:
                keys = step.keys
                begun.set()
        return keys

    async def several() -> list[tuple[str, ...]]:
        begun, never = asyncio.Event(), asyncio.Event()
        cancelled = [asyncio.create_task(all_of(long, event)) for event in (begun, never)]
        await begun.wait()
        other = asyncio.create_task(all_of(quick, asyncio.Event()))
        for task in cancelled:
            task.cancel()
        ended = await asyncio.gather(*cancelled, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended) and not never.is_set()
        closed = maker.make("tiny", "left", settings=long)
        results = [await other]
        await anext(closed)
        await closed.aclose()
        return [*results, await all_of(quick, asyncio.Event())]

    other, again = asyncio.run(several())
    assert maker.library.listed() == sorted([*other, *again], reverse=True) and len(other) == len(again) == 1


def test_an_unknown_caption_is_told_and_the_nearest_is_made(maker: Maker):
    maker.models.load("tiny").known = KnownCaptions.of_stickers([("a cat", "noto style", ["kitty"])])

    async def all_of(caption: str, **options: Any) -> Progress:
        return [step async for step in maker.make("tiny", caption, **options)][-1]

    unknown = asyncio.run(all_of("a kitty"))
    assert "'a cat, noto style'" in unknown.note
    assert read_made(maker.library.path(unknown.keys[0])).caption == "a cat, noto style"
    assert not asyncio.run(all_of("a cat")).note
    pins = [(0, unknown.keys[0], 0)]  # the picture says what it is, and an unknown word changes nothing
    animated, wordless = (asyncio.run(all_of(caption, pins=pins)) for caption in ("a kitty", ""))
    assert "picture alone" in animated.note and not wordless.note
    assert read_made(maker.library.path(animated.keys[0])).caption == ""
    frames = [maker.library.read(one.keys[0]).frames for one in (animated, wordless)]
    np.testing.assert_array_equal(*frames)
    known = asyncio.run(all_of("a cat", pins=pins))
    assert not known.note and read_made(maker.library.path(known.keys[0])).caption == "a cat, noto style"


def test_no_more_wait_than_there_is_room_for(maker: Maker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rdtf.studio.maker.MOST_WAITING", 0)
    with pytest.raises(ValueError, match="wait already"):
        made(maker, "tiny", "a cat")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "../tiny"}, "no model"),
        ({"caption": "x" * 2000}, "characters"),
        ({"count": 9}, "1 to 8"),
        ({"pins": [(0, "../../etc/passwd", 0)]}, "no sticker"),
        ({"settings": {"num_frames": 17}}, "num_frames"),
    ],
)
def test_wrong_wishes_get_a_sentence(maker: Maker, arguments: dict, message: str):
    values = {"model": "tiny", "caption": "a cat", **arguments}
    with pytest.raises(ValueError, match=message):
        made(maker, values.pop("model"), values.pop("caption"), **values)


@pytest.mark.parametrize("key", ["../x", "made-1", "/etc/passwd", "made-20260101-000000-000-0000000g", "", "a\nb"])
def test_no_key_leads_out_of_the_folder(library: Library, key: str):
    for use in (library.path, library.read, library.entry, lambda key: library.delete([key]), library.exported):
        with pytest.raises(ValueError, match="no sticker|no file"):
            use(key)
    for target in ("../telegram", "/tmp/mine.json"):
        with pytest.raises(ValueError, match="no messenger"):
            library.export(library.add(draw_sticker(1, 0, size=16)), target)


def test_files_and_packs_for_messengers(library: Library):
    frames = np.zeros((4, 1, 16, 16, 4), np.uint8)
    frames[..., 4:12, 4:12, :] = [200, 60, 60, 255]
    keys = [library.add(Sticker.at_fps(frame)) for frame in frames]
    path, made = library.export(keys[0], "discord-emoji")
    assert path.read_bytes() == made.data and library.exported(path.name) == path
    archive, left_out = library.pack(keys, "signal", "Cats", "me")
    assert not left_out and library.exported(archive.name) == archive
    with zipfile.ZipFile(archive) as pack:
        assert {"cats/01.png", "cats/04.png", "cats/pack.json"} <= {*pack.namelist()}
    library.delete([keys[0]])
    assert keys[0] not in library.listed() and not path.exists()


def test_uploads_are_decoded_elsewhere_and_thinned_out(library: Library, tmp_path: Path):
    many = Sticker.at_fps(np.random.default_rng(0).integers(0, 256, (40, 24, 600, 4), np.uint8))
    save_sticker(many, tmp_path / "many.webp")
    kept = library.read(library.give(tmp_path / "many.webp"))
    assert len(kept) == 16 and kept.size == (512, 512)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match=r"bad\.png"):
        library.give(tmp_path / "bad.png")


def test_the_timeline_keeps_what_is_pinned():
    line = Timeline((None,) * 3).placed([Slot("a", 0)]).chosen(2).placed([Slot("b", 4), Slot("b", 5)])
    assert line.pins() == [(0, "a", 0), (2, "b", 4)]
    line = line.filled("made")
    assert line.slots[1] == Slot("made", 1, pinned=False) and line.pins() == [(0, "a", 0), (2, "b", 4)]
    assert line.pinned(but=0).pins() == [(1, "made", 1), (2, "b", 4)]
    assert line.pinned(only=1).pins() == [(0, "a", 0), (1, "made", 1), (2, "b", 4)]
    longer = line.chosen(1).longer(2, 1)
    assert longer.slots == (None, None, *line.slots, None) and longer.at == 3
    assert longer.cleared().slots[3] is None
    assert line.resized(40).resized(2).slots == line.slots[:2]
    with pytest.raises(ValueError, match="16"):
        line.longer(10, 10)


def test_tasks_are_the_commands():
    assert [task_of(p) for p in ([], [3], [1, 2], [0, 2])] == ["generate", "animate", "extend", "inbetween"]


def test_settings_are_the_command_lines():
    fields = fields_of(WORDS_OPTIONS, ["num_frames", "fps", "loop", "still_first"])
    assert [(f.flag, f.kind, f.low, f.high) for f in fields] == [
        ("frames", int, 1, 16),
        ("fps", float, 0.1, 100),
        ("loop", bool, None, None),
        ("still-first", bool, None, None),
    ]
    assert values_of(fields, [4, None, False, True]) == {"num_frames": 4, "still_first": True}
    for wrong in (17, "x", float("nan")):
        with pytest.raises(ValueError, match="frames"):
            values_of(fields, [wrong, None, None, None])


def test_captions_are_text():
    text = "<img src=x onerror=alert(1)> ${alert(1)} {{value}} \" '"
    shown = views.cards([Entry("made-x", text, 1)])
    assert "<img src=x" not in shown and "&lt;img src=x" in shown and "&#34;" in shown
