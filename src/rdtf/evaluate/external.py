"""Measures by networks that users bring in local files: CLIP similarity, and the features of I3D for FVD.

FVD follows the protocol of StyleGAN-V (arXiv 2112.14683). Values are comparable only within one implementation, one
number of clips and one way to lengthen short clips. Other programs crop in other ways, have other weights, or divide
the covariance by N. Cosines of different CLIP models are not comparable either; typical values are 0.2 to 0.4.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rdtf import hub
from rdtf.evaluate.frames import WHITE
from rdtf.pixels import composite

KINDS = ("clip", "chinese_clip")
FRAMES = 16  # frames of a clip that I3D sees. It fails on 8 and fewer
FEATURES = 400  # numbers that I3D returns for a clip
PROTOCOL = (
    "StyleGAN-V I3D TorchScript, rescale and resize inside it, 400 logits before the softmax; clips over white, played "
    "forth and back to 16 frames in both sets; covariance divided by N - 1"
)
_PICTURES_AT_ONCE, _CLIPS_AT_ONCE = 64, 8


class ClipScorer:
    """A model of transformers with a text and an image side, CLIP or Chinese-CLIP, from a local folder.

    Raises:
        ValueError: the folder holds no such model.
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
            kind = hub.read_config(folder / hub.CONFIG).get("model_type")
            if kind not in KINDS:
                raise ValueError(f"it is of the kind {kind}, not {' or '.join(KINDS)}")
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
        pictures = [Image.fromarray(picture) for picture in composite(frames, WHITE)]
        found = []
        for start in range(0, len(pictures), _PICTURES_AT_ONCE):
            some = self.images(pictures[start : start + _PICTURES_AT_ONCE], return_tensors="pt")
            found.append(_unit(self.model.get_image_features(pixel_values=some["pixel_values"].to(self.device))))
        return np.concatenate(found)

    def clipsim(self, caption: str, clip: np.ndarray) -> float:
        """Mean over frames of the cosine between caption and frame, -1 to 1, higher is nearer."""
        return float((self.frames(clip) @ self.text([caption])[0]).mean())


def _unit(output: Any) -> np.ndarray:
    # Newer versions of transformers return an object that holds the projected vector, older ones the vector.
    vectors: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()


def to_sixteen(clip: np.ndarray) -> np.ndarray:
    """16 frames of a clip ``(n, ...)`` of 1 to 16 frames, played forwards and backwards (0 1 2 1 0 1 ...).

    Raises:
        ValueError: more than 16 frames. The caller chooses which of them to show.
    """
    if len(clip) > FRAMES:
        raise ValueError(f"FVD is measured on {FRAMES} frames, this clip has {len(clip)}; choose which")
    period = max(1, 2 * (len(clip) - 1))
    phase = np.arange(FRAMES) % period
    return clip[np.minimum(phase, period - phase) if len(clip) > 1 else phase]


class I3d:
    """The I3D of a TorchScript file.

    The script is called as ``net(video, rescale=True, resize=True, return_features=True)`` with float32
    ``(b, 3, 16, h, w)`` of 0 to 255. It scales values to [-1, 1] and pictures to 224 px, and returns ``(b, 400)``.

    Attributes:
        sha256: hash of the file. State it beside every value.

    Raises:
        ValueError: the file cannot be loaded.
    """

    def __init__(self, file: Path, device: str = "cpu") -> None:
        self.device = device
        try:
            self.sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest()
            self.network = torch.jit.load(str(file), map_location=device).eval()
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{file} is no TorchScript file that can be loaded: {error}") from error

    @torch.no_grad()
    def features(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """``(n, 400)`` float64 of clips ``(1..16, h, w, 4)`` uint8, straight alpha, all of one height and width.

        Raises:
            ValueError: the network returns something else.
        """
        found = []
        for start in range(0, len(clips), _CLIPS_AT_ONCE):
            shown = np.stack([composite(to_sixteen(clip), WHITE) for clip in clips[start : start + _CLIPS_AT_ONCE]])
            video = torch.from_numpy(shown).permute(0, 4, 1, 2, 3).float().contiguous().to(self.device)
            output = self.network(video, rescale=True, resize=True, return_features=True)
            if output.shape != (len(shown), FEATURES):
                raise ValueError(f"an I3D returns (n, {FEATURES}) logits, this one {tuple(output.shape)}")
            found.append(output.double().cpu().numpy())
        return np.concatenate(found)
