"""Caption the stickers of a folder that have only a file name, by a vision-language model in a local folder.

    python examples/caption_stickers.py STICKERS MODEL [PROMPT]

Any image-text-to-text model of transformers will do; nothing is downloaded, and no code in its folder is run. Each
caption goes into a text file beside its sticker (``cat.txt``), which ``rdtf prepare`` reads. No file is overwritten.
Stopped, the same command goes on.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from rdtf import read_sticker
from rdtf.data.captions import clean_caption
from rdtf.data.find import find_items
from rdtf.device import best_device
from rdtf.files import write_text
from rdtf.pixels import composite
from rdtf.sticker import StickerError

PROMPT = "These are frames of an animated sticker, in order. Say in one short sentence what it shows and what it does."
FRAMES, SIDE = 4, 384
"""Number of frames for the model, and their pixels. Its processor scales them further."""
MAX_TOKENS = 48


class Captioner:
    """A model with a chat template (Qwen-VL, SmolVLM, ...) gets all frames and a prompt.

    Other models (BLIP, GIT, ...) get each frame alone, and the most frequent caption counts.
    """

    def __init__(self, folder: Path, prompt: str = PROMPT) -> None:
        import transformers

        self.prompt, self.device = prompt, best_device()
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self.processor: Any = transformers.AutoProcessor.from_pretrained(folder, **safe)
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, **safe)
        kind = torch.float32 if self.device.type == "cpu" else torch.bfloat16  # bf16 is slow on processors
        self.model: Any = model.to(self.device, kind).eval()

    @torch.inference_mode()
    def __call__(self, frames: Sequence[Image.Image]) -> str:
        """The caption of frames (RGB, in order)."""
        talks = bool(getattr(self.processor, "chat_template", None))
        if talks:
            content = [*({"type": "image", "image": frame} for frame in frames), {"type": "text", "text": self.prompt}]
            options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
            inputs = self.processor.apply_chat_template([{"role": "user", "content": content}], **options)
        else:
            inputs = self.processor(images=list(frames), return_tensors="pt")
        inputs = inputs.to(self.device, self.model.dtype)  # integers keep their dtype
        tokens = self.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        answer = tokens[:, inputs["input_ids"].shape[1] :] if talks else tokens
        said = [text.strip() for text in self.processor.batch_decode(answer, skip_special_tokens=True)]
        return Counter(said).most_common(1)[0][0]


def caption_folder(folder: Path, captioner: Callable[[Sequence[Image.Image]], str]) -> dict[str, str]:
    """Write the captions. Returns what became of each sticker that had none: its caption, or why there is none."""
    results = {}
    for item in find_items(folder, folder.resolve().name).items:
        text = item.path.with_suffix(".txt")
        if not item.caption.guessed:
            continue
        if item.parts or item.member is not None:
            results[item.name] = "is not a file of its own; name its caption in a metadata.jsonl"
        elif text.exists():
            results[item.name] = f"{text.name} is there already, and has no caption for it"
        else:
            try:
                frames = composite(read_sticker(item.path, size=SIDE, max_frames=FRAMES).frames, (255, 255, 255))
            except StickerError as error:
                results[item.name] = error.reason
                continue
            results[item.name] = clean_caption(captioner([Image.fromarray(frame) for frame in frames]))
            if results[item.name]:
                write_text(text, f"{results[item.name]}\n")
    return results


if __name__ == "__main__":
    for name, result in caption_folder(Path(sys.argv[1]), Captioner(Path(sys.argv[2]), *sys.argv[3:])).items():
        print(f"{name}: {result}")
