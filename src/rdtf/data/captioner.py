"""Captions for stickers that have none, by a vision-language model in a local folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rdtf.data.captions import clean_caption
from rdtf.data.find import find_items
from rdtf.device import best_device
from rdtf.files import write_text
from rdtf.io.wall import read_sticker
from rdtf.pixels import composite
from rdtf.progress import bars
from rdtf.sticker import StickerError

PROMPT = "These are frames of an animated sticker, in order. Say in one short sentence what it shows and what it does."
FRAMES_SHOWN = 4
SIDE = 384
"""Pixels of the frames for the model. Its processor scales them further."""
MAX_TOKENS = 48

Captioner = Callable[[Sequence[Image.Image]], str]
"""A function from the frames of a sticker (RGB, in order) to its caption, which may be empty."""


class ModelCaptioner:
    """Any image-text-to-text model of transformers.

    A model with a chat template (Qwen-VL, SmolVLM, ...) gets all frames and a prompt. Other models (BLIP, GIT, ...) get
    each frame alone, and the most frequent caption counts.

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
    def __call__(self, frames: Sequence[Image.Image]) -> str:
        """See :data:`Captioner`."""
        talks = bool(getattr(self.processor, "chat_template", None))
        inputs = self._question(frames) if talks else self.processor(images=list(frames), return_tensors="pt")
        inputs = inputs.to(self.device, self.model.dtype)  # integers keep their dtype
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        if talks:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        said = [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        return Counter(said).most_common(1)[0][0]

    def _question(self, frames: Sequence[Image.Image]) -> Any:
        content = [*({"type": "image", "image": frame} for frame in frames), {"type": "text", "text": self.prompt}]
        return self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )


def caption_folder(folder: Path, captioner: Captioner) -> tuple[int, dict[str, str]]:
    """Caption each sticker of a folder that has only its file name, in a text file beside it (``cat.txt``).

    Each caption is written at once, so a call after an interruption goes on. No file is overwritten.

    Args:
        folder: folder of sticker files. Stickers of several files, and in archives and tables, are skipped.
        captioner: usually a :class:`ModelCaptioner`.

    Returns:
        number of stickers that got a caption; names of all others without one, with the reasons.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of stickers")
    todo = [item for item in find_items(folder, folder.resolve().name).items if item.caption.guessed]
    left: dict[str, str] = {}
    with bars() as progress:
        task = progress.add_task("captioning", total=len(todo), note="")
        for item in todo:
            text = item.path.with_suffix(".txt")
            if item.parts or item.member is not None:
                left[item.name] = "is not a file of its own; name its caption in a metadata.jsonl"
            elif text.exists():
                left[item.name] = f"{text.name} is there already, and has no caption for it"
            else:
                try:
                    caption = clean_caption(captioner(_frames(item.path)))
                except StickerError as error:
                    left[item.name] = error.reason
                else:
                    if caption:
                        write_text(text, f"{caption}\n")
                    else:
                        left[item.name] = "the model found no words for it"
            progress.update(task, advance=1, note=f"{len(left)} left")
    return len(todo) - len(left), left


def _frames(path: Path) -> list[Image.Image]:
    frames = read_sticker(path, size=SIDE, max_frames=FRAMES_SHOWN).frames
    return [Image.fromarray(frame) for frame in composite(frames, (255, 255, 255))]
