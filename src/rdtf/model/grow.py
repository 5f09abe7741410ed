"""Growing a network to twice the size of its pictures."""

from __future__ import annotations

from typing import Any

import torch

from rdtf.model.dfgn import DFGN


@torch.no_grad()
def grown(network: DFGN) -> DFGN:
    """A network for twice as many latents a side, with one more level around the old ones (arXiv 1710.10196).

    The old levels see maps of the size that they are used to, so what they know is kept. Between them and the input
    stands a mean of 2x2, between them and the output an enlargement. The new level begins as the identity. Its random
    weights come from torch's global generator.
    """
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    width = config["widths"][0]
    config |= {
        "widths": (width, *config["widths"]),
        "attention": (False, *config["attention"]),
        "sti_pool": (config["sti_pool"][0], *config["sti_pool"]),
    }
    new: Any = DFGN(**config)
    missing, unexpected = new.load_state_dict({_renamed(k): v for k, v in network.state_dict().items()}, strict=False)
    last = len(new.up) - 1
    fresh = ("down.0.", f"up.{last}.", f"up.{last - 1}.resize.")
    assert not unexpected and all(name.startswith(fresh) for name in missing)

    identity = torch.eye(width)
    shrink, enlarge = new.down[0].resize, new.up[last - 1].resize
    for convolution in (shrink, enlarge):
        convolution.weight.zero_()
        convolution.bias.zero_()
    shrink.weight[:, :, 1:, 1:] = identity[:, :, None, None] / 4
    enlarge.weight[:, :, 1, 1] = identity
    for level in new.up[last].levels:
        skip = level.residual.skip  # of the map and of a map from the way down
        skip.weight.zero_()
        skip.bias.zero_()
        skip.weight[:, :width, 0, 0] = identity
    return new.to(network.device, network.dtype)


def _renamed(name: str) -> str:
    """The new name of an old weight. The way up counts from the coarsest level, so it keeps its names."""
    if not name.startswith("down."):
        return name
    _, number, rest = name.split(".", 2)
    return f"down.{int(number) + 1}.{rest}"
