"""What a model was trained to draw, and the nearest of it to a caption."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from rdtf.hub import INDEX
from rdtf.text import Fit, KnownCaptions
from rdtf.text import known as known_module
from rdtf.text.known import KNOWN_CAPTIONS, MOST_NAMES

NOTO, FLUENT = "noto style", "fluent 3d style"
STICKERS = [
    ("dragon face", NOTO, ["fantasy"]),
    ("dog face", NOTO, ["pet"]),
    ("dog face", FLUENT, ["pet", "hound"]),
    ("dog face", FLUENT, []),
    ("hot beverage", NOTO, ["coffee", "tea"]),
    ("crying cat", NOTO, []),
    ("T-Rex", FLUENT, ["Tyrannosaurus Rex", "dinosaur"]),
    ("rocket", "", ["space"]),
]


@pytest.fixture
def known() -> KnownCaptions:
    found = KnownCaptions.of_stickers(STICKERS)
    assert found is not None
    return found


def test_names_without_styles(known: KnownCaptions) -> None:
    assert known.names == ("T-Rex", "crying cat", "dog face", "dragon face", "hot beverage", "rocket")
    assert known.styles == ("fluent 3d style", "noto style")


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("Dog face", "dog face, fluent 3d style"),  # two of three are in this style
        ("dog face, noto style", "dog face, noto style"),
        ("dog face in Noto style", "dog face, noto style"),
        ("T-Rex, noto style", "T-Rex, fluent 3d style"),  # there is none in the other style
        ("rocket", "rocket"),
        ("the T-Rex", "T-Rex, fluent 3d style"),
        ("🚀", "rocket"),
        ("🐶, noto style", "dog face, noto style"),
        ("火箭", "rocket"),
        ("Rakete", "rocket"),
        ("fusée", "rocket"),
    ],
)
def test_a_known_name_gets_a_style_that_it_was_trained_in(known: KnownCaptions, asked: str, made: str) -> None:
    assert known.fit(asked) == Fit(made)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("a happy purple dragon", "dragon face, noto style"),
        ("coffee", "hot beverage, noto style"),
        ("sad kitty", "crying cat, noto style"),
        ("dinosaurs", "T-Rex, fluent 3d style"),
        ("puppy in fluent 3d style", "dog face, fluent 3d style"),
        ("a spaceship", "rocket"),
        ("a sad 🐱", "crying cat, noto style"),
    ],
)
def test_an_unknown_caption_gets_the_nearest_meaning_and_a_sentence(
    known: KnownCaptions, asked: str, made: str
) -> None:
    fit = known.fit(asked)
    assert fit.caption == made
    assert repr(made) in fit.note and asked.removesuffix(" in fluent 3d style") in fit.note


def test_words_of_many_captions_are_combined_freely() -> None:
    bodies, colours = ("cat", "dog", "bear", "fox", "owl", "pig"), ("red", "blue", "green", "grey", "pink", "white")
    captions = [f"a {colour} {body} jumps" for body, colour in product(bodies, colours)]
    known = KnownCaptions.of_stickers((caption, "", []) for caption in captions[1:])
    assert known is not None
    assert known.fit(captions[0]) == Fit(captions[0])
    assert known.fit("a red whale jumps").note
    assert known.fit("blue cat jumps") == Fit("a blue cat jumps")
    # Captions of one style are combined although those of another, which are more, are names.
    names = KnownCaptions.of_stickers((f"thing {i} of a red cat", NOTO, []) for i in range(99))
    assert names is not None
    both = known.joined(names)
    assert both.fit("a white pig jumps") == Fit("a white pig jumps")
    assert names.fit("red cat").note


@pytest.mark.parametrize("asked", ["", "  ", "!!", "of the"])
def test_an_empty_caption_is_told(known: KnownCaptions, asked: str) -> None:
    assert known.fit(asked).caption == asked
    assert "mixture" in known.fit(asked).note


def test_a_long_caption_is_not_repeated(known: KnownCaptions) -> None:
    assert len(known.fit("x" * 5000).note) < 250


def test_without_the_package_the_caption_stays_and_the_sentence_says_what_to_install(
    known: KnownCaptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(known_module, "sentence_encoder", missing)
    fit = known.fit("a puppy")
    assert fit.caption == "a puppy"
    assert "rdtf[words]" in fit.note


def test_beside_given_frames_an_unknown_caption_is_left_out(known: KnownCaptions, make_pipeline: Callable) -> None:
    pipe = make_pipeline(8)
    assert pipe.fit("a spaceship", given=True) == Fit("a spaceship")  # the model has no list
    pipe.known = known
    assert pipe.fit("dog face", given=True) == known.fit("dog face")
    assert pipe.fit("", given=True) == Fit("") and pipe.fit("").note
    fit = pipe.fit("a spaceship", given=True)
    assert fit.caption == "" and "goes by the picture alone" in fit.note and "'a spaceship'" in fit.note
    assert pipe.fit("a spaceship").caption != ""


def test_saved_and_joined(known: KnownCaptions, tmp_path: Path) -> None:
    known.save(tmp_path)
    loaded = KnownCaptions.load(tmp_path)
    assert loaded is not None
    assert [loaded.fit(asked) for asked in ("puppy", "dog face")] == [
        known.fit(asked) for asked in ("puppy", "dog face")
    ]
    mine = KnownCaptions.of_stickers([("my dog Rex", "my style", ["Rex"]), ("dog face", "my style", [])])
    assert mine is not None
    both = loaded.joined(mine)
    assert both.fit("dog face").caption == "dog face, my style"  # what was trained last is preferred
    assert both.fit("dog face, noto style").caption == "dog face, noto style"
    assert both.fit("rocket") == Fit("rocket")
    assert KnownCaptions.load(tmp_path / "other") is None


def test_names_of_stills(tmp_path: Path) -> None:
    rows = [(name, "noto style", []) for name in ("pizza", "rocket", "dog")]
    known, other = KnownCaptions.of_stickers(rows, {"dog"}), KnownCaptions.of_stickers(rows[1:], {"rocket"})
    assert known is not None and other is not None
    known.save(tmp_path)
    loaded = KnownCaptions.load(tmp_path)
    assert loaded is not None and loaded.stills == known.stills == {"pizza", "rocket"}
    assert loaded.fit("Pizza") == Fit("pizza, noto style", still=True)
    assert loaded.fit("a slice of pizza pie").still and not loaded.fit("dog").still
    assert known.joined(other).stills == other.joined(known).stills == {"pizza"}  # one of the models saw it move


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"styles": [], "names": {"a": [[0], []]}}', '{"styles": ["x style"], "names": {"a": [["0"], []]}}'],
)
def test_a_damaged_list_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / KNOWN_CAPTIONS).write_text(content)
    with pytest.raises(ValueError, match=KNOWN_CAPTIONS):
        KnownCaptions.load(tmp_path)


def test_free_text_has_no_list() -> None:
    assert KnownCaptions.of_stickers((f"caption {number}", "", []) for number in range(MOST_NAMES + 1)) is None
    assert KnownCaptions.of_stickers([("", "", []), ("", "", [])]) is None


def test_commands_use_the_list(known: KnownCaptions, make_pipeline, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from rdtf.cli import app

    pipeline = make_pipeline()
    pipeline.known = known
    pipeline.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / INDEX).read_text())
    options = ["-m", str(tmp_path / "model"), "--steps", "1", "--frames", "1", "-o", str(tmp_path / "one.webp")]
    made = CliRunner().invoke(app, ["generate", "a puppy", *options])
    assert made.exit_code == 0, made.output
    assert "nearest" in made.output
    told = CliRunner().invoke(app, ["explain", str(tmp_path / "one.webp")])
    assert "dog face, fluent 3d style" in told.output
    (tmp_path / "one.webp").unlink()
    refused = CliRunner().invoke(app, ["generate", "a puppy", "--strict", *options])
    assert refused.exit_code != 0 and "not trained on" in " ".join(refused.output.split())
    assert not (tmp_path / "one.webp").exists()

    (tmp_path / "rows.txt").write_text("rocket\na puppy\n")
    many = ["generate", "--from", str(tmp_path / "rows.txt"), *options[:-1], str(tmp_path / "many")]
    refused = CliRunner().invoke(app, [*many, "--strict"])
    assert refused.exit_code != 0 and "row 2" in " ".join(refused.output.split())
    made = CliRunner().invoke(app, many)
    assert made.exit_code == 0, made.output
    lines = [json.loads(line) for line in (tmp_path / "many" / "manifest.jsonl").read_text().splitlines()]
    assert [line["made"] for line in lines] == [None, "dog face, fluent 3d style"]
    assert "1 of the captions" in " ".join(made.output.split())


def test_an_english_word_is_not_read_in_another_language() -> None:
    # "santa" is the name of "mx claus" in French.
    names = [("Santa Claus", "", ["santa"]), ("mx claus", "", [])]
    known = KnownCaptions.of_stickers(names)
    assert known is not None and known.fit("santa").caption == "Santa Claus"
