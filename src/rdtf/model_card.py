"""The card of a model: description, training, data, measures and limits, with pictures.

The card is a ``README.md`` for the Hugging Face Hub. It has names of files, but no paths of the machine. Its text is in
``templates/model_card.md``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rdtf import __version__
from rdtf.data.card import counted, hub_licence, render_card, sources_and_licences, table
from rdtf.data.dataset import StickerDataset, is_dataset
from rdtf.files import atomic_file, write_text
from rdtf.hub import find_pipeline
from rdtf.loading import load_pipeline
from rdtf.making import MOVED, make, understand
from rdtf.pipeline import StickerPipeline
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet
from rdtf.text.known import KNOWN_CAPTIONS
from rdtf.train.settings import RECIPES, START_DECIDES, TrainSettings, recipe_settings

CARD = "README.md"
PICTURES = 20
"""Stickers of each kind: random, best, worst."""
RANKED_BY = "from one image"
"""The task of ``rdtf evaluate`` whose scores rank stickers."""
_FRAMES = 8


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
    folder, name = find_pipeline(model), Path(model).resolve().name
    report = {} if evaluation is None else _report(evaluation)
    settings, last, used = _training(folder.parent if folder.name.startswith("pipeline") else folder)
    if data is None and used is not None and is_dataset(used):
        data = used
    held = None if data is None else StickerDataset(data)
    pipe = load_pipeline(model)
    out.mkdir(parents=True, exist_ok=True)
    known: dict[str, Any] = {}
    if held is not None:
        manifest = held.manifest
        total = sum(manifest.counts.values())
        licences = {**manifest.licenses, "": total - sum(manifest.licenses.values())}
        prepared = {key: value for key, value in manifest.settings.items() if key != "licenses" and value != []}
        known = {
            "total": total,
            "sources": sources_and_licences(manifest.sources, licences),
            "prepared": counted(prepared),
        }
    behind = {task: -facts["over_crossfade"]["value"] for task, facts in report.get("frames", {}).items()}
    text = render_card(
        "model_card.md",
        front=_front(licence, settings),
        title=title or name,
        name=name,
        size=pipe.config.sample_size,
        version=__version__,
        licence=licence,
        settings=settings,
        last=last,
        command=_command(settings, name, used) if settings else "",
        manifest=held and held.manifest,
        **known,
        sizes=_sizes(pipe, folder),
        report=report,
        **(_measures(report) if report else {}),
        random=_random(pipe, data, out, seed),
        ranked=_ranked(pipe, report, held, out),
        count=_ranks(report),
        window=getattr(pipe.text_encoder, "max_tokens", None),
        behind={task: loss for task, loss in behind.items() if loss > 0},
    )
    write_text(out / CARD, text)
    return out / CARD


def _training(run: Path) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    """Settings with names instead of paths, last line of the log, and dataset of a run; empty for a bare model."""
    with suppress(OSError, ValueError, IndexError, KeyError):  # no run, or one of another version
        config = json.loads((run / "config.json").read_text("utf-8"))
        settings = TrainSettings.model_validate(config["settings"]).model_dump(mode="json")
        last = json.loads((run / "log.jsonl").read_text("utf-8").splitlines()[-1])
        if start := settings["start_from"]:
            settings = {key: value for key, value in settings.items() if key not in START_DECIDES}
            settings["start_from"] = _name(start)
        else:
            settings |= {"codec": _name(settings["codec"]), "text": [_name(text) for text in settings["text"]]}
        return settings, last, Path(config["data"])
    return {}, {}, None


def _report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text("utf-8"))
        report["frames"], report["samples"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no report of rdtf evaluate; make one with rdtf evaluate -o") from None
    return report


def _name(spec: str) -> str:
    """A model's name, without the folders of this machine."""
    return Path(spec).name


def _front(licence: str | None, settings: Mapping[str, Any]) -> str:
    from huggingface_hub import ModelCardData  # takes a moment

    tune = settings.get("tune")
    return ModelCardData(
        license=hub_licence(licence) if licence else None,
        license_name=licence if licence and hub_licence(licence) == "other" else None,
        library_name="rdtf",
        pipeline_tag="text-to-video",
        tags=["stickers", "animated", "rgba", "text-to-video", "image-to-video", *([tune] if tune else [])],
    ).to_yaml(line_break="\n")


def _command(settings: Mapping[str, Any], name: str, data: Path | None) -> str:
    """``rdtf train`` with all settings that differ from the run's recipe."""
    named = settings["recipe"] if settings["recipe"] in RECIPES else "fast"
    recipe = recipe_settings(named).model_dump(mode="json")
    words = ["rdtf", "train", "DATA" if data is None else data.name, name, "--recipe", named]
    for key, value in settings.items():
        if value != recipe[key] and key != "recipe":
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _sizes(pipe: StickerPipeline, folder: Path) -> str:
    rows = []
    for name, part in pipe.components.items():
        if part is not None:
            numbers = sum(p.numel() for p in part.parameters()) if isinstance(part, torch.nn.Module) else 0
            rows.append((f"{name} ({type(part).__name__})", numbers, _bytes(folder / name)))
    rows.append(("all", sum(row[1] for row in rows), _bytes(folder)))
    return table(("part", "parameters", "bytes"), rows)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _measures(report: Mapping[str, Any]) -> dict[str, str]:
    """Tables of a report: frames that are filled in, and stickers that are made."""
    tasks, made = report["frames"], report.get("generation", {})
    methods = list(dict.fromkeys(name for task in tasks.values() for name in task["methods"]))
    names = list(dict.fromkeys(name for result in made.values() for name in result))
    filled_in = (
        (name, task["pattern"], task["clips"], *(_shown(task["methods"][m]["psnr_white"]) for m in methods))
        for name, task in tasks.items()
    )
    rows = ((name, *(_shown(result.get(name, "")) for result in made.values())) for name in names)
    ours = {}
    for name, task in tasks.items():
        ratios = {f"{key}, made / real": value for key, value in task.get("ratios", {}).get("model", {}).items()}
        ours[name] = {key: value for key, value in task["methods"]["model"].items() if key != "psnr_white"} | ratios
    looks = list(dict.fromkeys(key for found in ours.values() for key in found))
    of_ours = ((name, *(_shown(found.get(key, "")) for key in looks)) for name, found in ours.items())
    return {
        "filled_in": table(("task", "given", "clips", *methods), filled_in),
        "looks": table(("task", *(key.replace("_", " ") for key in looks)), of_ours) if looks else "",
        "made": table(("measure", *made), rows) if made else "(not measured)",
    }


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _random(pipe: StickerPipeline, data: Path | None, out: Path, seed: int) -> str:
    """Make stickers for random captions: known ones if the model lists them, otherwise held-out ones.

    Returns:
        what was drawn, or an empty text if there are no captions.
    """
    captions: list[str] = []
    said = ""
    if pipe.known is not None:
        captions, said = list(pipe.known.names), f"of the names that it was trained on (`{KNOWN_CAPTIONS}` lists all)"
    for split in ("test", "val") if data and not captions else ():
        if captions := sorted({*StickerDataset(data or "", split).column("caption")} - {""}):
            said = f"captions from the split {split}, which training never saw"
            break
    if not captions:
        return ""
    chosen = sorted(numpy_rng(seed, 0, "card").permutation(len(captions))[:PICTURES].tolist())
    rows, labels, moved = [], [], 0
    for i in chosen:
        fit, words = understand(pipe, captions[i])
        [sticker] = make(pipe, fit.caption, num_frames=_FRAMES, seed=seed + i, loop=True, **words)
        rows.append(sticker.frames)
        motion = sticker.attributes.get(MOVED)
        moved += motion is not None
        labels.append(f"{fit.caption} ({motion})" if motion else fit.caption)
    _sheet(out / "random.png", rows, labels, [()] * len(rows))
    how = f"; {moved} move as a whole, by the motion in brackets, because the model does not move them" if moved else ""
    return f"{len(rows)} of {len(captions)} {said}, drawn at random{how}"


def _ranks(report: Mapping[str, Any]) -> int:
    return min(PICTURES, len(report.get("stickers", ())) // 2)


def _ranked(pipe: StickerPipeline, report: Mapping[str, Any], data: StickerDataset | None, out: Path) -> list[str]:
    """Make the best and the worst stickers of the evaluation again, and show them beside the real ones.

    Returns:
        names of the sheets; none if the measured dataset is not at hand.
    """
    scores = report.get("frames", {}).get(RANKED_BY, {}).get("by_clip", [])
    places = {} if data is None else {key: i for i, key in enumerate(data.column("id"))}
    ids = report.get("stickers", [])
    if data is None or not scores or report["fingerprint"] != data.fingerprint or not set(ids) <= places.keys():
        return []
    order, count = np.argsort(scores, kind="stable")[::-1], _ranks(report)
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
    return ["best", "worst"]


def _sheet(path: Path, rows: Sequence[np.ndarray], labels: Sequence[str], outlined: Sequence[Sequence[int]]) -> None:
    with atomic_file(path) as file:
        contact_sheet(rows, labels=labels, frames=_FRAMES, outlined=outlined).save(file, "PNG")
