"""The STI layer beside what it replaces: ``python benchmarks/temporal_layers.py``.

On maps as the network has them (by default of the finest level at the size of the paper, 8 frames of 32 x 32 cells):
the STI layer; the 3x3x3 convolutions that can stand in its place; attention of every place of every frame to every
other. Forward and backward, each in fp32 and, unless it is emulated, in bf16. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import timeit
from collections.abc import Callable

import torch
from einops import rearrange
from rich.table import Table
from torch import Tensor, nn

from rdtf.flops import flop_counter
from rdtf.model.layers import SelfAttention, make_norm
from rdtf.model.temporal import PlainConvolution, SpatialTemporalInteraction
from rdtf.model.time_axis import make_time_axis
from rdtf.progress import console
from rdtf.train.hardware import has_bf16, keep_freed_memory


class FullAttention(nn.Module):
    """Self-attention over all places of all frames at once."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.attention = make_norm("group", channels), SelfAttention(channels, 32, 8)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        tokens = rearrange(self.norm(x), "(b f) c h w -> b (f h w) c", f=frames)
        return x + rearrange(self.attention(tokens), "b (f h w) c -> (b f) c h w", f=frames, h=x.shape[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--channels", type=int, default=320)
    parser.add_argument("--cells", type=int, default=32, help="height and width of the maps")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="timed calls, of which the best counts")
    options = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    channels, frames = options.channels, options.frames
    axis = make_time_axis(torch.ones(1, frames, dtype=torch.bool))
    sti = SpatialTemporalInteraction(channels, 32, 8, 2, "group")
    plain, full = PlainConvolution(channels, "group"), FullAttention(channels)
    layers: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]] = {
        "STI": (sti, lambda x: sti(x, axis)),
        "3-D convolution": (plain, lambda x: plain(x, axis)),
        "full attention": (full, lambda x: full(x, frames)),
    }

    precisions = ["fp32", "bf16"] if has_bf16(torch.device("cpu")) else ["fp32"]
    table = Table(title=f"{frames} frames of {options.cells} x {options.cells}, {torch.get_num_threads()} threads")
    table.add_column("layer")
    for column in ("parameters", "GFLOP", *[c for p in precisions for c in (f"{p}, forward", "with backward")]):
        table.add_column(column, justify="right")
    results = []
    for name, (layer, call) in layers.items():
        x = torch.randn(frames, channels, options.cells, options.cells).to(memory_format=torch.channels_last)
        x.requires_grad_()  # as inside a network
        layer.to(memory_format=torch.channels_last)
        with torch.no_grad(), flop_counter() as counter:
            call(x)
        result: dict[str, float | str] = {"layer": name, "gflop": counter.get_total_flops() / 1e9}
        result["parameters"] = sum(parameter.numel() for parameter in layer.parameters())
        for precision in precisions:
            result |= _times(call, x, precision == "bf16", precision, options.repeats)
        results.append(result)
        seconds = [
            f"{float(result[f'{p}_{what}']) * 1e3:.0f} ms" for p in precisions for what in ("forward_s", "both_s")
        ]
        table.add_row(name, f"{float(result['parameters']) / 1e6:.2f} M", f"{result['gflop']:.1f}", *seconds)
    console.print(table)
    print(json.dumps({"threads": torch.get_num_threads(), **vars(options), "layers": results}))


def _times(
    call: Callable[[Tensor], Tensor], x: Tensor, bf16: bool, precision: str, repeats: int
) -> dict[str, float | str]:
    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return call(x)

    def both() -> None:
        forward().float().square().mean().backward()

    def quiet() -> None:
        with torch.no_grad():
            forward()

    return {
        f"{precision}_forward_s": min(timeit.repeat(quiet, number=1, repeat=repeats + 1)),
        f"{precision}_both_s": min(timeit.repeat(both, number=1, repeat=repeats + 1)),
    }


if __name__ == "__main__":
    main()
