"""Agreement of text and pictures in the space of a CLIP or Chinese-CLIP model from a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rdtf import hub
from rdtf.pixels import composite

KINDS = ("clip", "chinese_clip")
BATCH = 64


class ClipScorer:
    """A model of transformers with a text and an image side.

    Cosines of different models are not comparable. Typical values are 0.2 to 0.4. State the model beside every value.

    Raises:
        ValueError: the folder holds no CLIP or Chinese-CLIP model.
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "CLIP similarity needs the package transformers: pip install 'rdtf[pretrained]'"
            ) from error
        safe = {"local_files_only": True, "trust_remote_code": False}
        try:
            config = hub.read_config(folder / hub.CONFIG)
            if config.get("model_type") not in KINDS:
                raise ValueError(f"it is of the kind {config.get('model_type')}, not {' or '.join(KINDS)}")
            hub.check_transformers(folder)
            model = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, **safe)
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **safe)
            self.images: Any = transformers.AutoImageProcessor.from_pretrained(folder, **safe)
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} holds no usable CLIP model: {error}") from error
        self.model: Any = model.eval().to(device)
        self.device = device

    @torch.no_grad()
    def text(self, captions: Sequence[str]) -> np.ndarray:
        """Unit vectors ``(n, d)``. Captions longer than the model's window are cut off."""
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(captions), padding=True, truncation=True, max_length=longest, return_tensors="pt"
        ).to(self.device)
        return _unit(self.model.get_text_features(**tokens))

    @torch.no_grad()
    def frames(self, frames: np.ndarray) -> np.ndarray:
        """Unit vectors ``(n, d)`` of frames ``(n, h, w, 4)`` uint8 over white, scaled as the model's folder says."""
        pictures = [Image.fromarray(picture) for picture in composite(frames, (255, 255, 255))]
        found = []
        for start in range(0, len(pictures), BATCH):
            pixels = self.images(pictures[start : start + BATCH], return_tensors="pt")["pixel_values"].to(self.device)
            found.append(_unit(self.model.get_image_features(pixel_values=pixels)))
        return np.concatenate(found)

    def clipsim(self, caption: str, clip: np.ndarray) -> float:
        """Mean over frames of the cosine between caption and frame, -1 to 1, higher is nearer."""
        return float((self.frames(clip) @ self.text([caption])[0]).mean())


def _unit(output: Any) -> np.ndarray:
    # Newer versions of transformers return an object that holds the projected vector, older ones the vector.
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
