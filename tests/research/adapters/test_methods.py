"""What each method computes, by hand-made inputs and independent computations."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rdtf.model.adapter import add_adapter
from rdtf.model.layers import SelfAttention
from rdtf.research.adapters.customize_a_video import CustomizeAVideo
from rdtf.research.adapters.i2v_adapter import FirstFrameAttention, blurred
from rdtf.research.adapters.networks import Clips, CurrentClips, temporal_layers
from rdtf.research.adapters.simda import LatentShift, shift, tile_offsets
from tests.conftest import awaken
from tests.research.adapters.conftest import Bench

MakeBench = Callable[[str], Bench]


class Now(CurrentClips):
    """The clips of a pass of no network."""

    def __init__(self, clips: int, frames: int, size: tuple[int, int], first: list[int] | None = None) -> None:
        valid = torch.ones(clips, frames, dtype=torch.bool)
        self._now = Clips(valid, torch.tensor(first or [0] * clips), valid[:, 0], size)


# SimDA


def test_the_shift_tile_is_laid_out_and_cut_off():
    offsets = tile_offsets(5, 6).reshape(5, 6)
    assert offsets[0].tolist() == [4, 3, 2, 1, 4, 3]
    assert offsets[3].tolist() == [1, 2, 3, 4, 1, 2]
    assert offsets[:, 2].tolist() == [2, 1, 0, 3, 2]


def test_which_token_comes_from_which_frame():
    tokens = torch.arange(5.0)[None, :, None, None].expand(1, 5, 4, 1)  # each token tells its frame
    shifted = shift(tokens, torch.tensor([4, 2, 1, 0]))[0, :, :, 0]
    assert shifted.tolist() == [[0, 0, 0, 0], [1, 1, 0, 1], [2, 0, 1, 2], [3, 1, 2, 3], [0, 2, 3, 4]]


def test_shifted_attention_sees_the_past_and_leaves_what_stands_still():
    torch.manual_seed(3)
    attention = SelfAttention(8, 4)
    awaken(attention)
    x = torch.randn(2 * 3, 4 * 2, 8)
    now = Now(2, 3, (8, 4))  # the map of 4 by 2 is that of the second level
    shifted = LatentShift(attention, now)
    still = x[:1].expand(6, -1, -1)
    torch.testing.assert_close(shifted(still), attention(still))
    before = shifted(x)
    torch.testing.assert_close(before[[0, 3]], attention(x)[[0, 3]])  # the first frames have no past
    changed = x.clone()
    changed[1] += 1
    moved = (shifted(changed) - before).abs().amax((1, 2)) > 1e-6
    assert moved.tolist() == [False, True, True, False, False, False]


def test_without_shifted_attention_simda_starts_as_the_network(make_bench: MakeBench):
    bench = make_bench("dfgn")
    before = bench.run()
    add_adapter(bench.network, "simda", latent_shift=False)
    torch.testing.assert_close(bench.run(), before)


# I2V-Adapter


def test_frames_attend_to_the_first_one_with_its_own_keys_and_values():
    torch.manual_seed(3)
    attention = SelfAttention(8, 4)
    awaken(attention)
    adapter = FirstFrameAttention(attention, 8, Now(2, 3, (2, 2), first=[0, 2]))
    assert torch.equal(adapter.query.weight, attention.qkv.weight[:8])
    assert not adapter.out.weight.any() and not adapter.out.bias.any()
    awaken(adapter)
    x = torch.randn(6, 4, 8)
    out = adapter(attention, x)
    for frame in range(6):
        first = x[0] if frame < 3 else x[5]
        q = (x[frame] @ adapter.query.weight.T).reshape(4, 2, 4).transpose(0, 1)
        k, v = ((first @ attention.qkv.weight[8 * i : 8 * i + 8].T).reshape(4, 2, 4).transpose(0, 1) for i in (1, 2))
        heads = ((q @ k.transpose(1, 2)) / 2).softmax(-1) @ v
        torch.testing.assert_close(out[frame], adapter.out(heads.transpose(0, 1).reshape(4, 8)))


def test_a_clip_without_a_given_frame_is_left_as_it_was(make_bench: MakeBench):
    bench = make_bench("dfgn")
    none = torch.zeros_like(bench.inputs()["known"])
    before = bench.run(known=none)
    awaken_parameters(add_adapter(bench.network, "i2v-adapter"))
    assert torch.equal(bench.run(known=none), before)
    assert not torch.allclose(bench.run(), before, atol=1e-3)


def test_the_similarity_prior_mixes_the_picture_with_its_blur(make_bench: MakeBench):
    image, generator = torch.randn(4, 12, 16), torch.Generator().manual_seed(0)
    mixed = add_adapter(make_bench("dfgn").network, "i2v-adapter", keep=0.25).init_latents(image, generator)
    kept = mixed == image
    assert torch.equal(mixed[~kept], blurred(image)[~kept])
    assert 0.2 < float(kept.float().mean()) < 0.3
    with pytest.raises(ValueError, match="start above 0"):
        add_adapter(make_bench("dfgn").network, "i2v-adapter", start=0.0)


def test_the_blur_is_a_gaussian_with_mirrored_borders():
    weight = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0]) / 18) ** 2)
    weight /= weight.sum()
    mirrored = torch.tensor([5.0, 1.0, 5.0, 1.0])  # a map of 2 pixels takes 3 of the kernel
    expected = torch.stack([(mirrored[i : i + 3] * weight).sum() for i in range(2)])
    torch.testing.assert_close(blurred(torch.tensor([1.0, 5.0]).expand(1, 2, 2)), expected.expand(1, 2, 2))
    assert blurred(torch.ones(1, 1, 1)).tolist() == [[[1.0]]]


# Customize-A-Video


def test_the_stages_of_customize_a_video(make_bench: MakeBench):
    bench = make_bench("dfgn")
    tuning = add_adapter(bench.network, "customize-a-video", rank=2, absorb=0.5)
    assert isinstance(tuning, CustomizeAVideo)
    awaken_parameters(tuning)
    layers = tuple(temporal_layers(bench.network))
    temporal = {name for name in tuning.trainable_parameters if name.startswith(layers)}
    assert 0 < len(temporal) < len(tuning.trainable_parameters)

    def trained() -> set[str]:
        bench.network.zero_grad()
        bench.run().square().mean().backward()
        return {name for name, parameter in tuning.trainable_parameters.items() if parameter.grad is not None}

    def frames_reached() -> list[bool]:
        video = bench.inputs()["video"].clone()
        video[:, :, 1] += 1
        return ((bench.run(video=video) - bench.run()).abs().amax((0, 1, 3, 4)) > 1e-5).tolist()

    bench.network.train()
    tuning.on_step(0.49)
    assert tuning.stills_only
    assert trained() == tuning.trainable_parameters.keys() - temporal
    assert frames_reached() == [False, True, False, False]  # the temporal layers are bypassed
    tuning.on_step(0.5)
    assert not tuning.stills_only
    assert trained() == temporal
    assert frames_reached() == [True] * 4

    with_absorber = bench.run()
    bench.network.eval()
    without = bench.run()
    assert not torch.allclose(with_absorber, without, atol=1e-3)
    with torch.no_grad():
        for name in tuning.trainable_parameters.keys() - temporal:
            tuning.trainable_parameters[name].zero_()
    torch.testing.assert_close(without, bench.run())
    bench.network.train()
    assert trained() == temporal  # the stage outlives an evaluation


def test_in_the_first_stage_an_evaluation_shows_the_whole_network(make_bench: MakeBench):
    bench = make_bench("dfgn")
    bench.network.eval()
    before = bench.run()
    tuning = add_adapter(bench.network, "customize-a-video")
    tuning.on_step(0.0)
    torch.testing.assert_close(bench.run(), before)


# Networks


def test_a_copy_of_a_tuned_network_stands_on_its_own(make_bench: MakeBench):
    for name in ("simda", "i2v-adapter"):
        bench = make_bench("dfgn")
        awaken_parameters(add_adapter(bench.network, name))
        other = Bench(copy.deepcopy(bench.network))
        before = bench.run()
        assert torch.equal(other.run(), before)
        with torch.no_grad():
            for parameter in other.network.parameters():
                parameter.zero_()
        other.run()
        assert torch.equal(bench.run(), before)


def awaken_parameters(tuning: Any) -> None:
    awaken(nn.ParameterDict({str(i): parameter for i, parameter in enumerate(tuning.trainable_parameters.values())}), 5)
