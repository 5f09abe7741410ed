from __future__ import annotations

import itertools

import torch

from rdtf.rng import numpy_rng, torch_rng

KEYS = [*itertools.product((0, 1, 2**31), (0, 1, 99), ("masks", "noise")), (1, 11, "masks"), (11, 1, "masks")]


def test_streams_are_pure_functions_of_their_key():
    for key in KEYS:
        assert numpy_rng(*key).integers(1 << 62) == numpy_rng(*key).integers(1 << 62)
        assert torch.equal(torch.rand(4, generator=torch_rng(*key)), torch.rand(4, generator=torch_rng(*key)))


def test_streams_differ_from_each_other():
    assert len({int(numpy_rng(*key).integers(1 << 62)) for key in KEYS}) == len(KEYS)
    assert len({torch.rand(4, generator=torch_rng(*key)).numpy().tobytes() for key in KEYS}) == len(KEYS)


def test_global_generators_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(100, generator=torch_rng(0, 0, "noise"))
    assert torch.equal(torch.rand(3), expected)
