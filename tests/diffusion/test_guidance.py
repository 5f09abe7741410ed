from __future__ import annotations

import itertools

import pytest
import torch

from rdtf.diffusion.guidance import guidance_passes

SCALES = (0.0, 0.5, 1.0, 2.5, 7.5)


@pytest.mark.parametrize("has_frames", [False, True])
@pytest.mark.parametrize("has_text", [False, True])
def test_weights_sum_to_one_and_none_is_idle(has_frames: bool, has_text: bool):
    for image, text in itertools.product(SCALES, SCALES):
        passes = guidance_passes(has_frames, has_text, image, text)
        assert sum(p.weight for p in passes) == pytest.approx(1.0)
        assert all(p.weight for p in passes)
        assert len({(p.frames, p.text) for p in passes}) == len(passes) <= 3
        assert not any(p.frames > has_frames or p.text > has_text for p in passes)


@pytest.mark.parametrize("has_frames", [False, True])
@pytest.mark.parametrize("has_text", [False, True])
def test_scales_of_one_need_a_single_pass(has_frames: bool, has_text: bool):
    (only,) = guidance_passes(has_frames, has_text, 1.0, 1.0)
    assert (only.frames, only.text, only.weight) == (has_frames, has_text, 1.0)


def test_formula_of_instructpix2pix():
    e = {(frames, text): torch.randn(4) for frames in (False, True) for text in (False, True)}
    for image, text in itertools.product(SCALES, SCALES):
        total = sum(p.weight * e[p.frames, p.text] for p in guidance_passes(True, True, image, text))
        none, with_image, with_both = e[False, False], e[True, False], e[True, True]
        assert torch.allclose(total, none + image * (with_image - none) + text * (with_both - with_image), atol=1e-5)
        total = sum(p.weight * e[p.frames, p.text] for p in guidance_passes(False, True, image, text))
        assert torch.allclose(total, none + text * (e[False, True] - none), atol=1e-5)
        total = sum(p.weight * e[p.frames, p.text] for p in guidance_passes(True, False, image, text))
        assert torch.allclose(total, none + image * (with_image - none), atol=1e-5)
