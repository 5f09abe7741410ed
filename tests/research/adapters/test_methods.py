"""What each method computes, by hand-made inputs and independent computations, and how many parameters it trains."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from rdtf.model.adapter import add_adapter
from rdtf.model.layers import SelfAttention
from rdtf.research.adapters.clip_context import Clips, CurrentClips
from rdtf.research.adapters.customize_a_video import CustomizeAVideo
from rdtf.research.adapters.i2v_adapter import FirstFrameAttention, blurred
from rdtf.research.adapters.motion_modules import MotionModule
from rdtf.research.adapters.networks import FrameWise, blocks, heads_of, keys_values, output, queries, units
from rdtf.research.adapters.simda import LatentShift, shift, tile_offsets
from tests.conftest import awaken
from tests.research.adapters.conftest import Bench

MakeBench = Callable[[str], Bench]


class Now(CurrentClips):
    """The clips of a pass of no network."""

    def __init__(self, clips: int, frames: int, size: tuple[int, int], first: list[int] | None = None) -> None:
        valid = torch.ones(clips, frames, dtype=torch.bool)
        self._now = Clips(valid, torch.tensor(first or [0] * clips), valid[:, 0], size)


# Parameters


@pytest.mark.parametrize(
    ("name", "millions"), [("simda", 24.86), ("i2v-adapter", 24.79)], ids=["SimDA, 24.86 M", "I2V-Adapter, 24.8 M"]
)
def test_parameters_on_stable_diffusion_1_as_in_the_papers(name: str, millions: float):
    with torch.device("meta"):
        network = FrameWise(UNet2DConditionModel(cross_attention_dim=768))
        tuning = add_adapter(network, name)
    assert sum(p.numel() for p in tuning.trainable_parameters.values()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_motion_modules_have_the_parameters_of_animatediffs():
    with torch.device("meta"):
        network = FrameWise(UNet2DConditionModel(cross_attention_dim=768))
        tuning = add_adapter(network, "motion-modules")
        theirs = MotionAdapter()
    assert len(list(units(network))) == 21
    assert sum(p.numel() for p in tuning.trainable_parameters.values()) == sum(p.numel() for p in theirs.parameters())


def test_lora_of_rank_64_on_temporal_attention_has_the_parameters_of_motion_lora():
    with torch.device("meta"):
        tuning = add_adapter(UNetMotionModel(), "lora", rank=64, where="temporal")
    assert sum(p.numel() for p in tuning.trainable_parameters.values()) / 1e6 == pytest.approx(19.33, abs=0.005)


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


def test_another_frames_content_stays_its_own_but_the_first_ones_reaches_all(make_bench: MakeBench):
    bench = make_bench("still")
    awaken_parameters(add_adapter(bench.network, "i2v-adapter"))
    inputs = bench.inputs()
    inputs["valid"] = torch.ones_like(inputs["valid"])
    before = bench.run(**inputs)
    for frame, reached in ((2, [False, False, True, False]), (0, [True] * 4)):
        video = inputs["video"].clone()
        video[:, :, frame] += 1
        difference = bench.run(**{**inputs, "video": video}) - before
        assert (difference.abs().amax((0, 1, 3, 4)) > 1e-5).tolist() == reached


def test_a_clip_without_a_given_frame_is_left_as_it_was(make_bench: MakeBench):
    bench = make_bench("dfgn")
    none = torch.zeros_like(bench.inputs()["known"])
    before = bench.run(known=none)
    awaken_parameters(add_adapter(bench.network, "i2v-adapter"))
    assert torch.equal(bench.run(known=none), before)
    assert not torch.allclose(bench.run(), before, atol=1e-3)


def test_the_similarity_prior_mixes_the_picture_with_its_blur(make_bench: MakeBench):
    image = torch.randn(4, 12, 16)
    network = make_bench("still").network
    sharp, soft = (copy.deepcopy(network) for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(add_adapter(sharp, "i2v-adapter", keep=1.0).init_latents(image, generator), image)
    assert torch.equal(add_adapter(soft, "i2v-adapter", keep=0.0).init_latents(image, generator), blurred(image, 9))
    mixed = add_adapter(network, "i2v-adapter", keep=0.25).init_latents(image, generator)
    kept = mixed == image
    assert torch.equal(mixed[~kept], blurred(image, 9)[~kept])
    assert 0.2 < float(kept.float().mean()) < 0.3


def test_the_blur_is_a_gaussian_with_mirrored_borders():
    row = torch.tensor([1.0, 5.0, 3.0, 2.0])
    weight = torch.exp(-0.5 * (torch.tensor([-1.0, 0.0, 1.0]) / 18) ** 2)
    weight /= weight.sum()
    mirrored = torch.tensor([5.0, 1.0, 5.0, 3.0, 2.0, 3.0])
    expected = torch.stack([(mirrored[i : i + 3] * weight).sum() for i in range(4)])
    torch.testing.assert_close(blurred(row.expand(1, 3, 4), 3), expected.expand(1, 3, 4))
    assert blurred(torch.ones(1, 2, 1), 9).tolist() == [[[1.0], [1.0]]]  # smaller than the kernel


# Motion modules


def test_a_motion_module_is_diffusers_module():
    theirs = AnimateDiffTransformer3D(
        8, 4, in_channels=32, norm_num_groups=32, positional_embeddings="sinusoidal", num_positional_embeddings=24
    )
    awaken(theirs)
    ours = MotionModule(32, Now(2, 3, (2, 3)))
    block: Any = theirs.transformer_blocks[0]
    copies: list[tuple[nn.Module, nn.Module]] = [
        (ours.norm, theirs.norm),
        (ours.proj_in, theirs.proj_in),
        (ours.proj_out, theirs.proj_out),
        (ours.norm1, block.norm1),
        (ours.norm2, block.norm2),
        (ours.norm3, block.norm3),
        (ours.feed_forward.up, block.ff.net[0].proj),
        (ours.feed_forward.down, block.ff.net[2]),
        (ours.attention1.out, block.attn1.to_out[0]),
        (ours.attention2.out, block.attn2.to_out[0]),
    ]
    for mine, other in copies:
        mine.load_state_dict(other.state_dict())
    for mine, other in ((ours.attention1, block.attn1), (ours.attention2, block.attn2)):
        mine.qkv.weight.data = torch.cat([other.to_q.weight, other.to_k.weight, other.to_v.weight]).detach()
    # Theirs takes the norm's mean over the clip, ours of each frame: of frames of the same values they are one.
    picture = torch.randn(2, 1, 32, 6)
    x = torch.cat([picture, picture.roll(1, 3), picture.flip(3)], 1).reshape(6, 32, 2, 3)
    torch.testing.assert_close(ours(x), theirs(x, num_frames=3), rtol=1e-4, atol=1e-5)


# Customize-A-Video


def test_the_stages_of_customize_a_video(make_bench: MakeBench):
    bench = make_bench("motion")
    tuning = add_adapter(bench.network, "customize-a-video", rank=2, absorb=0.5)
    assert isinstance(tuning, CustomizeAVideo)
    awaken_parameters(tuning)
    temporal = {name for name in tuning.trainable_parameters if "motion_modules" in name}
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
    for name in ("simda", "motion-modules", "i2v-adapter"):
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


def test_attention_without_a_reference_is_torchs(make_bench: MakeBench):
    """The projections that the methods share are those of diffusers' own attention."""
    bench = make_bench("still")
    attention = next(blocks(bench.network)).attention
    x = torch.randn(2, 6, attention.to_q.in_features)
    q, k, v = (heads_of(t, attention.heads) for t in (queries(attention, x), *keys_values(attention, x)))
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(output(attention, out), attention(x))


def awaken_parameters(tuning: Any) -> None:
    awaken(nn.ParameterDict({str(i): parameter for i, parameter in enumerate(tuning.trainable_parameters.values())}), 5)
