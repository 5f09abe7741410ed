"""The built-in sticker world: endless captioned animated stickers, each a pure function of (seed, index).

A sticker has a body, its colour, an expression, something worn, something held, and an action. These attributes stand
beside the caption, so that generated stickers can be compared with what was asked for. A fixed rule holds some pairs
out (body with action, body with colour): ``write_world`` marks them for the test split. A model that draws them well
has learnt to combine.
"""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rdtf.files import write_text
from rdtf.io.write import save_sticker
from rdtf.progress import bars
from rdtf.sticker import Sticker
from rdtf.world.artwork import ACCESSORIES, ACTIONS, BODIES, COLOURS, EXPRESSIONS, PROPS, palette
from rdtf.world.drawing import Look, figure, render
from rdtf.world.motion import MOTIONS, Pose

NONE = "none"
STILL = "still"  # the action of single frames
STYLES = ("outlined", "flat")  # dark outlines and full colours; or no outlines, no blush, pastel colours
MAX_FRAMES = 40
RESERVED_SEED = 2**63
"""Seeds from here on are for training and testing the judge. Worlds that train or measure a generator have others."""
SOURCE = "built-in world"
LICENSE = "CC0-1.0"

Vocabulary = Mapping[str, tuple[str, ...]]
"""For each attribute the names that stickers are composed of. ``none`` stands for wearing or holding nothing."""

FULL: Vocabulary = {
    "body": tuple(BODIES),
    "colour": tuple(COLOURS),
    "expression": tuple(EXPRESSIONS),
    "accessory": (NONE, *ACCESSORIES),
    "prop": (NONE, *PROPS),
    "action": tuple(ACTIONS),
}
SMALL: Vocabulary = {
    "body": ("cat", "ghost", "star", "robot"),
    "colour": ("red", "yellow", "green", "blue"),
    "expression": ("happy",),
    "accessory": (NONE,),
    "prop": (NONE,),
    "action": ("jump", "peek", "grow", "dance"),
}
VOCABULARIES = {"full": FULL, "small": SMALL}


def vocabulary_named(name: str) -> Vocabulary:
    """The vocabulary of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in VOCABULARIES:
        raise ValueError(f"unknown vocabulary {name!r}; choose from {', '.join(VOCABULARIES)}")
    return VOCABULARIES[name]


def is_held_out(attributes: Mapping[str, Any]) -> bool:
    """Whether a sticker with these attributes (``body``, ``colour``, ``action``) belongs to the test split.

    The rule runs diagonally through the tables of bodies x actions and bodies x colours. Training sees every body,
    colour and action in most of its combinations, and about one combination in ten never. Stills are held out by their
    colour only.

    Raises:
        ValueError: a name that the world does not have.
    """
    body, colour = _index("body", attributes["body"]), _index("colour", attributes["colour"])
    if (colour - 3 * body) % 20 == 0:
        return True
    return attributes["action"] != STILL and (_index("action", attributes["action"]) - 7 * body) % 20 == 0


def _index(field: str, name: str) -> int:
    if name not in FULL[field]:
        raise ValueError(f"unknown {field} {name!r}; choose from {', '.join(FULL[field])}")
    return FULL[field].index(name)


# -------------------------------------------------------------------------------------------------- a sticker


def draw_sticker(
    seed: int,
    index: int,
    *,
    size: int = 64,
    vocabulary: Vocabulary = FULL,
    style: str = "outlined",
    min_frames: int = 1,
) -> Sticker:
    """Sticker ``index`` of the world ``seed``: ``size`` x ``size`` pixels, 1 to 40 frames, with durations.

    The same arguments give the same pixels and words. ``attributes`` holds the attributes of :data:`FULL` (the action
    of a single frame is ``still``), ``frames``, ``loops`` (the last frame leads back to the first) and ``held_out``. In
    another of :data:`STYLES` it has the same attributes, words and motion. Shorter ones get ``min_frames`` frames.

    Raises:
        ValueError: a seed or index outside 0 to 2**64 - 1, a size below 16, or an unknown style.
    """
    if not (0 <= seed < 2**64 and 0 <= index < 2**64):
        raise ValueError(f"seed and index must lie between 0 and 2**64 - 1, got {seed} and {index}")
    rng = np.random.Generator(np.random.Philox(key=[seed, index]))
    body, colour = _pick(rng, vocabulary["body"]), _pick(rng, vocabulary["colour"])
    frames = max(_frame_count(rng), min_frames)
    action = _pick(rng, vocabulary["action"])
    fitting = ACTIONS[action].expressions if frames > 1 else None
    expressions = tuple(e for e in vocabulary["expression"] if fitting is None or e in fitting)
    return compose(
        rng,
        body=body,
        colour=colour,
        expression=_pick(rng, expressions or fitting or ()),
        accessory=_pick_extra(rng, vocabulary["accessory"]),
        prop=_pick_extra(rng, vocabulary["prop"]),
        action=action if frames > 1 else STILL,
        frames=frames,
        size=size,
        style=style,
    )


def compose(
    rng: np.random.Generator,
    *,
    body: str,
    colour: str,
    expression: str = "happy",
    accessory: str = NONE,
    prop: str = NONE,
    action: str = STILL,
    frames: int = 1,
    size: int = 64,
    style: str = "outlined",
) -> Sticker:
    """The sticker with the given attributes. ``rng`` draws place, proportions, tints, pace and words.

    Raises:
        ValueError: an unknown name or style, a size below 16, or a frame count that the action cannot have.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; choose from {', '.join(STYLES)}")
    flat = style == "flat"
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")
    names = (body, colour, expression, accessory, prop, action)
    attributes: dict[str, Any] = dict(zip(FULL, names, strict=True))
    for field, name in attributes.items():
        if (field, name) != ("action", STILL):
            _index(field, name)
    if not 1 <= frames <= MAX_FRAMES or (frames == 1) != (action == STILL):
        raise ValueError(f"{frames} frames of {action!r}: a still has 1 frame, an action 2 to {MAX_FRAMES}")
    attributes["frames"] = frames
    attributes["loops"] = action != STILL and ACTIONS[action].loops
    attributes["held_out"] = is_held_out(attributes)
    look = Look(
        width=rng.uniform(0.94, 1.06),
        height=rng.uniform(0.95, 1.05),
        head=rng.uniform(0.97, 1.05),
        features=rng.uniform(0.95, 1.15),
        arm=rng.uniform(0.95, 1.15),
        hat_angle=rng.uniform(-9, 9),
        fill=rng.uniform(0.86, 0.96),
        place=(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65)),
        mirror=bool(rng.random() < 0.5),
        blush=bool(rng.random() < 0.7) and not flat,
        edges=not flat,
    )
    pose = Pose()
    durations = animate(rng, pose, action, frames, body)
    if prop != NONE:  # a calmer arm, held out, so that what it holds stays in sight
        pose.arm_r = rng.uniform(8, 20) + 0.25 * np.asarray(pose.arm_r)
    parts = figure(BODIES[body], EXPRESSIONS[expression], ACCESSORIES.get(accessory), PROPS.get(prop), pose, look)
    colours = palette(colour, rng.uniform(-0.012, 0.012), rng.uniform(-0.03, 0.03), 0.4 if flat else 0.0)
    pixels = render(parts, pose, look, colours, frames, size)
    return Sticker(pixels, durations, _caption(rng, attributes), attributes)


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def _pick_extra(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    """Half of the stickers wear or hold nothing, if the vocabulary has ``none``."""
    nothing = rng.random() < 0.5
    name = _pick(rng, [n for n in names if n != NONE] or names)
    return NONE if nothing and NONE in names else name


def _frame_count(rng: np.random.Generator) -> int:
    """7 % stills, 10 % of 2 to 4 frames, else log-normal about 10: most 6 to 20, a few up to 40."""
    kind, short, bulk = rng.random(), int(rng.integers(2, 5)), rng.lognormal(np.log(9.5), 0.45)
    if kind < 0.07:
        return 1
    return short if kind < 0.17 else int(np.clip(round(bulk), 5, MAX_FRAMES))


def animate(rng: np.random.Generator, pose: Pose, action: str, frames: int, body: str) -> np.ndarray:
    """Fill ``pose`` for ``frames`` frames of the action of a body; returns the durations ``(frames,)`` in ms.

    ``rng`` draws strength, pace and phase.
    """
    strength, pace, phase = rng.uniform(0.85, 1.15), rng.uniform(0.75, 1.35), rng.random()
    step_ms = rng.uniform(60, 120)
    hold, times = rng.random() < 0.12, rng.uniform(3, 6)  # some show their last frame longer
    if action == STILL:
        return np.array([1000.0])
    what = ACTIONS[action]
    cycle_ms = 1000 * what.seconds * pace
    if what.loops:
        # Whole cycles, of at least two frames each, at about the action's pace.
        cycles = int(np.clip(round(frames * step_ms / cycle_ms), 1, frames // 2))
        t = np.arange(frames) * cycles / frames + (phase if frames / cycles > 4 else 0.0)
    else:
        cycles = 1
        t = np.arange(frames) / (frames - 1)
    MOTIONS[action](pose, t, strength, BODIES[body])
    duration = np.clip(10 * round(cycles * cycle_ms / frames / 10), 30, 500)  # files count in 10 ms
    durations = np.full(frames, float(duration))
    if hold or not what.loops:
        durations[-1] = 10 * round(duration * times / 10)
    return durations


# -------------------------------------------------------------------------------------------------- captions


def _article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _caption(rng: np.random.Generator, attributes: Mapping[str, Any]) -> str:
    """A sentence that names every attribute, from one of five templates."""
    mood = EXPRESSIONS[attributes["expression"]]
    who = f"{attributes['colour']} {attributes['body']}"
    extras = [ACCESSORIES[attributes["accessory"]].phrase] if attributes["accessory"] != NONE else []
    extras += [PROPS[attributes["prop"]].phrase] if attributes["prop"] != NONE else []
    near, apart = (f" {' and '.join(extras)}", f", {' and '.join(extras)}") if extras else ("", "")
    moody = f"{mood.adjective} {who}"
    template, phrase = int(rng.integers(5)), int(rng.integers(2))
    if attributes["action"] == STILL:
        return (
            f"{_article(who)}, {mood.predicate}{apart}",
            f"{_article(moody)}{near}",
            f"sticker of {_article(moody)}{near}",
            f"{moody}{near}",
            f"{_article(who)}{near}, {mood.predicate}",
        )[template]
    action = ACTIONS[attributes["action"]]
    doing = action.doing[phrase]
    return (
        f"{_article(who)} {doing}, {mood.predicate}{apart}",
        f"{_article(moody)}{near}, {doing}",
        f"sticker of {_article(moody)} {doing}{apart}",
        f"{moody} {doing}{apart}",
        f"{_article(who)}{near} {action.does}, {mood.predicate}",
    )[template]


# ----------------------------------------------------------------------------------------------------- files

_MARK = ".rdtf-world"  # a folder with this file is a world, finished or not
_ENDINGS = {"webp": ".webp", "apng": ".png", "gif": ".gif"}
_OWN_NAME = re.compile(r"sticker-\d{7}\.(webp|png|gif)")  # any other file in the folder is the user's


def write_world(
    out: Path,
    count: int,
    seed: int = 0,
    *,
    size: int = 64,
    format: str = "webp",
    vocabulary: str = "full",
    style: str = "outlined",
    workers: int = 1,
) -> Path:
    """Write stickers 0 to ``count - 1`` of the world ``seed`` as files, with ``metadata.jsonl``.

    Each line of ``metadata.jsonl`` holds ``file_name``, ``caption``, ``attributes``, ``source``, ``license``, and
    ``"split": "test"`` if the combination is held out. It is written last and atomically.

    Args:
        out: the folder, which is returned; new, empty, or an earlier world (finished or not), which is replaced.
        seed: below :data:`RESERVED_SEED`. size: width and height in pixels.
        format: ``webp`` (lossless), ``apng`` or ``gif`` (hard edges).
        vocabulary: ``full`` or ``small``. style: ``outlined`` or ``flat``.
        workers: how many processes draw; the files do not depend on it.

    Raises:
        ValueError: a bad setting, or ``out`` holds something else than a world.
    """
    if count < 1 or workers < 1:
        raise ValueError(f"count and workers must be at least 1, got {count} and {workers}")
    if format not in _ENDINGS:
        raise ValueError(f"unknown format {format!r}; choose from {', '.join(_ENDINGS)}")
    if seed >= RESERVED_SEED:
        raise ValueError(f"seeds from {RESERVED_SEED} on are the judge's own; choose a smaller one than {seed}")
    names = vocabulary_named(vocabulary)
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; choose from {', '.join(STYLES)}")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).exists())):
        raise ValueError(f"{out} is not empty and holds no sticker world; choose another folder or empty it")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()
    metadata = out / "metadata.jsonl"
    metadata.unlink(missing_ok=True)
    for stale in [path for path in out.iterdir() if _OWN_NAME.fullmatch(path.name)]:
        stale.unlink()

    write = partial(_write_one, out, seed, size, _ENDINGS[format], names, style)
    rows: list[dict[str, Any]] = []
    with bars() as progress, ExitStack() as stack:
        task = progress.add_task("drawing stickers", total=count, note="")
        drawn: Iterable[dict[str, Any]] = map(write, range(count))
        if workers > 1:
            # "spawn": a forked child would inherit the locks of torch's threads.
            pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
            drawn = stack.enter_context(pool).map(write, range(count), chunksize=32)
        for row in drawn:
            rows.append(row)
            progress.advance(task)
    write_text(metadata, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return out


def _write_one(
    out: Path, seed: int, size: int, ending: str, vocabulary: Vocabulary, style: str, index: int
) -> dict[str, Any]:
    sticker = draw_sticker(seed, index, size=size, vocabulary=vocabulary, style=style)
    name = f"sticker-{index:07d}{ending}"
    save_sticker(sticker, out / name, durable=False)
    row = {
        "file_name": name,
        "caption": sticker.caption,
        "attributes": sticker.attributes,
        "source": SOURCE,
        "license": LICENSE,
    }
    return row | ({"split": "test"} if sticker.attributes["held_out"] else {})
