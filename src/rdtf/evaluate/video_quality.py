"""Predicted human ratings without a reference, by DOVER or FAST-VQA from local ONNX files.

DOVER (arXiv 2211.04894) has an aesthetic view, the whole picture scaled down, and a technical view, pieces of the
picture at full size. FAST-VQA (arXiv 2207.02595) has the second view only. Both were trained on filmed videos of some
seconds. They see a sticker over white, repeated at its own speed, as a video of 30 frames a second.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from rdtf.pixels import composite

CELL = 32
"""Height and width in pixels of a piece."""
VIDEO_FPS, INTERVAL = 30.0, 2
"""Frames a second of the video. Both networks see every second frame."""
_PIXEL_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_PIXEL_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
_DOVER = "DOVER"
_DOVER_INPUTS = {"aes_view", "tech_view"}
_DOVER_CLIPS = 3  # clips of the technical view
# Mean and deviation of raw scores as published by both projects, which normalise scores to 0..1.
_TECHNICAL, _AESTHETIC = (0.1107, 0.07355), (-0.08285, 0.03774)
_TECHNICAL_SHARE = 0.6104
_FAST_VQA = {
    (32, 7 * CELL, 7 * CELL): ("FAST-VQA", (-0.110198185, 0.04178565)),
    (16, 4 * CELL, 4 * CELL): ("FAST-VQA-M", (0.023889644, 0.030781006)),
}


class VideoQuality:
    """DOVER or FAST-VQA in an ONNX file, recognised by its inputs.

    - DOVER: ``aes_view`` ``(1, 3, 32, 224, 224)`` and ``tech_view`` ``(clips, 3, 32, 224, 224)``, as its own
      ``convert_to_onnx.py`` writes it; returns the aesthetic and the technical scores.
    - FAST-VQA: one input ``(clips, 3, 32, 224, 224)``, FAST-VQA-M ``(clips, 3, 16, 128, 128)``; returns scores.

    Attributes:
        name: name of the network. sha256: hash of the file; state it beside every value.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: the file cannot be loaded, or is neither of these networks.
    """

    def __init__(self, file: Path) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "DOVER and FAST-VQA need the package onnxruntime: pip install 'rdtf[metrics]'"
            ) from error
        try:
            data = Path(file).read_bytes()
            self._session = onnxruntime.InferenceSession(str(file), providers=onnxruntime.get_available_providers())
        except Exception as error:  # onnxruntime has an exception of its own for every way to fail
            raise ValueError(f"{file} is no ONNX file that can be loaded: {error}") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        self._inputs = {each.name: tuple(each.shape) for each in self._session.get_inputs()}
        if set(self._inputs) == _DOVER_INPUTS:
            self.name = _DOVER
        elif len(self._inputs) == 1 and (shape := next(iter(self._inputs.values())))[2:] in _FAST_VQA:
            self.name = _FAST_VQA[shape[2:]][0]
        else:
            raise ValueError(
                f"{file} is neither DOVER (inputs aes_view and tech_view) nor FAST-VQA (one input of 32 frames of 224 "
                f"px, or 16 of 128 px): its inputs are {self._inputs}"
            )

    def scores(self, clip: np.ndarray, fps: float = 8.0, seed: int = 0) -> dict[str, float]:
        """Scores in 0..1 by name, higher is better. 0.5 is the mean of filmed videos.

        Args:
            clip: ``(n, h, w, 4)`` uint8, straight alpha. Clips smaller than the network's input are enlarged.
            fps: frames a second of the clip.
            seed: seed of the positions of the pieces.
        """
        video = torch.from_numpy(composite(clip, (255, 255, 255))).permute(3, 0, 1, 2).float()
        if self.name == _DOVER:
            frames, height, width = self._inputs["aes_view"][2:]
            whole = F.interpolate(video.movedim(0, 1), (height, width), mode="bilinear", antialias=True).movedim(0, 1)
            shown = played(len(clip), fps, frames, np.zeros(1, np.int64))[0]
            views = {
                "aes_view": _normalised(whole.numpy()[:, shown])[None],
                "tech_view": self._pieces("tech_view", video, fps, seed, _DOVER_CLIPS),
            }
            aesthetic, technical = (float(np.mean(score)) for score in self._session.run(None, views))
            t, a = _standardised(technical, _TECHNICAL), _standardised(aesthetic, _AESTHETIC)
            return {
                _DOVER: _sigmoid(_TECHNICAL_SHARE * t + (1 - _TECHNICAL_SHARE) * a),
                f"{_DOVER} technical": _sigmoid(t),
                f"{_DOVER} aesthetic": _sigmoid(a),
            }
        ((name, shape),) = self._inputs.items()
        output = self._session.run(None, {name: self._pieces(name, video, fps, seed, 1)})[0]
        return {self.name: _sigmoid(_standardised(float(np.mean(output)), _FAST_VQA[shape[2:]][1]))}

    def _pieces(self, name: str, video: torch.Tensor, fps: float, seed: int, clips: int) -> np.ndarray:
        """A view of pieces ``(clips, 3, frames, height, width)``. The file's number of clips has priority."""
        asked, _, frames, height, width = self._inputs[name]
        clips = asked if isinstance(asked, int) else clips
        rng = np.random.default_rng(seed)
        count = video.shape[1]
        length = round(count * VIDEO_FPS / fps)
        index = played(count, fps, frames, np.arange(clips) * (length // clips))
        return np.stack([_normalised(fragments(video, height, width, rng)[:, shown]) for shown in index])


def played(count: int, fps: float, frames: int, starts: np.ndarray) -> np.ndarray:
    """Indices of the frames of a looping sticker at a network's sampling times.

    Args:
        count: frames of the sticker. fps: frames a second of the sticker. frames: frames that the network takes from
            each start.
        starts: ``(m,)`` in frames of the video.

    Returns:
        ``(m, frames)`` indices below ``count``.
    """
    ticks = starts[:, None] + np.arange(frames) * INTERVAL
    return np.floor(ticks * (fps / VIDEO_FPS) + 1e-9).astype(np.int64) % count


def fragments(video: torch.Tensor, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Pieces of 32 px of a video, one from each cell of a grid, joined to a picture.

    Each piece has the same position in all frames. Smaller videos are enlarged until the pieces cover them. (The
    published code enlarges them and then takes pieces of the upper left corner only.)

    Args:
        video: ``(c, n, h, w)``. height, width: size of the result, multiples of 32.

    Returns:
        ``(c, n, height, width)``
    """
    short = min(video.shape[2] / height, video.shape[3] / width)
    if short < 1:
        size = max(round(video.shape[2] / short), height), max(round(video.shape[3] / short), width)
        video = F.interpolate(video.movedim(0, 1), size, mode="bilinear").movedim(0, 1)
    pixels = video.numpy()
    made = np.empty((*pixels.shape[:2], height, width), np.float32)
    rows, columns = height // CELL, width // CELL
    tall, wide = pixels.shape[2] // rows, pixels.shape[3] // columns
    for row in range(rows):
        for column in range(columns):
            y = row * tall + int(rng.integers(tall - CELL + 1))
            x = column * wide + int(rng.integers(wide - CELL + 1))
            piece = pixels[:, :, y : y + CELL, x : x + CELL]
            made[:, :, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = piece
    return made


def load_quality(folder: Path) -> list[VideoQuality]:
    """The networks of all ONNX files in a folder, by name.

    Raises:
        ValueError: there is none, one that cannot be used, or one twice.
    """
    files = sorted(Path(folder).glob("*.onnx"))
    if not files:
        raise ValueError(f"{folder} holds no .onnx file; export DOVER with its convert_to_onnx.py and put it there")
    found: dict[str, VideoQuality] = {}
    for file in files:
        network = VideoQuality(file)
        if network.name in found:
            raise ValueError(f"{folder} holds {network.name} twice; leave one")
        found[network.name] = network
    return list(found.values())


def _normalised(view: np.ndarray) -> np.ndarray:
    """``(3, ...)`` of 0..255 as the networks take it."""
    shape = (3, *(1,) * (view.ndim - 1))
    return ((view - _PIXEL_MEAN.reshape(shape)) / _PIXEL_DEVIATION.reshape(shape)).astype(np.float32)


def _standardised(score: float, usual: tuple[float, float]) -> float:
    mean, deviation = usual
    return (score - mean) / deviation


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-min(max(value, -500.0), 500.0)))
