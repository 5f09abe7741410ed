"""How a sticker was made, as a note in its file, and making it again.

A note is read from files of strangers, so its form is checked. It names no folder of the machine: a model by its
folder's name and by a hash of its weights, an input by its file's name and by a hash of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rdtf import __version__
from rdtf.io.metadata import NOTE, note_of
from rdtf.io.wall import read_sticker
from rdtf.sticker import Sticker

if TYPE_CHECKING:  # torch takes seconds, and notes are read without it
    from rdtf.pipeline import StickerPipeline

Task = Literal["generate", "animate", "inbetween", "extend"]
_MOST_STICKERS = 1000
_MOST_FRAMES = 16
_DEFAULTS: dict[str, Any] = {
    **{"num_frames": 8, "loop": False, "fps": 8.0, "output_size": None, "seed": 0, "num_stickers_per_prompt": 1},
    **{"motion": None, "colour": None},
}
_OF_THE_MODEL = {"num_inference_steps", "guidance_scale", "image_guidance_scale", "still_first", "batch_size"}


@dataclass(frozen=True)
class Given:
    """A frame that a sticker is made around.

    Attributes:
        position: in the sticker. path: of the file it comes from.
        frame: its place among the frames that are read. most: the most frames that are read of the file.
    """

    position: int
    path: Path
    frame: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Call:
    """A call of a pipeline for one caption.

    Attributes:
        task: the command. model: the model's folder or name. caption: what the model is asked for.
        settings: arguments of the pipeline but for the caption and frames.
        given: where the given frames come from.
    """

    task: Task
    model: str
    caption: str
    settings: dict[str, Any]
    given: Sequence[Given] = ()


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Input(_Table):
    """A given frame, by the name and the SHA-256 of its file; the rest as in :class:`Given`."""

    position: int = Field(ge=0, lt=_MOST_FRAMES)
    name: str = Field(max_length=255)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    frame: int = Field(0, ge=0, lt=10_000)
    most: int | None = Field(None, ge=1, le=10_000)


class Made(_Table):
    """How a sticker was made.

    Attributes:
        rdtf, torch: versions. device: it was computed on. task: the command.
        model: name of its folder. fingerprint: see :func:`fingerprint`.
        caption: in words. number: the sticker's place, from 0, among those of the call.
        settings: arguments of the pipeline. durations: of the frames, where ``fps`` does not say them.
        inputs: given frames.
    """

    rdtf: str = Field(max_length=40)
    torch: str = Field(max_length=80)
    device: str = Field(max_length=80)
    task: Task
    model: str = Field(max_length=255)
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    caption: str = Field(max_length=10_000)
    number: int = Field(0, ge=0, lt=1000)
    settings: dict[str, int | float | bool | str | None] = Field(max_length=20)
    durations: tuple[float, ...] = Field((), max_length=_MOST_FRAMES, strict=False)
    inputs: tuple[Input, ...] = Field((), max_length=_MOST_FRAMES, strict=False)

    @property
    def seed(self) -> int:
        """With which the sticker alone gives the same picture, but for rounding."""
        return int(self.settings.get("seed") or 0) + self.number

    def compared(self) -> dict[str, Any]:
        """What decides about the picture, but for rounding: caption, model and settings."""
        settings = {name: value for name, value in self.settings.items() if name != "batch_size"}
        return {"caption": self.caption, "model's fingerprint": self.fingerprint, **settings, "seed": self.seed}


_LATER_DEFAULTS = {
    **{"guidance_low": 0.0, "guidance_high": 1.0, "edge_contrast": 1.0},
    **{"text_prior": 0, "text_prior_side": 8, "shift": 1.0, "text_motion": 0, "text_motion_side": 8},
    "clip_guidance": None,
}
"""Settings that pipelines and their parts have since format 1, with values that change nothing."""


def fingerprint(pipeline: StickerPipeline) -> str:
    """SHA-256 of a pipeline's weights and configuration, wherever it was loaded from."""
    import torch

    digest = hashlib.sha256()
    digest.update(_plain(pipeline.config.model_dump()))
    for name in sorted(pipeline.components):
        part = pipeline.components[name]
        digest.update(name.encode() + _plain(getattr(part, "config", {})))
        if isinstance(part, torch.nn.Module):
            for key, tensor in sorted(part.state_dict().items()):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain(config: Any) -> bytes:
    # The path is what the scheduler says too. Without it, and without the defaults of later settings, notes of older
    # files keep their fingerprint.
    kept = {
        key: value
        for key, value in dict(config).items()
        if not key.startswith("_") and key != "path" and (key, value) not in _LATER_DEFAULTS.items()
    }
    return json.dumps(kept, sort_keys=True, default=str).encode()


def note_of_call(pipeline: StickerPipeline, call: Call, weights: str | None = None) -> Made:
    """The note of the first sticker of a call.

    Args:
        weights: the pipeline's :func:`fingerprint`, if it is known already.
    """
    import torch

    config = pipeline.config
    defaults = {
        **_DEFAULTS,
        "num_inference_steps": config.steps,
        # A number would be for stills and clips alike.
        "guidance_scale": config.guidance if config.clip_guidance is None else None,
        "image_guidance_scale": config.image_guidance,
        "still_first": config.still_first,
        "batch_size": pipeline.default_batch_size,
    }
    said = {name: value for name, value in call.settings.items() if value is not None}
    durations = said.pop("durations", ())
    hashes = {path: _sha256(path) for path in {frame.path for frame in call.given}}
    device = torch.cuda.get_device_name(pipeline.device) if pipeline.device.type == "cuda" else platform.machine()
    return Made(
        rdtf=__version__,
        torch=torch.__version__,
        device=f"{pipeline.device.type} {device}",
        task=call.task,
        model=Path(call.model).resolve().name,
        fingerprint=weights or fingerprint(pipeline),
        caption=call.caption,
        settings={**defaults, **said},
        durations=tuple(durations),
        inputs=tuple(
            Input(position=g.position, name=g.path.name, sha256=hashes[g.path], frame=g.frame, most=g.most)
            for g in call.given
        ),
    )


def make_noted(
    pipeline: StickerPipeline,
    call: Call,
    frames: Mapping[int, np.ndarray] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> list[Sticker]:
    """Make the stickers of a call, each with its note. ``frames`` are the given ones, see :func:`load_frames`."""
    from rdtf.making import make  # it imports torch

    stickers = make(pipeline, call.caption, frames, on_step=on_step, **call.settings)
    return described(stickers, note_of_call(pipeline, call))


def described(stickers: Iterable[Sticker], first: Made) -> list[Sticker]:
    """The stickers of a call for one caption, with notes that count up from that of the first one."""
    notes = (first.model_copy(update={"number": first.number + n}).model_dump(mode="json") for n in count())
    return [replace(s, attributes={**s.attributes, NOTE: note}) for s, note in zip(stickers, notes, strict=False)]


def read_made(path: Path) -> Made:
    """How the sticker in a file was made.

    Raises:
        ValueError: the file cannot be read, or has no note.
    """
    try:
        note = note_of(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    if note is None:
        raise ValueError(f"{path} does not say how it was made; only files that rdtf has written do")
    try:
        return Made.model_validate(note)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} says in a form that is not known how it was made ({where}: {first['msg']})") from None


def load_frames(given: Iterable[Given]) -> dict[int, np.ndarray]:
    """The given frames ``(h, w, 4)`` by their positions.

    Raises:
        ValueError: a file cannot be read, or has too few frames.
    """
    given = list(given)
    read = {(p, most): read_sticker(p, max_frames=most) for p, most in dict.fromkeys((g.path, g.most) for g in given)}
    frames = {}
    for one in given:
        sticker = read[one.path, one.most]
        if one.frame >= len(sticker):
            raise ValueError(f"{one.path} has {len(sticker)} frames, and frame {one.frame + 1} is asked for")
        frames[one.position] = sticker.frames[one.frame]
    return frames


def find_given(made: Made, files: Iterable[Path]) -> list[Given]:
    """Where the given frames of a sticker lie among some files. Files are known by the hash of their content.

    Raises:
        ValueError: an input is not among them.
    """
    candidates = [path for path in dict.fromkeys(files) if path.is_file()]
    hashes = {_sha256(path): path for path in reversed(candidates)} if made.inputs else {}
    if missing := sorted({f"{i.name} (SHA-256 {i.sha256[:12]}…)" for i in made.inputs if i.sha256 not in hashes}):
        raise ValueError(f"it was made from {', '.join(missing)}, not found beside it")
    return [Given(i.position, hashes[i.sha256], i.frame, i.most) for i in made.inputs]


def inputs_near(made: Made, file: Path) -> list[Path]:
    """Where the inputs of a sticker may lie: beside its file and in the current folder, under their names."""
    names = sorted({Path(i.name).name for i in made.inputs})
    return [place / name for place in (file.parent, Path()) for name in names]


def make_again(
    made: Made, pipeline: StickerPipeline, given: Iterable[Given] = (), *, output_size: int | None = None
) -> Sticker:
    """The sticker once more: on the same machine the same pixels.

    Args:
        given: the given frames, see :func:`find_given`.
        output_size: another height and width than the note's.

    Raises:
        ValueError: the pipeline is another one, or a setting is not known.
    """
    from rdtf.making import make

    if (found := fingerprint(pipeline)) != made.fingerprint:
        raise ValueError(
            f"the model is another one than {made.model}, which made it (fingerprint {found[:12]}, not "
            f"{made.fingerprint[:12]}); name the right one with --model"
        )
    settings: dict[str, Any] = dict(made.settings)
    if unknown := sorted(settings.keys() - _DEFAULTS.keys() - _OF_THE_MODEL):
        raise ValueError(f"a newer rdtf made it: the setting {unknown[0]} is not known here")
    if not made.number < settings.get("num_stickers_per_prompt", 1) <= _MOST_STICKERS:
        raise ValueError("its note is damaged: the number of stickers is out of range")
    if output_size is not None:
        settings["output_size"] = output_size
    number = made.number
    if settings.get("batch_size") == 1:  # then a sticker is the same without the others of its call
        settings |= {"seed": made.seed, "num_stickers_per_prompt": 1}
        number = 0
    stickers = make(pipeline, made.caption, load_frames(given), durations=made.durations or None, **settings)
    return described(stickers[number : number + 1], made)[0]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
