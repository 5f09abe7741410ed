from __future__ import annotations

import json
from collections import Counter
from dataclasses import fields
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from rdtf import world
from rdtf.io.read import read_sticker
from rdtf.pixels import premultiply
from rdtf.sticker import Sticker
from rdtf.world import FULL, NONE, SMALL, artwork, compose, draw_sticker, is_held_out, write_world
from rdtf.world.artwork import ACCESSORIES, ACTIONS, BODIES, COLOURS, EXPRESSIONS, PROPS, rgb
from rdtf.world.motion import MOTIONS, Pose


def drawn(**attributes: object) -> Sticker:
    """The sticker with these attributes, always with the same place, proportions and pace."""
    return compose(np.random.default_rng(3), **{"body": "cat", "colour": "blue"} | attributes)  # type: ignore[arg-type]


def change(a: np.ndarray, b: np.ndarray) -> int:
    """How many pixels differ clearly, as they are seen (premultiplied)."""
    return int((np.abs(premultiply(a).astype(int) - premultiply(b)).max(axis=-1) > 40).sum())


def same(a: Sticker, b: Sticker) -> bool:
    return (
        a.frames.tobytes() == b.frames.tobytes()
        and a.durations.tolist() == b.durations.tolist()
        and (a.caption, a.attributes) == (b.caption, b.attributes)
    )


@pytest.fixture(scope="module")
def many() -> list[Sticker]:
    return [draw_sticker(11, index) for index in range(300)]


def test_the_world_is_as_large_as_promised() -> None:
    assert len(BODIES) >= 12 and len(COLOURS) >= 8 and len(ACTIONS) >= 16
    assert len(EXPRESSIONS) >= 7 and len(ACCESSORIES) >= 5 and len(PROPS) >= 5


def test_every_layer_can_be_drawn() -> None:
    """Colours, places, expressions and path commands of the file are known; the others are read by every drawing."""
    counts = {"M": 2, "L": 2, "Q": 4, "C": 6, "Z": 0, "E": 4, "R": 5}
    paints = artwork.palette("red", 0, 0)
    drawings = [
        part for body in BODIES.values() for part in (body.head, body.face, body.torso, body.tail, body.foot, body.arm)
    ]
    drawings += [part for e in EXPRESSIONS.values() for part in (e.left, e.right or (), e.mouth)]
    drawings += [extra.on(BODIES["cat"]) for extra in (*ACCESSORIES.values(), *PROPS.values())]
    for layer in (layer for drawing in (*drawings, *artwork.SHAPES.values()) for layer in drawing):
        assert all(counts[name] == len(numbers) for name, numbers in artwork.commands(layer.path))
        assert layer.fill in paints or len(rgb(layer.fill)) == 3
    places = {extra.place for extra in (*ACCESSORIES.values(), *PROPS.values())}
    assert places <= {"top", "face", "neck", "sides", "hand"}
    assert all(set(action.expressions or ()) <= set(EXPRESSIONS) for action in ACTIONS.values())


def test_every_action_has_a_motion() -> None:
    assert set(ACTIONS) == set(MOTIONS)


def test_a_sticker_is_a_pure_function_of_seed_and_index(many: list[Sticker]) -> None:
    np.random.seed(0)  # the global generator must not matter
    assert all(same(many[index], draw_sticker(11, index)) for index in (250, 3, 3, 17))
    assert not same(many[3], draw_sticker(12, 3))
    assert draw_sticker(2**63, 2**40).caption


def test_stickers_hardly_ever_repeat(many: list[Sticker]) -> None:
    assert len({sticker.frames.tobytes() for sticker in many}) == len(many)


@pytest.mark.parametrize(
    ("field", "names"),
    [
        ("body", tuple(BODIES)),
        ("colour", tuple(COLOURS)),
        ("expression", tuple(EXPRESSIONS)),
        ("accessory", (NONE, *ACCESSORIES)),
        ("prop", (NONE, *PROPS)),
    ],
)
def test_every_name_looks_different(field: str, names: tuple[str, ...]) -> None:
    pictures = {name: drawn(**{field: name}).frames[0] for name in names}
    for a, b in combinations(names, 2):
        assert change(pictures[a], pictures[b]) >= 12, f"{a} looks like {b}"


def test_every_expression_accessory_and_prop_shows_on_every_body() -> None:
    for body in BODIES:
        faces = [drawn(body=body, expression=name).frames[0] for name in EXPRESSIONS]
        assert min(change(a, b) for a, b in combinations(faces, 2)) >= 6, body
        bare = drawn(body=body).frames[0]
        for field, names in (("accessory", ACCESSORIES), ("prop", PROPS)):
            for name in names:
                assert change(bare, drawn(body=body, **{field: name}).frames[0]) >= 40, (body, name)


@pytest.mark.parametrize("body", BODIES)
def test_the_named_colour_is_the_one_that_fills_most(body: str) -> None:
    names = list(COLOURS)
    table = np.array([rgb(code) for code in COLOURS.values()])
    for colour in names:
        pixels = drawn(body=body, colour=colour).frames[0].reshape(-1, 4)
        solid = pixels[pixels[:, 3] == 255, :3].astype(float)
        distance = np.linalg.norm(solid[:, None] - table, axis=-1)
        nearest = Counter(distance.argmin(axis=1)[distance.min(axis=1) < 40].tolist())
        assert names[nearest.most_common(1)[0][0]] == colour


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_moves_clearly_even_in_two_frames(action: str) -> None:
    what = ACTIONS[action]
    for body, frames in product(("cat", "cloud", "mushroom"), (2, 3, 8, 24)):
        expression = (what.expressions or ("happy",))[0]
        clip = drawn(body=body, action=action, frames=frames, expression=expression).frames
        assert all(frame[..., 3].any() for frame in clip)
        most = max(change(a, b) for a, b in combinations(clip[:: max(1, frames // 8)], 2))
        assert most >= (20 if action == "blink" else 120), (body, frames, most)


def test_actions_differ_from_each_other() -> None:
    clips = {
        name: drawn(action=name, frames=6, expression=(what.expressions or ("happy",))[0]).frames
        for name, what in ACTIONS.items()
    }
    for a, b in combinations(clips, 2):
        assert change(clips[a], clips[b]) >= 60, f"{a} looks like {b}"


@pytest.mark.parametrize("action", [name for name, what in ACTIONS.items() if what.loops])
def test_looping_actions_close(action: str) -> None:
    t = np.linspace(0, 1, 7, endpoint=False)
    for body in (BODIES["dog"], BODIES["ghost"]):
        first, second = Pose(), Pose()
        MOTIONS[action](first, t, 1.1, body)
        MOTIONS[action](second, t + 1, 1.1, body)
        assert len(first.effects) == len(second.effects)
        for a, b in [(first, second), *zip(first.effects, second.effects, strict=True)]:
            for field in fields(a):
                one, other = getattr(a, field.name), getattr(b, field.name)
                if field.name == "angle":  # a whole turn is no turn
                    one, other = np.exp(1j * np.deg2rad(one)), np.exp(1j * np.deg2rad(other))
                if field.name not in ("effects", "drawing", "on"):
                    np.testing.assert_allclose(one, other, atol=1e-9, err_msg=field.name)
    clip = drawn(action=action, frames=24, expression=(ACTIONS[action].expressions or ("happy",))[0])
    assert clip.attributes["loops"] is True
    steps = [change(clip.frames[k - 1], clip.frames[k]) for k in range(24)]
    assert steps[0] <= 1.5 * max(steps[1:]) + 10  # the way back to the start is a step like the others


def test_actions_that_end_elsewhere_say_so() -> None:
    for action in ("grow", "appear"):
        clip = drawn(action=action, frames=12)
        assert clip.attributes["loops"] is False
        assert clip.durations[-1] > clip.durations[0]


def test_frame_counts_have_a_long_tail() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([world._frame_count(rng) for _ in range(5000)])
    assert counts.min() == 1 and counts.max() == 40
    assert 0.04 < (counts == 1).mean() < 0.1
    assert 0.05 < ((counts >= 2) & (counts <= 4)).mean() < 0.15
    assert ((counts >= 6) & (counts <= 20)).mean() > 0.6
    assert 0.01 < (counts > 20).mean() < 0.1


def test_attributes_match_the_pixels_and_words(many: list[Sticker]) -> None:
    for sticker in many:
        known = sticker.attributes
        assert len(sticker) == known["frames"]
        assert (known["action"] == world.STILL) == (len(sticker) == 1)
        assert known["body"] in sticker.caption and known["colour"] in sticker.caption
        mood = EXPRESSIONS[known["expression"]]
        assert mood.adjective in sticker.caption or mood.predicate in sticker.caption
        for field, names in (("accessory", ACCESSORIES), ("prop", PROPS)):
            assert known[field] == NONE or names[known[field]].phrase in sticker.caption
        if len(sticker) > 1:
            what = ACTIONS[known["action"]]
            assert any(words in sticker.caption for words in (*what.doing, what.does))
        assert (sticker.durations % 10 == 0).all() and sticker.durations.min() >= 30


def test_figures_stay_inside_and_fill_the_canvas(many: list[Sticker]) -> None:
    extents = []
    for sticker in many:
        shown = sticker.frames[..., 3].any(axis=0)
        if sticker.attributes["action"] != "peek":
            ring = shown.copy()
            ring[1:-1, 1:-1] = False
            assert not ring.any(), sticker.caption
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        extents.append(max(np.ptp(rows), np.ptp(columns)) + 1)
    assert np.mean(extents) > 0.75 * 64


def test_alpha_is_straight_and_edges_are_soft() -> None:
    frame = drawn(body="heart", colour="yellow").frames[0]
    soft = (frame[..., 3] > 20) & (frame[..., 3] < 235)
    assert soft.sum() > 50
    ink = np.median(frame[soft][:, :3], axis=0)  # straight: a soft edge has the outline's own colour, ...
    by_alpha = [np.median(frame[soft & (frame[..., 3] // 128 == half)][:, :3], axis=0) for half in (0, 1)]
    assert np.abs(by_alpha[0] - by_alpha[1]).max() < 12  # ... however thin it is
    assert 0 < ink.max() < 90
    assert not frame[frame[..., 3] == 0].any()


def test_fading_changes_alpha_only_not_colour() -> None:
    clip = drawn(action="appear", frames=10).frames
    assert clip[0, ..., 3].max() < 60 and clip[-1, ..., 3].max() == 255
    middle = clip[5][clip[5][..., 3] > 60]
    blue = rgb(COLOURS["blue"])
    assert (np.abs(middle[:, :3] - blue).max(axis=1) < 40).mean() > 0.3


@pytest.mark.parametrize("size", [16, 32, 128])
def test_other_sizes_show_the_same_sticker(size: int) -> None:
    small, normal = draw_sticker(5, 8, size=size), draw_sticker(5, 8)
    assert small.frames.shape == (len(normal), size, size, 4)
    assert (small.caption, small.attributes) == (normal.caption, normal.attributes)
    share = [(s.frames[..., 3] > 127).mean() for s in (small, normal)]
    assert share[0] == pytest.approx(share[1], abs=0.05)


def test_held_out_combinations() -> None:
    for names, low, high in ((FULL, 0.08, 0.12), (SMALL, 0.05, 0.16)):
        combined = list(product(names["body"], names["colour"], names["action"]))
        held = [is_held_out({"body": b, "colour": c, "action": a}) for b, c, a in combined]
        assert low < np.mean(held) < high
        trained = [combination for combination, out in zip(combined, held, strict=True) if not out]
        for place, all_names in enumerate((names["body"], names["colour"], names["action"])):
            seen = Counter(combination[place] for combination in trained)
            assert min(seen.values()) > 0.6 * len(combined) / len(all_names)
    with pytest.raises(ValueError, match=r"unknown colour 'teal'; choose from red"):
        is_held_out({"body": "cat", "colour": "teal", "action": "wave"})


def test_vocabularies() -> None:
    assert world.vocabulary_named("small") is SMALL
    with pytest.raises(ValueError, match="choose from full, small"):
        world.vocabulary_named("tiny")
    for index in range(60):
        known = draw_sticker(0, index, vocabulary=SMALL).attributes
        assert known["body"] in SMALL["body"] and known["colour"] in SMALL["colour"]
        assert known["action"] in (*SMALL["action"], world.STILL) and known["prop"] == NONE
    only = {**FULL, "expression": ("angry",), "action": ("sleep",)}
    moods = {draw_sticker(0, k, vocabulary=only).attributes["expression"] for k in range(30)}
    assert moods == {"sleepy", "angry"}  # asleep it cannot look angry; a still can


def test_a_flat_sticker_is_the_outlined_one_without_lines_in_pale_colours() -> None:
    for index in range(12):
        outlined, flat = draw_sticker(0, index), draw_sticker(0, index, style="flat")
        assert (outlined.caption, outlined.attributes) == (flat.caption, flat.attributes)
        assert np.array_equal(outlined.durations, flat.durations)
        solid = [sticker.frames[..., :3][sticker.frames[..., 3] == 255] for sticker in (outlined, flat)]
        assert solid[1].mean() > solid[0].mean()
        ink = [
            int((sticker.frames[..., :3].max(-1) < 80)[sticker.frames[..., 3] > 0].sum())
            for sticker in (outlined, flat)
        ]
        assert ink[1] < ink[0]  # eyes and mouths stay
    with pytest.raises(ValueError, match="unknown style 'oil'; choose from outlined, flat"):
        draw_sticker(0, 0, style="oil")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1, "index": 0}, "between 0"),
        ({"seed": 0, "index": -1}, "between 0"),
        ({"seed": 0, "index": 0, "size": 8}, "at least 16"),
    ],
)
def test_bad_numbers_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_sticker(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("action", "frames"), [("still", 2), ("wave", 1), ("wave", 41)])
def test_compose_refuses_impossible_frame_counts(action: str, frames: int) -> None:
    with pytest.raises(ValueError, match="a still has 1 frame"):
        drawn(action=action, frames=frames)


@pytest.mark.parametrize("field", ["body", "colour", "expression", "accessory", "prop", "action"])
def test_compose_names_an_unknown_word(field: str) -> None:
    with pytest.raises(ValueError, match=f"unknown {field} 'moon'; choose from "):
        drawn(**{field: "moon"})


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("format", ["webp", "apng"])
def test_written_worlds_read_back(tmp_path: Path, format: str) -> None:
    out = write_world(tmp_path / "w", 25, seed=2, format=format)
    written = rows(out)
    assert len(written) == 25
    for index, row in enumerate(written):
        sticker, back = draw_sticker(2, index), read_sticker(out / row["file_name"])
        assert (row["caption"], row["attributes"]) == (sticker.caption, sticker.attributes)
        assert (row["source"], row["license"]) == ("built-in world", "CC0-1.0")
        assert row.get("split") == ("test" if is_held_out(sticker.attributes) else None)
        np.testing.assert_array_equal(back.frames, sticker.frames)
        if len(sticker) > 1:
            np.testing.assert_array_equal(back.durations, sticker.durations)
    assert any("split" in row for row in written)


def test_workers_do_not_change_the_files(tmp_path: Path) -> None:
    one, two = write_world(tmp_path / "one", 5), write_world(tmp_path / "two", 5, workers=2)
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    assert all(path.read_bytes() == (two / path.name).read_bytes() for path in one.iterdir())


def test_writing_again_leaves_nothing_old(tmp_path: Path) -> None:
    write_world(tmp_path, 6, vocabulary="full")
    write_world(tmp_path, 3, seed=1, format="gif", vocabulary="small")
    files = {row["file_name"] for row in rows(tmp_path)}
    assert len(files) == 3
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == files | {"metadata.jsonl"}


def test_an_interrupted_run_leaves_no_metadata_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path, 4)
    save = world.save_sticker

    def broken(sticker: Sticker, path: Path, **options: bool) -> None:
        if "3" in path.name:
            raise KeyboardInterrupt
        save(sticker, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(world, "save_sticker", broken)
        with pytest.raises(KeyboardInterrupt):
            write_world(tmp_path, 5, seed=9)
    assert not (tmp_path / "metadata.jsonl").exists()
    write_world(tmp_path, 5, seed=9)
    assert len(rows(tmp_path)) == 5


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no sticker world"):
        write_world(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_a_world_that_is_drawn_anew_keeps_files_that_it_did_not_write(tmp_path: Path) -> None:
    write_world(tmp_path, 3, size=16)
    for name in ("sticker-of-mine.webp", "sticker-0000001.psd", ".sticker-notes"):
        (tmp_path / name).write_text("mine")
    write_world(tmp_path, 1, size=16)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith((".rdtf", "metadata"))} == {
        *("sticker-of-mine.webp", "sticker-0000001.psd", ".sticker-notes", "sticker-0000000.webp")
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 0}, "at least 1"),
        ({"workers": 0}, "at least 1"),
        ({"format": "bmp"}, "choose from webp"),
        ({"vocabulary": "huge"}, "choose from full"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_world(tmp_path / "w", **{"count": 2} | settings)
    assert not (tmp_path / "w").exists()
