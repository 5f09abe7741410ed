"""The card of a model: description, training, data, measures and limits, with pictures.

The card is a ``README.md`` for the Hugging Face Hub. It has names of files, but no paths of the machine.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdtf import __version__
from rdtf.data.card import counted, hub_licence, plain_text, sources_and_licences, table
from rdtf.data.dataset import Manifest, StickerDataset, is_dataset
from rdtf.files import atomic_file, write_text
from rdtf.hub import find_pipeline
from rdtf.loading import load_pipeline
from rdtf.pipeline import StickerPipeline
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet
from rdtf.text.known import KNOWN_CAPTIONS
from rdtf.train.settings import RECIPES, TrainSettings, recipe_settings

CARD = "README.md"
PICTURES = 20
"""Stickers of each kind: random, best, worst."""
RANKED_BY = "from one image"
"""The task of ``rdtf evaluate`` whose scores rank stickers."""
_FRAMES = 8
_FLAGS = ("size", "steps", "batch_size", "frames", "codec", "curriculum", "seed", "threads", "tune")
_RENAMED = {"start_from": "from", "max_minutes": "minutes"}


@dataclass
class _Known:
    """Facts about a model. For a model without a run, ``config``, ``settings`` and ``last`` are empty.

    Attributes:
        name: name without folders. folder: folder of the saved pipeline.
        config: configuration of the run. settings: settings of the training, with names instead of paths. last: last
            line of the log.
        data: the dataset, or None. report: report of ``rdtf evaluate``, or empty.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    data: Path | None = None
    report: dict[str, Any] = field(default_factory=dict)


def write_card(
    model: str,
    out: Path,
    *,
    evaluation: Path | None = None,
    data: Path | None = None,
    title: str | None = None,
    licence: str | None = None,
    seed: int = 0,
) -> Path:
    """Write the card of a model, and sheets of stickers beside it. Returns the card's path.

    Args:
        model: see :func:`rdtf.hub.find_pipeline`. For a run's folder the card has the training too.
        out: a folder; files of the same names are replaced.
        evaluation: report of ``rdtf evaluate -o`` about this model.
        data: the prepared dataset; by default the run's.
        title: title of the card; by default the model's name. licence: licence of the model.
        seed: seed of the choice of captions, and of their stickers.

    Raises:
        ValueError: no model, no dataset at ``data``, or no report of ``rdtf evaluate``.
    """
    known = _look(model, evaluation, data)
    pipe = load_pipeline(model)
    out.mkdir(parents=True, exist_ok=True)
    held = None if known.data is None else StickerDataset(known.data)
    title = title or known.name
    sections = [
        _head(title, pipe, known, licence),
        _training(known),
        _data(held.manifest if held else None, known),
        _size(pipe, known.folder),
        _measures(known.report),
        _random(pipe, known, out, seed),
        _ranked(pipe, known, held, out),
        _limits(pipe, known),
    ]
    write_text(out / CARD, "\n".join(line for lines in sections for line in lines))
    return out / CARD


def _look(model: str, evaluation: Path | None, data: Path | None) -> _Known:
    folder = find_pipeline(model)
    run = folder.parent if folder.name.startswith("pipeline") else folder
    known = _Known(Path(model).resolve().name, folder)
    with suppress(OSError, ValueError, IndexError, KeyError):  # no run, or one of another version
        config = json.loads((run / "config.json").read_text("utf-8"))
        settings = TrainSettings.model_validate(config["settings"]).model_dump(mode="json")
        known.last = json.loads((run / "log.jsonl").read_text("utf-8").splitlines()[-1])
        settings |= {"codec": _name(settings["codec"]), "text": [_name(text) for text in settings["text"]]}
        settings["start_from"] = settings["start_from"] and _name(settings["start_from"])
        known.config, known.settings = config, settings
    if data is not None:
        StickerDataset(data)  # or it says what is wrong
        known.data = data
    elif "data" in known.config and is_dataset(Path(known.config["data"])):
        known.data = Path(known.config["data"])
    if evaluation is not None:
        try:
            known.report = json.loads(evaluation.read_text("utf-8"))
            known.report["frames"], known.report["samples"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{evaluation} is no report of rdtf evaluate; make one with rdtf evaluate -o") from None
    return known


def _name(spec: str) -> str:
    """A model's name, without the folders of this machine."""
    return Path(spec).name


def _head(title: str, pipe: StickerPipeline, known: _Known, licence: str | None) -> list[str]:
    from huggingface_hub import ModelCardData  # takes a moment

    front = ModelCardData(
        license=hub_licence(licence) if licence else None,
        license_name=licence if licence and hub_licence(licence) == "other" else None,
        library_name="rdtf",
        pipeline_tag="text-to-video",
        tags=["stickers", "animated", "rgba", "text-to-video", "image-to-video", *_tune(known)],
    )
    size = pipe.config.sample_size
    return [
        f"---\n{front.to_yaml(line_break=chr(10))}\n---",
        "",
        f"# {plain_text(title)}",
        "",
        f"It makes transparent animated stickers of {size} x {size} px and 1 to 16 frames: from a caption, from a "
        "picture, between key frames, and as a longer version of a sticker. It is made with "
        f"[RDTF](https://arxiv.org/abs/2503.17735) {__version__}.",
        "",
        "```sh",
        f'rdtf generate "a caption" -m {shlex.quote(known.name)} -o sticker.webp',
        f"rdtf animate picture.png -m {shlex.quote(known.name)} -o sticker.webp",
        "```",
        "",
        f"Licence of the model: {plain_text(licence) if licence else 'its maker has not stated one'}.",
        "",
    ]


def _tune(known: _Known) -> list[str]:
    return [known.settings["tune"]] if known.settings.get("tune") else []


# ---------------------------------------------------------------------------------------------------- what is known


def _training(known: _Known) -> list[str]:
    lines = ["## Training", ""]
    if not known.settings:
        return [*lines, "How it was trained is not known: there is no run beside it.", ""]
    lines += [
        f"{known.last['step']:,} optimiser steps took {known.last['seconds'] / 3600:.2f} hours, in "
        f"{known.settings['precision']}, with {known.settings['threads']} threads. The command, with names of folders "
        "instead of paths:",
        "",
        "```sh",
        _command(known),
        "```",
        "",
    ]
    return [*lines, "<details><summary>All settings</summary>", "", "```json",
            json.dumps(known.settings, indent=1), "```", "", "</details>", ""]  # fmt: skip


def _command(known: _Known) -> str:
    """``rdtf train`` with all settings that differ from the run's recipe."""
    named = known.settings["recipe"] if known.settings["recipe"] in RECIPES else "fast"
    recipe = recipe_settings(named).model_dump(mode="json")
    words = ["rdtf", "train", _name(str(known.config.get("data", "DATA"))), known.name, "--recipe", named]
    for name, value in known.settings.items():
        if value == recipe[name] or name == "recipe":
            continue
        if name in _FLAGS or name in _RENAMED:
            words += [f"--{_RENAMED.get(name, name).replace('_', '-')}", str(value)]
        else:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join(words)


def _data(manifest: Manifest | None, known: _Known) -> list[str]:
    lines = ["## Data, licences, attributions", ""]
    if manifest is None:
        sources = known.config.get("dataset", {}).get("sources")
        lines += [
            "The dataset is not at hand, so its licences are not known here; "
            + ("its sources were:" if sources else "nor are its sources."),
            "",
        ]
        return [*lines, *(table(("source", "stickers"), sources.items()) if sources else [])]
    total = sum(manifest.counts.values())
    licences = {**manifest.licenses, "": total - sum(manifest.licenses.values())}
    if start := known.settings.get("start_from"):
        lines += [f"It began with the weights of {plain_text(start)}; what that was trained on counts too.", ""]
    settings = {name: value for name, value in manifest.settings.items() if name != "licenses" and value != []}
    return [
        *lines,
        f"{total:,} stickers, {manifest.counts['train']:,} of them to train on. A licence names whom to attribute, as "
        "far as the stickers' metadata say it.",
        "",
        *sources_and_licences(manifest.sources, licences),
        f"Prepared with {counted(settings)}. Fingerprint of the dataset: `{manifest.fingerprint}`.",
        "",
    ]


def _size(pipe: StickerPipeline, folder: Path) -> list[str]:
    rows = []
    for name, part in pipe.components.items():
        if part is not None:
            numbers = sum(p.numel() for p in part.parameters()) if isinstance(part, torch.nn.Module) else 0
            rows.append((f"{name} ({type(part).__name__})", numbers, _bytes(folder / name)))
    rows.append(("all", sum(row[1] for row in rows), _bytes(folder)))
    return ["## Size", "", *table(("part", "parameters", "bytes"), rows)]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------------------ how good it is


def _measures(report: Mapping[str, Any]) -> list[str]:
    lines = ["## Measures", ""]
    if not report:
        return [*lines, "None were given: `rdtf evaluate DATA -m MODEL -o report.json`, then "
                "`rdtf card MODEL -o FOLDER --evaluation report.json`.", ""]  # fmt: skip
    methods = list(dict.fromkeys(name for task in report["frames"].values() for name in task["methods"]))
    lines += [
        f"By `rdtf evaluate` on the splits {', '.join(report['splits'])}, {report['samples']} samples a clip, "
        f"{report['steps']} denoising steps; in brackets 95 % intervals over the clips.",
        "",
        "PSNR (dB, over white) of frames that are filled in:",
        "",
        *table(
            ("task", "given", "clips", *methods),
            (
                (name, task["pattern"], task["clips"], *(_shown(task["methods"][m]["psnr_white"]) for m in methods))
                for name, task in report["frames"].items()
            ),
        ),
    ]
    generation = report.get("generation", {})
    if generation:
        names = list(dict.fromkeys(name for result in generation.values() for name in result))
        rows = ((name, *(_shown(result.get(name, "")) for result in generation.values())) for name in names)
        lines += ["Stickers that are made:", "", *table(("measure", *generation), rows)]
    left_out = report.get("left_out", {}).items()
    return lines + [f"Not measured: {plain_text(name)} ({plain_text(why)}).\n" for name, why in left_out]


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _random(pipe: StickerPipeline, known: _Known, out: Path, seed: int) -> list[str]:
    """Stickers for random captions: known ones if the model lists them, otherwise held-out ones."""
    lines = ["## Twenty random captions", ""]
    if pipe.known is not None:
        names = numpy_rng(seed, 0, "card").permutation(len(pipe.known.names))[:PICTURES]
        words = [pipe.fit(pipe.known.names[i]).caption for i in sorted(names.tolist())]
        return [
            *lines,
            f"{len(words)} of the {len(pipe.known.names)} names that it was trained on (`{KNOWN_CAPTIONS}` lists all), "
            "drawn at random; one sticker each, of words alone, none thrown away:",
            "",
            _pictures(pipe, words, out, seed),
            "",
        ]
    dataset = None
    for split in ("test", "val") if known.data else ():
        part = StickerDataset(known.data or "", split)
        if any(captions := part.column("caption")):
            dataset = split
            break
    if dataset is None:
        return [*lines, "No picture: no held-out captions are at hand. Name the prepared dataset with `--data`.", ""]
    different = sorted({caption for caption in captions if caption})
    chosen = numpy_rng(seed, 0, "card").permutation(len(different))[:PICTURES]
    words = [different[i] for i in sorted(chosen.tolist())]
    return [
        *lines,
        f"{len(words)} captions drawn from the split {dataset}, which training never saw; one sticker each, of words "
        "alone, none thrown away:",
        "",
        _pictures(pipe, words, out, seed),
        "",
    ]


def _pictures(pipe: StickerPipeline, words: list[str], out: Path, seed: int) -> str:
    """Make a sticker for each caption and put them on a sheet. Returns the line that shows it."""
    stickers = pipe(words, num_frames=_FRAMES, seed=seed).stickers
    _sheet(out / "random.png", [sticker.frames for sticker in stickers], words, [()] * len(words))
    return "![stickers made for random captions](random.png)"


def _ranked(pipe: StickerPipeline, known: _Known, data: StickerDataset | None, out: Path) -> list[str]:
    """The best and the worst stickers of the evaluation, made again beside the real ones."""
    lines = ["## Best and worst", ""]
    report = known.report
    scores = report.get("frames", {}).get(RANKED_BY, {}).get("by_clip", [])
    places = {} if data is None else {key: i for i, key in enumerate(data.column("id"))}
    ids = report.get("stickers", [])
    same = data is not None and report.get("fingerprint") == data.fingerprint and set(ids) <= places.keys()
    if data is None or not scores or not same:
        why = "the dataset that was measured is not here" if scores else "no evaluation of single stickers was given"
        return [*lines, f"No pictures of the best and the worst: {why}. The random ones above are all.", ""]
    order = np.argsort(scores, kind="stable")[::-1]
    count = min(PICTURES, len(order) // 2)
    for name, chosen in (("best", order[:count]), ("worst", order[len(order) - count :][::-1])):
        rows, labels = [], []
        for number in chosen.tolist():
            record, frames = data.record(places[ids[number]]), data.frames(places[ids[number]])
            real = frames[np.arange(_FRAMES) * len(frames) // _FRAMES]
            made = pipe(
                frames={0: real[0]}, num_frames=_FRAMES, loop=record.loops, num_inference_steps=report["steps"],
                seed=report["seed"] + number * report["samples"],
            ).stickers[0]  # fmt: skip
            rows += [real, made.frames]
            labels += [f"real: {record.caption}", f"made, {scores[number]:.1f} dB"]
        _sheet(out / f"{name}.png", rows, labels, [(), (0,)] * len(chosen))
        lines += [
            f"The {count} {name} of {len(order)} held-out stickers, by PSNR of the frames made from the first one:",
            "",
            f"![{name} stickers]({name}.png)",
            "",
        ]
    return lines


def _sheet(path: Path, rows: Sequence[np.ndarray], labels: Sequence[str], outlined: Sequence[Sequence[int]]) -> None:
    with atomic_file(path) as file:
        contact_sheet(rows, labels=labels, frames=_FRAMES, outlined=outlined).save(file, "PNG")


def _limits(pipe: StickerPipeline, known: _Known) -> list[str]:
    size, frames = pipe.config.sample_size, known.settings.get("frames")
    window = getattr(pipe.text_encoder, "max_tokens", None)
    points = [
        f"It draws {size} x {size} px. Larger output is scaled, and shows no more detail.",
        "It can draw what its training stickers show and their captions name. Other words may have no effect.",
        "It has no means to write letters, to count, or to keep a character the same across stickers.",
    ]
    if frames:
        points.append(f"It was trained on clips of at most {frames} frames; longer ones are beyond what it has seen.")
    if window:
        points.append(f"It reads the first {window} words or tokens of a caption.")
    for name, task in known.report.get("frames", {}).items():
        over = task["over_crossfade"]
        if over["value"] < 0:
            points.append(
                f"In the task '{name}' its frames are further from the real ones than a cross-fade of the given frames "
                f"({-over['value']:.2f} dB of PSNR)."
            )
    return ["## What it cannot do", "", *(f"- {plain_text(point)}" for point in points), ""]
