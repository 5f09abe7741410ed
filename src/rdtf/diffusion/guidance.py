"""Two-scale guidance (InstructPix2Pix, arXiv 2211.09800; the paper's text 7.5 and image 7.5).

``out = e(none) + s_image (e(image) - e(none)) + s_text (e(image, text) - e(image))``, where "image" stands for all
given frames. Passes whose coefficient is 0 are skipped: scales of 1 need one pass.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GuidancePass:
    """One evaluation of the network: which conditions it gets, and its weight in the sum."""

    frames: bool
    text: bool
    weight: float


def guidance_passes(has_frames: bool, has_text: bool, image_scale: float, text_scale: float) -> list[GuidancePass]:
    """The passes for a request with or without given frames and a caption; their weights sum to 1."""
    if has_frames and has_text:
        weights = [
            (False, False, 1 - image_scale),
            (True, False, image_scale - text_scale),
            (True, True, text_scale),
        ]
    elif has_frames:
        weights = [(False, False, 1 - image_scale), (True, False, image_scale)]
    elif has_text:
        weights = [(False, False, 1 - text_scale), (False, True, text_scale)]
    else:
        weights = [(False, False, 1.0)]
    return [GuidancePass(*weight) for weight in weights if abs(weight[2]) > 1e-9]
