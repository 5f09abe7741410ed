"""Trained networks that become larger: for twice the size of pictures, by a text prior or by a motion prior."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import interpolate, pad

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
        "text_prior_side": 2 * config["text_prior_side"],
        "text_motion_side": 2 * config["text_motion_side"],
    }
    new: Any = DFGN(**config)
    weights = {_renamed(k): v for k, v in network.state_dict().items()}
    for prior in ("text_prior", "text_motion"):
        for name in (f"{prior}.embed_out.weight", f"{prior}.embed_out.bias"):
            if name in weights:
                weights[name] = _enlarged(weights[name], network.config[f"{prior}_side"])
    missing, unexpected = new.load_state_dict(weights, strict=False)
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


@torch.no_grad()
def with_text_prior(network: DFGN, hidden: int, side: int) -> DFGN:
    """A network with a new text prior, which says nothing at first.

    Args:
        hidden, side: see :class:`rdtf.model.DFGN`.

    Raises:
        ValueError: it has one already.
    """
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    if config["text_prior"]:
        raise ValueError("the network has a text prior already; leave out add_text_prior")
    new: Any = DFGN(**config | {"text_prior": hidden, "text_prior_side": side})
    weights, name = network.state_dict(), "conv_in.weight"
    weights[name] = pad(weights[name], (0, 0, 0, 0, 0, config["latent_channels"]))  # the prior's channels come last
    missing, unexpected = new.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith("text_prior.") for name in missing)
    return new.to(network.device, network.dtype)


@torch.no_grad()
def with_text_motion(network: DFGN, hidden: int, side: int) -> DFGN:
    """A network with a new motion prior, which says nothing at first.

    Args:
        hidden, side: see :class:`rdtf.model.DFGN`.

    Raises:
        ValueError: it has one already, or no text prior.
    """
    config = {name: value for name, value in network.config.items() if not name.startswith("_")}
    if config["text_motion"]:
        raise ValueError("the network has a motion prior already; leave out add_text_motion")
    new: Any = DFGN(**config | {"text_motion": hidden, "text_motion_side": side})
    missing, unexpected = new.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("text_motion.") for name in missing)
    return new.to(network.device, network.dtype)


def _enlarged(rows: torch.Tensor, side: int) -> torch.Tensor:
    """Output weights or biases of a text prior that writes maps of twice the side (bilinear)."""
    maps = rows.reshape(-1, side * side, rows[0].numel()).transpose(1, 2).unflatten(2, (side, side))
    large = interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    return large.flatten(2).transpose(1, 2).reshape(-1, *rows.shape[1:])


def _renamed(name: str) -> str:
    """The new name of an old weight. The way up counts from the coarsest level, so it keeps its names."""
    if not name.startswith("down."):
        return name
    _, number, rest = name.split(".", 2)
    return f"down.{int(number) + 1}.{rest}"
