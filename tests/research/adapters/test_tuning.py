"""The contract, for every baseline on every network that it fits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN, Adapter, adapter_names, add_adapter
from tests.conftest import awaken
from tests.research.adapters.conftest import NETWORKS, Bench

OPTIONS: dict[str, dict[str, Any]] = {"lora": {"rank": 2}}
MERGEABLE = {"lora", "customize-a-video"}
every_pair = pytest.mark.parametrize(("network", "name"), list(product(NETWORKS, adapter_names())))

MakeBench = Callable[[str], Bench]


def tuned(bench: Bench, name: str, awake: bool = True) -> Adapter:
    tuning = add_adapter(bench.network, name, **OPTIONS.get(name, {}))
    bench.network.train()
    if awake:
        awaken_own(tuning)
    return tuning


def awaken_own(tuning: Adapter, seed: int = 5) -> None:
    own = nn.ParameterDict({str(i): parameter for i, parameter in enumerate(tuning.trainable_parameters.values())})
    awaken(own, seed)


def gradients(bench: Bench, tuning: Adapter) -> dict[str, Tensor]:
    bench.network.zero_grad()
    bench.run().square().mean().backward()
    return {name: p.grad.clone() for name, p in bench.network.named_parameters() if p.grad is not None}


@every_pair
def test_the_contract(make_bench: MakeBench, tmp_path: Path, network: str, name: str):
    bench, other = make_bench(network), make_bench(network)
    base = {key: value.shape for key, value in bench.network.state_dict().items()}
    before = bench.run()
    # Shifted attention is another attention from the start, but of a single frame.
    start = {key: value[:, :, :1] if value.ndim == 5 else value for key, value in bench.inputs().items()}
    start |= {key: start[key][:, :1] for key in ("valid", "known")} if name == "simda" else bench.inputs()
    at_start = bench.run(**start)
    tuning = tuned(bench, name, awake=False)
    torch.testing.assert_close(bench.run(**start), at_start, rtol=1e-5, atol=1e-6)

    awaken_own(tuning)
    found = gradients(bench, tuning)
    assert found.keys() == tuning.trainable_parameters.keys()
    assert not base.keys() & found.keys()
    assert all(bool(gradient.any()) for gradient in found.values())

    bench.network.enable_gradient_checkpointing()
    again = gradients(bench, tuning)
    assert again.keys() == found.keys()
    for key, gradient in found.items():
        torch.testing.assert_close(again[key], gradient, rtol=1e-4, atol=1e-7, msg=key)

    after = bench.run()
    assert not torch.allclose(after, before, atol=1e-3)
    tuning.save(tmp_path / "own.safetensors")
    fresh = tuned(other, name, awake=False)
    fresh.load(tmp_path / "own.safetensors")
    assert torch.equal(other.run(), after)

    bench.network.eval()
    after = bench.run()
    if name in MERGEABLE:
        assert tuning.merge() is bench.network
        assert {key: value.shape for key, value in bench.network.state_dict().items()} == base
        torch.testing.assert_close(bench.run(), after, rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(ValueError, match=f"{name} adds layers"):
            tuning.merge()


@every_pair
def test_padding_stays_invisible(make_bench: MakeBench, network: str, name: str):
    bench = make_bench(network)
    tuned(bench, name)
    inputs = bench.inputs()
    exists = inputs["valid"][:, None, :, None, None]
    noise = torch.randn(inputs["video"].shape)
    other = bench.run(**{key: torch.where(exists, inputs[key], noise) for key in ("video", "clean")})
    torch.testing.assert_close(other, bench.run(), rtol=1e-5, atol=1e-6)
    short = {key: inputs[key][:1, :, :2] for key in ("video", "clean")}
    short |= {key: inputs[key][:1, :2] for key in ("valid", "known")} | {
        key: inputs[key][:1] for key in ("text", "level")
    }
    torch.testing.assert_close(bench.run(**short), other[:1, :, :2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", adapter_names())
def test_a_tuned_network_is_saved_and_loaded_whole(make_bench: MakeBench, tmp_path: Path, name: str):
    bench = make_bench("dfgn")
    assert isinstance(bench.network, DFGN)
    model = AdaptedDFGN.around(bench.network, name, OPTIONS.get(name, {}))
    awaken_own(model.adapter)
    model.eval().save_pretrained(tmp_path)
    loaded = AdaptedDFGN.from_pretrained(tmp_path)
    assert loaded.adapter.name == name
    assert torch.equal(Bench(loaded.dfgn).run(), bench.run())
    for key, parameter in model.adapter.trainable_parameters.items():
        assert (
            torch.equal(loaded.adapter.trainable_parameters[key], parameter)
            and loaded.adapter.trainable_parameters[key].requires_grad
        )


def test_what_is_wrong_is_named(make_bench: MakeBench, tmp_path: Path, unchecked: None):
    bench = make_bench("dfgn")
    with pytest.raises(ValueError, match=r"unknown adapter 'dora'; installed are .*lora"):
        add_adapter(bench.network, "dora")
    with pytest.raises(ValueError, match="lora has no option ranks; it has rank"):
        add_adapter(bench.network, "lora", ranks=3)
    with pytest.raises(ValueError, match="rank must be 1 or more"):
        add_adapter(bench.network, "lora", rank=0)
    with pytest.raises(ValueError, match="absorb in 0..1"):
        add_adapter(bench.network, "customize-a-video", absorb=1)
    with pytest.raises(ValueError, match="adapters do not fit a Linear"):
        add_adapter(nn.Linear(2, 2), "lora")
    small, large = add_adapter(bench.network, "lora", rank=2), add_adapter(make_bench("dfgn").network, "lora", rank=3)
    small.save(tmp_path / "small")
    with pytest.raises(
        ValueError, match=r"does not fit lora on this network: \d+ parameters are missing, unknown or of"
    ):
        large.load(tmp_path / "small")
    (tmp_path / "no").write_text("no")
    with pytest.raises(ValueError, match="no cannot be read as safetensors"):
        small.load(tmp_path / "no")
