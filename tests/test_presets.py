from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rdtf.model import DFGN
from rdtf.presets import SIZES, size_config


def parameters(size: str, **overrides) -> int:
    with torch.device("meta"):
        network = DFGN(**{**size_config(size), **overrides})
    return sum(parameter.numel() for parameter in network.parameters())


def test_paper_size_has_the_papers_parameters():
    # The authors' network: 960,118,452 parameters with 4 latent channels, 4 condition channels, no extras of ours.
    count = parameters("paper", latent_channels=4, mask_channel=False, known_neighbours=False, residual_to_known=False)
    assert count == pytest.approx(960_118_452, rel=0.03)


def test_sizes_are_ordered():
    counts = [parameters(size) for size in ("tiny", "small", "base", "paper")]
    assert list(SIZES) == ["tiny", "small", "base", "paper"]
    assert all(smaller * 1.5 < larger for smaller, larger in pairwise(counts))


def test_unknown_sizes_are_refused():
    with pytest.raises(ValueError, match=r"huge.*tiny, small, base, paper"):
        size_config("huge")


def test_a_config_is_a_copy():
    size_config("tiny")["widths"] = ()
    assert size_config("tiny")["widths"]
