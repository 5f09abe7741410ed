from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rdtf.model import DFGN
from rdtf.model.dfgn import Level
from rdtf.train.network import typical_work


@pytest.mark.parametrize("variant", [{}, {"temporal_layer": "conv3d", "norm": "group"}], ids=["sti", "conv3d"])
def test_typical_work_is_of_the_networks_sizes(make_network: Callable[..., DFGN], variant: dict, monkeypatch):
    network = make_network(**variant)
    drawn = torch.get_rng_state()
    shapes = []
    forward = Level.forward
    monkeypatch.setattr(Level, "forward", lambda self, x, *rest: shapes.append(x.shape) or forward(self, x, *rest))
    work = typical_work(network, 2, 3, 8)
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            work()
    widths = network.config.widths
    deepest = 8 >> (len(widths) - 1)
    assert shapes == [(6, widths[0], 8, 8), (6, widths[-1], deepest, deepest)] * 2
    assert torch.equal(torch.get_rng_state(), drawn)
