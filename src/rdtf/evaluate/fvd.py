"""Fréchet video distance by the protocol of StyleGAN-V (arXiv 2112.14683), with its I3D in a local TorchScript file.

Values are comparable only within one implementation, one number of clips and one way to lengthen short clips. Other
programs crop in other ways, have other weights, or divide the covariance by N.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from rdtf.pixels import composite

FRAMES = 16
"""Frames of a clip that the network sees. It fails on 8 and fewer."""
FEATURES = 400
BATCH = 8
PROTOCOL = (
    "StyleGAN-V I3D TorchScript, rescale and resize inside it, 400 logits before the softmax; clips over white, played "
    "forth and back to 16 frames in both sets; covariance divided by N - 1"
)


def to_sixteen(clip: np.ndarray) -> np.ndarray:
    """16 frames of a clip ``(n, ...)`` of 1 to 16 frames, played forwards and backwards (0 1 2 1 0 1 ...).

    Raises:
        ValueError: more than 16 frames. The caller chooses which of them to show.
    """
    if len(clip) > FRAMES:
        raise ValueError(f"FVD is measured on {FRAMES} frames, this clip has {len(clip)}; choose which")
    if len(clip) == 1:
        return np.repeat(clip, FRAMES, 0)
    period = 2 * (len(clip) - 1)
    phase = np.arange(FRAMES) % period
    return clip[np.minimum(phase, period - phase)]


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
        for start in range(0, len(clips), BATCH):
            shown = np.stack([composite(to_sixteen(clip), (255, 255, 255)) for clip in clips[start : start + BATCH]])
            video = torch.from_numpy(shown).permute(0, 4, 1, 2, 3).float().contiguous().to(self.device)
            output = self.network(video, rescale=True, resize=True, return_features=True)
            if output.shape != (len(shown), FEATURES):
                raise ValueError(f"an I3D returns (n, {FEATURES}) logits, this one {tuple(output.shape)}")
            found.append(output.double().cpu().numpy())
        return np.concatenate(found)
