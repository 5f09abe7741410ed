"""Loading of saved pipelines. Everything is checked before it is built. A running training may save meanwhile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rdtf import hub
from rdtf.codec import DiffusersCodec, PixelCodec, StickerAutoencoder
from rdtf.copy_decoder import CopyDecoder
from rdtf.device import best_device
from rdtf.diffusion.flow_euler import SCHEDULER_CONFIG
from rdtf.diffusion.schedulers import SCHEDULERS, check_scheduler, load_scheduler
from rdtf.hub import FORMAT, FORMAT_KEY, INDEX, find_pipeline
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN
from rdtf.pipeline import PipelineConfig, StickerPipeline
from rdtf.saved_module import SavedModule
from rdtf.text import BuiltinTextEncoder, KnownCaptions, PretrainedTextEncoder

_TRIES = 50
_PAUSE = 0.02  # seconds
_MOST_LEVELS = 100_000
_PARTS: dict[str, dict[tuple[str, ...], type[SavedModule] | str]] = {
    "dfgn": {("rdtf.model.dfgn", "DFGN"): DFGN, ("rdtf.model.adapter", "AdaptedDFGN"): AdaptedDFGN},
    "codec": {("rdtf.codec", kind.__name__): kind for kind in (StickerAutoencoder, PixelCodec, DiffusersCodec)},
    "copy_decoder": {("rdtf.copy_decoder", "CopyDecoder"): CopyDecoder},
    "text_encoder": {("rdtf.text", kind.__name__): kind for kind in (BuiltinTextEncoder, PretrainedTextEncoder)},
    "scheduler": {("diffusers", name): SCHEDULER_CONFIG for names in SCHEDULERS.values() for name in names},
}
"""The parts of a pipeline and their allowed classes; of schedulers the name of the configuration."""


def load_pipeline(model: Path | str) -> StickerPipeline:
    """Load the shipped model (``"shipped"``), a saved pipeline's folder, a run's folder (which holds one in
    ``pipeline/``), or a model of the hub by its id.

    It comes onto the GPU if there is one (:func:`rdtf.device.best_device`).

    A training may save into the folder meanwhile. The result is always one save: if it is replaced while it is read, it
    is read again.

    Nothing in the folder is run or unpickled, see :mod:`rdtf.hub`.

    Raises:
        ValueError: there is no model, it is damaged, it asks for something that is not allowed, or it was replaced in
            every try.
    """
    for _ in range(_TRIES):
        found = find_pipeline(model)
        save = _save_of(found)
        try:
            pipeline = _load(found)
        except (ValueError, OSError):
            if save is not None and _save_of(found) == save:  # not replaced, so the folder itself is at fault
                raise
        else:
            if save is not None and _save_of(found) == save:
                return pipeline.to(best_device())
        time.sleep(_PAUSE)
    raise ValueError(f"{model} was replaced {_TRIES} times while it was read; try again, or load a copy of it")


def _save_of(folder: Path) -> tuple[int, int, int] | None:
    """A mark of a save. It differs between saves, because each save writes a new index file."""
    try:
        status = (folder / INDEX).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _check_format(index: dict[str, Any], path: Path) -> None:
    """Check that this version of rdtf can load a saved pipeline. Pipelines without a number are of format 1."""
    found = index.get(FORMAT_KEY, 1)
    if type(found) is not int or found < 1:
        raise ValueError(
            f"{path}: {FORMAT_KEY} is {str(found)[:40]!r}, which is no format number; copy the model again"
        )
    if found > FORMAT:
        raise ValueError(
            f"{path} is of format {found}, which a later rdtf has written; this one loads format {FORMAT} and older. "
            "Update rdtf: pip install --upgrade rdtf"
        )


def _load(folder: Path) -> StickerPipeline:
    index = hub.read_config(folder / INDEX)
    _check_format(index, folder / INDEX)
    if index.get("_class_name") != StickerPipeline.__name__:
        raise ValueError(f"{folder / INDEX} is of class {index.get('_class_name')!r}, not {StickerPipeline.__name__}")
    values = {name: index[name] for name in PipelineConfig.model_fields if name in index}
    try:
        PipelineConfig.model_validate({**values, "path": index.get("path") or "flow"})
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(
            f"{folder / INDEX}: {problem['loc'][0]} is {str(problem['input'])[:40]!r}: {problem['msg']}"
        ) from None
    kinds: dict[str, type[SavedModule]] = {}
    for name, allowed in _PARTS.items():
        found = index.get(name)
        if name == "copy_decoder" and found in (None, [None, None]):
            continue
        kind = allowed.get(tuple(found)) if isinstance(found, list) and all(isinstance(n, str) for n in found) else None
        if kind is None:
            raise ValueError(f"{folder / INDEX}: {name} is {found}, which is not allowed; take another model")
        if isinstance(kind, str):
            levels = hub.read_config(folder / name / kind).get("num_train_timesteps", 1)
            if type(levels) is not int or not 1 <= levels <= _MOST_LEVELS:
                raise ValueError(
                    f"{folder / name / kind}: num_train_timesteps must be 1 to {_MOST_LEVELS}, not {levels}"
                )
        else:
            kinds[name] = kind
    if unknown := sorted(n for n, value in index.items() if isinstance(value, list) and n not in _PARTS):
        raise ValueError(
            f"{folder / INDEX}: {unknown[0]} is no part of a {StickerPipeline.__name__}; take another model"
        )
    try:
        parts: dict[str, Any] = {name: kind.from_pretrained(folder / name) for name, kind in kinds.items()}
        parts["scheduler"] = load_scheduler(folder / "scheduler", index["scheduler"][1])
        pipeline = StickerPipeline(**parts, **values)
        pipeline.known = KnownCaptions.load(folder)
    except Exception as error:  # libraries raise anything for files that make no sense
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, ValueError) and str(folder) in reason:  # it says what is wrong
            raise ValueError(reason) from error
        raise ValueError(f"{folder} cannot be loaded ({reason}); the model is damaged, copy it again") from error
    try:
        check_scheduler(pipeline.scheduler, pipeline.config.path, pipeline.config.prediction)
    except ValueError as error:
        raise ValueError(f"{folder / 'scheduler' / SCHEDULER_CONFIG}: {error}") from None
    if pipeline.config.sample_size % pipeline.codec.downscale:
        raise ValueError(f"{folder / INDEX}: sample_size is no multiple of the codec's {pipeline.codec.downscale}")
    return pipeline
