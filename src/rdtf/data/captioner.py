"""Captions for stickers that have none, by a vision-language model in a local folder."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rdtf.data.captions import Caption, clean_caption
from rdtf.data.dataset import FRAMES, unpack_frames
from rdtf.data.find import find_items
from rdtf.data.items import Item
from rdtf.data.metadata_files import METADATA
from rdtf.data.process_file import Job, Kind, OneFile
from rdtf.data.settings import PrepareSettings
from rdtf.data.workers import run_local
from rdtf.device import best_device
from rdtf.files import write_text
from rdtf.io.archives import FolderTree
from rdtf.pixels import composite
from rdtf.progress import bars, printable

PROMPT = "These are frames of an animated sticker, in order. Say in one short sentence what it shows and what it does."
FRAMES_SHOWN = 4
SIDE = 384
"""Pixels of the frames for the model. Its processor scales them further."""
MAX_TOKENS = 48
JOURNAL = ".rdtf-captions.jsonl"
"""File in the folder of stickers with the captions of an unfinished run, each with its folder."""
WHITE = (255, 255, 255)

Captioner = Callable[[Sequence[Image.Image]], list[str]]
"""A function from the frames of a sticker (RGB, in order) to its captions, best first. The list may be empty."""


class ModelCaptioner:
    """Any image-text-to-text model of transformers.

    A model with a chat template (Qwen-VL, SmolVLM, ...) gets all frames and a prompt. Other models (BLIP, GIT, ...) get
    each frame alone, and the most frequent caption comes first.

    Args:
        folder: the model (safetensors) and its processor. Nothing is fetched, and no code in the folder is run.
        prompt: the question for a model with a chat template.
        device: the device of the model; by default the GPU if there is one.

    Raises:
        ValueError: the folder holds no such model.
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, folder: Path, prompt: str = PROMPT, device: str | None = None) -> None:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "captioning needs the package transformers: pip install 'rdtf[pretrained]'"
            ) from error
        self.prompt = prompt
        self.device = device or best_device().type
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the folder of an image captioning model")
        try:
            safe = {"local_files_only": True, "trust_remote_code": False}
            self.processor: Any = transformers.AutoProcessor.from_pretrained(folder, **safe)
            loader: Any = transformers.AutoModelForImageTextToText
            model = loader.from_pretrained(folder, use_safetensors=True, **safe)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} holds no image-text-to-text model of transformers: {error}") from error
        kind = torch.float32 if self.device == "cpu" else torch.bfloat16  # bf16 is slow or missing on processors
        self.model = model.to(self.device, kind).eval()

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Image.Image]) -> list[str]:
        """See :data:`Captioner`."""
        talks = bool(getattr(self.processor, "chat_template", None))
        inputs = self._question(frames) if talks else self.processor(images=list(frames), return_tensors="pt")
        inputs = inputs.to(self.device, self.model.dtype)  # integers keep their dtype
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        if talks:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        said = [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        return [text for text, _ in Counter(text for text in said if text).most_common()]

    def _question(self, frames: Sequence[Image.Image]) -> Any:
        content = [*({"type": "image", "image": frame} for frame in frames), {"type": "text", "text": self.prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )


@dataclass(frozen=True)
class CaptionReport:
    """The result of :func:`caption_folder`.

    Attributes:
        captioned: number of stickers that got captions.
        left: names of stickers that got no caption, with the reasons.
    """

    captioned: int
    left: dict[str, str]


def caption_folder(folder: Path, captioner: Captioner, model_name: str) -> CaptionReport:
    """Caption each sticker of a folder that has only its file name, in the ``metadata.jsonl`` beside it.

    Existing lines keep their fields. New captions have the field ``captioned_by``. A worker process decodes a few
    frames of each sticker, over white. Each caption is written to :data:`JOURNAL` at once. At the end, or after an
    interruption, the journal becomes lines of metadata. The next call uses the journal of a killed run.

    Args:
        folder: folder of sticker files. Stickers inside of archives and tables are skipped.
        captioner: usually a :class:`ModelCaptioner`.
        model_name: value of ``captioned_by``.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of stickers")
    _save(folder)
    tree, label = FolderTree(folder), "."
    paths = [*tree.names, *(parent for name in tree.names for parent in _folders(name))]
    places = {printable(f"{label}/{path}"): path for path in paths}
    left: dict[str, str] = {}
    todo: list[Item] = []
    for item in find_items(folder, label).items:
        if not item.caption.guessed:
            continue
        if item.name in places:
            todo.append(item)
        else:
            left[item.name] = "lies in one file with others; unpack that to have it captioned"
    captioned = 0
    try:
        with bars() as progress, (folder / JOURNAL).open("a", encoding="utf-8", buffering=1) as journal:
            task = progress.add_task("captioning", total=len(todo), note="")
            for item, frames in _frames(todo):
                progress.update(task, advance=1, note=f"{len(left)} left")
                if isinstance(frames, str):
                    left[item.name] = frames
                    continue
                texts = [text for text in map(clean_caption, captioner(frames)) if text]
                if not texts:
                    left[item.name] = "the model found no words for it"
                    continue
                where, _, name = places[item.name].rpartition("/")
                journal.write(json.dumps([where, _entry(name, item.caption, texts, model_name)]) + "\n")
                captioned += 1
    finally:
        _save(folder)
    return CaptionReport(captioned, left)


def _folders(name: str) -> Iterator[str]:
    """All folders above a name. A folder of frames is a sticker too."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _frames(items: Sequence[Item]) -> Iterator[tuple[Item, list[Image.Image] | str]]:
    """Items with a few frames each, or with the reason why they cannot be read."""
    settings = PrepareSettings.model_validate({"size": SIDE, "max_frames": FRAMES_SHOWN})
    quiet = Caption(("",))

    def job(index: int) -> Job:
        return Job(replace(items[index], caption=quiet))

    outcomes = run_local(range(len(items)), job, OneFile(Item.read, settings), workers=1)
    with contextlib.closing(outcomes):
        for index, outcome in outcomes:
            if outcome.kind != Kind.USED:
                yield items[index], outcome.payload.decode()
                continue
            row = outcome.facts()
            frames = composite(unpack_frames(row[FRAMES], row["num_frames"], SIDE), WHITE)
            yield items[index], [Image.fromarray(frame) for frame in frames]


def _entry(name: str, caption: Caption, texts: Sequence[str], model_name: str) -> dict[str, Any]:
    """A line of metadata. It repeats fields from metadata of folders above, because the nearest line wins."""
    known = {key: value for key, value in caption.attributes.items() if key != "languages"}
    entry: dict[str, Any] = {"file_name": name, "caption": list(texts) if len(texts) > 1 else texts[0], **known}
    entry |= {key: value for key, value in (("license", caption.license), ("split", caption.split)) if value}
    return {**entry, "captioned_by": model_name}


def _save(folder: Path) -> None:
    """Move the journal's entries into the metadata files of their folders. Other lines do not change."""
    journal = folder / JOURNAL
    fresh: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in journal.read_text("utf-8").splitlines() if journal.is_file() else []:
        with contextlib.suppress(ValueError):  # a kill may have cut the last line
            where, entry = json.loads(line)
            fresh[where][entry["file_name"]] = entry
    for where, rest in fresh.items():
        path = folder / where / METADATA
        lines = path.read_text("utf-8-sig").rstrip("\n").split("\n") if path.is_file() else []
        merged: list[str] = []
        for line in lines:
            known = _object(line)
            entry = rest.pop(str(known.get("file_name")).removeprefix("./"), None) if known else None
            merged.append(line if entry is None else json.dumps({**(known or {}), **entry}, ensure_ascii=False))
        merged += [json.dumps(entry, ensure_ascii=False) for entry in rest.values()]
        write_text(path, "\n".join(merged) + "\n")
    journal.unlink(missing_ok=True)


def _object(line: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        return value if isinstance(value, dict) else None
    return None
