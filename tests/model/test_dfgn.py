"""The whole network: what it must not see, what it must see, and how it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdtf.masks import masked_mean
from rdtf.model import DFGN
from rdtf.model.time_axis import known_neighbours
from tests.conftest import TINY_NETWORK

C, SIDE, WIDTH = 4, 4, 16
VARIANTS = {
    "default": {},
    "paper": {
        "norm": "group",
        "temporal_encoders": True,
        "mask_channel": False,
        "known_neighbours": False,
        "residual_to_known": False,
    },
    "conv3d": {"temporal_layer": "conv3d"},
    "text prior": {"text_prior": 8, "text_prior_side": SIDE},
    "motion prior": {"text_prior": 8, "text_prior_side": SIDE, "text_motion": 8, "text_motion_side": SIDE},
    "three levels": {"widths": (16, 16, 16), "attention": (True, False, True), "sti_pool": (4, 2, 1)},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


class Inputs:
    """Arguments of a forward pass for clips of given lengths in ``slots`` frame slots."""

    def __init__(self, lengths: list[int], slots: int | None = None, *, size=(SIDE, SIDE), loop=False, seed=0) -> None:
        generator = torch.Generator().manual_seed(seed)
        b, f = len(lengths), slots or max(lengths)
        self.valid = torch.arange(f) < torch.tensor(lengths)[:, None]
        exists = self.valid[:, None, :, None, None]
        self.noisy = torch.randn(b, C, f, *size, generator=generator) * exists
        self.video = torch.randn(b, C, f, *size, generator=generator) * exists
        self.known = self.valid & (torch.arange(f) % 3 == 0)
        self.timestep = torch.linspace(100, 900, b)
        self.loop = torch.full((b,), loop)
        self.states = torch.randn(b, 5, WIDTH, generator=generator)
        self.text_mask = torch.ones(b, 5, dtype=torch.bool)

    def run(self, network: DFGN, text=None) -> Tensor:
        text = text or network.text_context(self.states, self.text_mask)
        return network(self.noisy, self.timestep, self.video, self.known, self.valid, self.loop, text)

    def clip(self, i: int) -> Inputs:
        """Clip ``i`` alone and without padding."""
        alone = object.__new__(Inputs)
        n = int(self.valid[i].sum())
        alone.noisy, alone.video = self.noisy[i : i + 1, :, :n], self.video[i : i + 1, :, :n]
        alone.known, alone.valid = self.known[i : i + 1, :n], self.valid[i : i + 1, :n]
        for name in ("timestep", "loop", "states", "text_mask"):
            setattr(alone, name, getattr(self, name)[i : i + 1])
        return alone


@every_variant
@pytest.mark.parametrize("loop", [False, True], ids=["linear", "circular"])
def test_padding_is_invisible(make_network: Callable[..., DFGN], variant: str, loop: bool):
    network = make_network(**VARIANTS[variant])

    def outcome(filling: float) -> tuple[Tensor, Tensor, list[Tensor]]:
        inputs = Inputs([3, 8, 1], loop=loop)
        for name in ("noisy", "video"):
            video = getattr(inputs, name)
            setattr(inputs, name, torch.where(inputs.valid[:, None, :, None, None], video, filling).requires_grad_())
        inputs.known = inputs.known | ~inputs.valid & (filling != 0)  # even padding that claims to be given
        network.zero_grad()
        out = inputs.run(network)
        target = torch.where(inputs.valid[:, None, :, None, None], torch.linspace(-1, 1, 8)[:, None, None], filling)
        loss = masked_mean((out - target).square(), inputs.valid).mean()
        loss.backward()
        assert not inputs.noisy.grad[~inputs.valid[:, None, :, None, None].expand_as(out)].any()
        gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        return out.detach(), loss.detach(), [*gradients, inputs.noisy.grad, inputs.video.grad]

    clean_out, clean_loss, clean_gradients = outcome(0.0)
    assert clean_out.abs().max() > 0.1
    assert not clean_out[0, :, 3:].any()  # what comes out for padding is 0
    for garbage in (1e6, float("nan")):
        out, loss, gradients = outcome(garbage)
        assert torch.equal(clean_out, out)
        assert torch.equal(clean_loss, loss)
        for a, b in zip(clean_gradients, gradients, strict=True):
            assert torch.equal(a, b)


@every_variant
@pytest.mark.parametrize("loop", [False, True], ids=["linear", "circular"])
def test_a_clip_in_company_is_the_clip_alone(make_network: Callable[..., DFGN], variant: str, loop: bool):
    network = make_network(**VARIANTS[variant])
    inputs = Inputs([3, 8, 1, 5], slots=8, loop=loop)
    inputs.loop[0] = not loop
    with torch.no_grad():
        together = inputs.run(network)
        for i, length in enumerate((3, 8, 1, 5)):
            assert torch.allclose(together[i : i + 1, :, :length], inputs.clip(i).run(network), atol=1e-5)


@pytest.mark.parametrize("frames", range(1, 17))
def test_any_number_of_frames(make_network: Callable[..., DFGN], frames: int):
    network = make_network()
    for loop in (False, True):
        out = Inputs([frames], loop=loop, size=(4, 4)).run(network)
        assert out.shape == (1, C, frames, 4, 4)
        assert out.isfinite().all()


@every_variant
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (9, 4)])
def test_odd_sizes(make_network: Callable[..., DFGN], variant: str, size: tuple[int, int]):
    out = Inputs([2, 3], size=size).run(make_network(**VARIANTS[variant]))
    assert out.shape == (2, C, 3, *size)
    assert out.isfinite().all()


@pytest.mark.parametrize("valid", [[1] * 17, [1, 0, 1], [0, 1, 1], [0, 0]])
def test_impossible_clips_are_refused(make_network: Callable[..., DFGN], valid: list[int]):
    inputs = Inputs([len(valid)])
    inputs.valid = torch.tensor([valid], dtype=torch.bool)
    with pytest.raises(ValueError, match="frame"):
        inputs.run(make_network())


@every_variant
@pytest.mark.parametrize("slots", [6, 8])
def test_a_rotated_loop_gives_a_rotated_output(make_network: Callable[..., DFGN], variant: str, slots: int):
    network = make_network(**VARIANTS[variant])

    def rotated(loop: bool, by: int) -> Tensor:
        inputs = Inputs([6, 6], slots=slots, loop=loop)
        for name in ("noisy", "video"):
            video = getattr(inputs, name)
            setattr(inputs, name, torch.cat([video[:, :, :6].roll(by, 2), video[:, :, 6:]], 2))
        inputs.known = torch.cat([inputs.known[:, :6].roll(by, 1), inputs.known[:, 6:]], 1)
        with torch.no_grad():
            return inputs.run(network)[:, :, :6]

    for by in (1, 4):
        assert torch.allclose(rotated(True, 0).roll(by, 2), rotated(True, by), atol=1e-5)
        assert (rotated(False, 0).roll(by, 2) - rotated(False, by)).abs().max() > 0.01
    assert (rotated(True, 0) - rotated(False, 0)).abs().max() > 0.01  # and the network knows which it is


@every_variant
def test_frame_order_is_visible(make_network: Callable[..., DFGN], variant: str):
    network = make_network(**VARIANTS[variant])
    inputs = Inputs([5])
    inputs.known[:] = False
    order = [3, 0, 4, 1, 2]
    with torch.no_grad():
        straight = inputs.run(network)
        inputs.noisy = inputs.noisy[:, :, order]
        assert (straight[:, :, order] - inputs.run(network)).abs().max() > 0.003


@pytest.mark.parametrize("loop", [False, True])
def test_a_fresh_network_returns_the_crossfade_of_the_known_frames(make_network: Callable[..., DFGN], loop: bool):
    network = make_network(awake=False)
    inputs = Inputs([8, 5], loop=loop)
    out = inputs.run(network)
    blend = known_neighbours(inputs.known, inputs.valid, inputs.loop).blend
    assert torch.allclose(out, torch.einsum("bfg,bcghw->bcfhw", blend, inputs.video), atol=1e-6)
    given = inputs.known[:, None, :, None, None].expand_as(out)
    assert torch.equal(out[given], inputs.video[given])
    inputs.known[:] = False
    assert not inputs.run(network).any()


def test_the_text_prior_is_the_reference_where_no_frame_is_known(make_network: Callable[..., DFGN]):
    network = make_network(False, text_prior=8, text_prior_side=SIDE, residual_to_known=-1.0).eval()
    inputs = Inputs([3, 3])
    inputs.known[0] = False  # the first clip is made from words alone
    with torch.no_grad():
        torch.nn.init.normal_(network.text_prior.embed_out.weight)
        prior = network.text_context(inputs.states, inputs.text_mask).prior
        out = inputs.run(network)
        assert prior.std() > 0.1
        torch.testing.assert_close(out[0], -prior[0, :, None].expand(-1, 3, -1, -1))
        without = inputs.run(network, replace(network.text_context(inputs.states, inputs.text_mask), prior=0 * prior))
        torch.testing.assert_close(out[1], without[1])


def test_a_text_prior_fits_maps_of_other_sizes(make_network: Callable[..., DFGN]):
    network = make_network(False, text_prior=8, text_prior_side=2, residual_to_known=1.0).eval()
    inputs = Inputs([2], size=(8, 8))
    inputs.known[:] = False
    with torch.no_grad():
        network.text_prior.embed_out.bias.copy_(torch.arange(C).repeat_interleave(4))
        expected = torch.arange(C).float()[:, None, None, None].expand(-1, 2, 8, 8)
        torch.testing.assert_close(inputs.run(network)[0], expected)


def test_a_fresh_network_without_the_residual_returns_zero(make_network: Callable[..., DFGN]):
    assert not Inputs([4]).run(make_network(awake=False, residual_to_known=False)).any()


@every_variant
def test_unknown_frames_of_the_clean_clip_are_not_seen(make_network: Callable[..., DFGN], variant: str):
    network = make_network(**VARIANTS[variant])
    inputs = Inputs([5, 3])
    before = inputs.run(network)
    unknown = ~inputs.known[:, None, :, None, None]
    inputs.video = torch.where(unknown, float("nan"), inputs.video)
    assert torch.equal(before, inputs.run(network))
    inputs.video = torch.where(unknown, 0.0, inputs.video + 1)
    assert not torch.allclose(before, inputs.run(network), atol=1e-3)  # but known ones are


def test_an_unknown_frame_differs_from_an_empty_one(make_network: Callable[..., DFGN]):
    network = make_network(known_neighbours=False, residual_to_known=False)
    inputs = Inputs([4])
    inputs.video = torch.zeros_like(inputs.video)
    given = inputs.run(network)
    inputs.known[:] = False
    assert not torch.allclose(given, inputs.run(network), atol=1e-3)


def test_noise_level_is_seen(make_network: Callable[..., DFGN]):
    network, inputs = make_network(), Inputs([4])
    before = inputs.run(network)
    inputs.timestep = inputs.timestep + 50
    assert not torch.allclose(before, inputs.run(network), atol=1e-3)


@every_variant
def test_padded_captions_equal_unpadded_ones(make_network: Callable[..., DFGN], variant: str):
    network = make_network(**VARIANTS[variant])
    inputs = Inputs([3, 3])
    with torch.no_grad():
        plain = inputs.run(network)
        inputs.states = torch.cat([inputs.states, torch.full((2, 4, WIDTH), 1e4)], 1)
        inputs.text_mask = torch.arange(9).expand(2, 9) < 5
        assert torch.allclose(plain, inputs.run(network), atol=1e-5)
        inputs.states = inputs.states + 1
        assert not torch.allclose(plain, inputs.run(network), atol=1e-3)  # the real tokens are read


def test_no_text_at_all_is_valid(make_network: Callable[..., DFGN]):
    network, inputs = make_network(), Inputs([3, 2])
    inputs.text_mask = torch.tensor([[False] * 5, [True] * 5])
    out = inputs.run(network)
    assert out.isfinite().all()
    inputs.states = torch.cat([torch.randn(1, 5, WIDTH), inputs.states[1:]])
    assert torch.equal(out, inputs.run(network))


def test_text_made_once_serves_every_step(make_network: Callable[..., DFGN]):
    network, inputs = make_network(), Inputs([3, 2])
    with torch.no_grad():
        once = network.text_context(inputs.states, inputs.text_mask)
        for level in (10.0, 500.0):
            inputs.timestep = torch.full((2,), level)
            assert torch.equal(inputs.run(network, once), inputs.run(network))


def test_clips_of_a_batch_are_independent(make_network: Callable[..., DFGN]):
    network, inputs, other = make_network(), Inputs([4, 4]), Inputs([4, 4], seed=5)
    with torch.no_grad():
        before = inputs.run(network)
        for name in ("noisy", "video", "states", "timestep"):
            setattr(inputs, name, torch.cat([getattr(inputs, name)[:1], getattr(other, name)[1:] * 2]))
        inputs.known[1] = ~inputs.known[1]
        inputs.loop[1] = True
        after = inputs.run(network)
    assert torch.allclose(before[0], after[0], atol=1e-6)
    assert not torch.allclose(before[1], after[1], atol=1e-2)


@every_variant
def test_gradient_checkpointing_changes_nothing(make_network: Callable[..., DFGN], variant: str):
    network = make_network(**VARIANTS[variant])

    def gradients() -> list[Tensor]:
        network.zero_grad()
        loss = Inputs([3, 5]).run(network).square().mean()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]

    plain = gradients()
    network.enable_gradient_checkpointing()
    assert network.gradient_checkpointing
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.equal(a, b)


@every_variant
def test_every_parameter_learns(make_network: Callable[..., DFGN], variant: str):
    network = make_network(**VARIANTS[variant])
    Inputs([4, 2], loop=variant == "motion prior").run(network).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_saved_and_loaded_is_the_same(make_network: Callable[..., DFGN], tmp_path: Path):
    network = make_network()
    network.save_pretrained(tmp_path)
    loaded = DFGN.from_pretrained(tmp_path)
    assert torch.equal(Inputs([4]).run(network), Inputs([4]).run(loaded))
    for (name, saved), (_, weight) in zip(network.named_parameters(), loaded.named_parameters(), strict=True):
        assert weight.stride() == saved.stride() and weight.data_ptr() % 64 == 0, name


def test_an_unknown_temporal_layer_is_refused():
    with pytest.raises((ValueError, TypeError), match="conv4d"):  # the checker of types, where it runs, is the first
        DFGN(**TINY_NETWORK | {"temporal_layer": "conv4d"})


def test_levels_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="one entry for each"):
        DFGN(**{**TINY_NETWORK, "sti_pool": (2, 1, 1)})
