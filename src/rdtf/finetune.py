"""Fine-tuning of a trained model on a few stickers: prepare them, train, and show the difference on a sheet."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rdtf.data.dataset import StickerDataset, StickerRecord, is_dataset, read_manifest
from rdtf.data.prepare import prepare
from rdtf.data.settings import PrepareSettings
from rdtf.diffusion.objective import Objective
from rdtf.files import atomic_file, write_text
from rdtf.hub import SHIPPED
from rdtf.io.write import save_sticker
from rdtf.loading import load_pipeline
from rdtf.pipeline import Sampling, StickerPipeline
from rdtf.progress import bars, console
from rdtf.rng import numpy_rng
from rdtf.sheets import contact_sheet
from rdtf.sticker import Sticker
from rdtf.train.plan import make_plan
from rdtf.train.run import TrainReport, resume, train
from rdtf.train.settings import TrainSettings, recipe_settings
from rdtf.words import with_phrase

SHEET = "before-after.png"
REQUEST = "finetune.json"
"""File in a run's folder with the arguments, so that the same call continues and another one is refused."""
REPLAY = 96
"""Default number of replayed stickers: fewer forget more, and drawing these takes two minutes of two cores."""
_REPLAY = "replay"  # folder of the stickers that the model drew itself
_SHARE = 0.15  # approximate fraction of held-out stickers
_SEEDS = 40  # number of splits that are tried
_SHOWN = 6
_FRAMES = 8
_SAVES = 8  # checkpoints and held-out evaluations of a run
_NO_LIMIT = 1_000_000  # steps


@dataclass(frozen=True)
class Finetuning:
    """Arguments of a fine-tuning.

    Attributes:
        stickers: a folder or an archive. model: the model to start from, see :func:`rdtf.hub.find_pipeline`.
        tune: name of an adapter, for example ``lora``; None = all weights are trained.
        minutes: time of the training. Some steps are measured first, and give a fixed number of steps.
        steps: number of steps, instead of ``minutes``.
        replay: number of stickers that the model draws of captions that it knows, before it is tuned. It is then
            trained on them too, against forgetting. None = :data:`REPLAY` if all weights are trained and the model
            lists its captions, otherwise 0; an adapter forgets little.
        seed: seed of everything. threads: CPU threads.
    """

    stickers: str
    model: str = SHIPPED
    tune: str | None = None
    minutes: float = 15.0
    steps: int | None = None
    replay: int | None = None
    seed: int = 0
    threads: int | None = None


def finetune(asked: Finetuning, run: Path) -> TrainReport:
    """Tune a trained model on a folder of stickers, in the folder of a new run.

    The run's folder gets the dataset (``data/``), the files of :func:`rdtf.train.run.train`, and ``before-after.png``:
    held-out stickers, with the animations of their first frames by both models. The same call continues a run that was
    stopped.

    Raises:
        ValueError: there is no model, there are fewer than two stickers, or the folder has other files.
        DiskError, TrainingError: as in :func:`rdtf.train.run.train`.
    """
    if not asked.minutes > 0 or (asked.steps is not None and asked.steps < 1):
        raise ValueError(f"a training takes some time: minutes {asked.minutes} and steps {asked.steps} must be above 0")
    if asked.replay is not None and asked.replay < 0:
        raise ValueError(f"replay is a number of stickers, 0 for none; not {asked.replay}")
    data, begun = run / "data", (run / "config.json").exists()
    before = load_pipeline(asked.model)
    _check_request(asked, run)
    if begun and is_dataset(data):
        console.print(
            f"Going on with the {sum(read_manifest(data).counts.values())} stickers of {data}. "
            "For stickers that have come since, begin a new run",
            markup=False,
            soft_wrap=True,
        )
        report = resume(data, run)
    else:
        count = asked.replay
        if count is None:
            count = REPLAY if asked.tune is None and before.known is not None and before.known.names else 0
        replay = _draw_replay(before, run / _REPLAY, count, asked.seed) if count else None
        _prepare(asked, data, before.config.sample_size, replay, count)
        settings = _settings(asked, before)
        del before  # training loads the model again, and two may not fit into memory
        report = train(data, run, _with_steps(asked, data, run, settings))
    if report.finished:
        _show(data, asked, run)
    return report


def _check_request(asked: Finetuning, run: Path) -> None:
    """Save the arguments in the run's folder, or compare them with those of a run that has begun."""
    path, source = run / REQUEST, Path(asked.stickers).resolve()
    wanted = {**asdict(asked), "stickers": str(source)}
    if not source.exists() or run.resolve().is_relative_to(source):
        raise ValueError(f"{asked.stickers}: no such folder or archive, or {run} lies in it; name two side by side")
    if not path.is_file() and run.exists() and any(run.iterdir()):
        raise ValueError(f"{run} is not empty and holds no fine-tuning; choose another folder")
    if (run / "config.json").exists():
        known = json.loads(path.read_text("utf-8"))
        if other := [name for name in wanted if known.get(name) != wanted[name]]:
            differences = ", ".join(f"{name} {known.get(name)}, now {wanted[name]}" for name in other)
            raise ValueError(f"{run} was begun otherwise ({differences}); give the same again, or another folder")
        return
    run.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(wanted, indent=1) + "\n")


def _draw_replay(model: StickerPipeline, folder: Path, count: int, seed: int) -> Path:
    """Stickers of captions that the model knows, as it draws them, for the train split. Captions are drawn evenly.

    What the model has seen only as a still picture is a still again.

    Raises:
        ValueError: the model has no list of captions.
    """
    if model.known is None or not model.known.names:
        raise ValueError(
            "the model has no list of the captions that it knows, so it cannot replay them; use --replay 0"
        )
    names = np.array(model.known.names, dtype=object)
    rng = numpy_rng(seed, 0, "replay")
    names = np.concatenate([rng.permutation(names) for _ in range(-(-count // len(names)))])[:count]
    rows = []
    with bars() as progress:
        bar = progress.add_task("Drawing what the model knows", total=count, note="")
        for i, name in enumerate(names):
            file, style = f"{i:04}.webp", model.known.style_of(name)
            length = 1 if name in model.known.stills else _FRAMES
            [sticker] = model(with_phrase(name, style), num_frames=length, seed=seed + i, loop=True).stickers
            save_sticker(sticker, folder / file, durable=False)
            rows.append({"file_name": file, "caption": name, "style": style, "split": "train"})
            progress.advance(bar)
    write_text(folder / "metadata.jsonl", "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return folder


def _prepare(asked: Finetuning, data: Path, size: int, replay: Path | None, replayed: int) -> None:
    """Make the dataset. Seeds are tried until about the wanted fraction of the user's stickers is held out.

    Raises:
        ValueError: fewer than two stickers, or all of them are near-duplicates.
    """
    sources = [Path(asked.stickers), *([replay] if replay else [])]
    first = read_manifest(data).settings["seed"] if is_dataset(data) else asked.seed
    for seed in range(first, first + _SEEDS):
        settings = PrepareSettings(
            size=size,
            splits=(1 - _SHARE, _SHARE, 0.0),
            seed=seed,
            caption_style=replay is not None,  # the model's captions name a style
            workers=asked.threads,
        )
        report = prepare(sources, data, settings, overwrite=True)
        counts = report.manifest.counts
        held_out = counts["val"] + counts["test"]
        total = held_out + counts["train"] - replayed
        if total < 2:
            raise ValueError(
                f"{asked.stickers} holds one sticker that can be used; at least two are needed, one to train on and "
                "one to hold out, and some twenty for a good result"
            )
        if held_out < total and max(1, round(0.7 * _SHARE * total)) <= held_out <= max(1, round(2 * _SHARE * total)):
            console.print(report.summary(), markup=False, highlight=False, soft_wrap=True)
            return
    raise ValueError(
        f"{asked.stickers}: no part of the stickers can be held out, because nearly all of them are near-duplicates of "
        "each other or metadata puts them into one split; add others"
    )


def _settings(asked: Finetuning, model: StickerPipeline) -> TrainSettings:
    """The recipe ``tune`` with the objective and the sampling of the model."""
    config = model.config
    objective = Objective(path=config.path, prediction=config.prediction)
    return recipe_settings(
        "tune",
        start_from=asked.model,
        tune=asked.tune,
        objective={"path": config.path, "prediction": config.prediction},
        residual_to_known=objective.clean_factor is not None,
        sampling={name: getattr(config, name) for name in Sampling.model_fields},
        frames=_FRAMES,
        previews=0,
        seed=asked.seed,
        threads=asked.threads,
    )


def _with_steps(asked: Finetuning, data: Path, run: Path, settings: TrainSettings) -> TrainSettings:
    """The settings with a fixed number of steps, so that the result does not depend on a clock."""
    steps = asked.steps
    if steps is None:
        measured = settings.model_copy(update={"steps": _NO_LIMIT, "max_minutes": asked.minutes})
        plan = make_plan(data, measured, run)
        steps = plan.steps
        console.print(
            f"{asked.minutes:g} minutes are {steps} steps of {plan.step:.2f} s here; "
            f"--steps {steps} gives the same model again",
            markup=False,
        )
    often = max(1, -(-steps // _SAVES))
    return settings.model_copy(update={"steps": steps, "checkpoint_every": often, "eval_every": often})


def _show(data: Path, asked: Finetuning, run: Path) -> None:
    """Write the sheet: held-out stickers, and the animations of their first frames by both models."""
    held = [(part, i) for part in (StickerDataset(data, "val"), StickerDataset(data, "test")) for i in range(len(part))]
    held.sort(key=lambda place: place[0].record(place[1]).num_frames < 2)  # moving stickers first
    records = [part.record(i) for part, i in held[:_SHOWN]]
    real = [_spread(part.frames(i)) for part, i in held[:_SHOWN]]
    before, after = (_animated(load_pipeline(model), records, real, asked.seed) for model in (asked.model, str(run)))
    sheet = contact_sheet(
        [clip for shown in zip(real, before, after, strict=True) for clip in shown],
        labels=[f"{name}{record.caption}" for record in records for name in ("real: ", "before: ", "after: ")],
        frames=_FRAMES,
        outlined=[(), (0,), (0,)] * len(real),
    )
    with atomic_file(run / SHEET) as file:
        sheet.save(file, "PNG")


def _animated(model: StickerPipeline, records: list[StickerRecord], real: list[np.ndarray], seed: int) -> list[Sticker]:
    return model(
        [model.fit(record.caption, given=True).caption for record in records],
        frames=[{0: clip[0]} for clip in real],
        num_frames=_FRAMES,
        seed=seed,
        loop=[record.loops for record in records],
    ).stickers


def _spread(frames: np.ndarray) -> np.ndarray:
    """At most 8 frames, evenly spaced for a loop."""
    return frames if len(frames) <= _FRAMES else frames[np.arange(_FRAMES) * len(frames) // _FRAMES]
