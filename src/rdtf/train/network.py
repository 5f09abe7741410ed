"""Construction of the network that a run trains, with its text encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rdtf.batch import ClipBatch
from rdtf.codec import Codec
from rdtf.loading import load_pipeline
from rdtf.model import DFGN
from rdtf.model.adapter import AdaptedDFGN, Adapter, adapter_of, without_adapter
from rdtf.model.grow import grown, with_text_motion, with_text_prior
from rdtf.pipeline import StickerPipeline
from rdtf.text import TextEncoder, load_text_encoder
from rdtf.train.settings import TrainSettings

_MOST_PRIOR_SIDE = 16  # latents; a text prior of more would be larger than the rest of the network


class Network(nn.Module):
    """Network and text encoder as one module, for one call in a training pass."""

    def __init__(self, dfgn: DFGN | AdaptedDFGN, text: TextEncoder) -> None:
        super().__init__()
        self.dfgn, self.text = dfgn, text

    @property
    def adapter(self) -> Adapter | None:
        """The network's adapter, if it has one."""
        return adapter_of(self.dfgn)

    @property
    def plain(self) -> DFGN:
        """The DFGN, with the layers of the adapter if there is one."""
        return without_adapter(self.dfgn)

    def frozen_fingerprint(self) -> str:
        """First 16 hexadecimal digits of SHA-256 over all frozen weights."""
        digest = hashlib.sha256()
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                digest.update(f"{name}/{parameter.dtype}/{tuple(parameter.shape)}/".encode())
                digest.update(parameter.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def forward(self, batch: ClipBatch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """The output for noised clips of the batch, ``(b, c, f, h, w)``."""
        text = self.dfgn.text_context(*self.text(batch.text))
        return self.dfgn(noisy, timestep, batch.video, batch.known, batch.valid, batch.loop, text)


def load_start(settings: TrainSettings, run: Path) -> StickerPipeline | None:
    """The pipeline that the run starts from, or None.

    A run that has saved a pipeline starts from its own, which has all frozen weights. So the first one may change or be
    deleted then.

    Raises:
        ValueError: there is no model, or it does not fit the settings.
    """
    if settings.start_from is None:
        return None
    try:
        return load_pipeline(run)
    except ValueError:
        start = load_pipeline(settings.start_from)
    if (adapter := adapter_of(start.dfgn)) is not None:
        try:
            start.dfgn = cast(DFGN, adapter.merge())
        except ValueError as error:
            raise ValueError(f"{settings.start_from} is a tuned model, and {error}; start from its base") from error
    expected = settings.objective.make_scheduler()
    found = (start.config.prediction, type(start.scheduler).__name__)
    wanted = (settings.objective.prediction, type(expected).__name__)
    if found != wanted:
        path = "flow" if found[1].startswith("Flow") else "ddpm"
        raise ValueError(
            f"{settings.start_from} predicts {found[0]} on the {path} path, this training another; add "
            f"--set objective.path={path} --set objective.prediction={found[0]}"
        )
    torch.manual_seed(settings.seed)
    side = start.config.sample_size // start.codec.downscale
    if settings.grow:
        start.dfgn, side = grown(cast(DFGN, start.dfgn)), 2 * side
    if settings.add_text_prior:
        start.dfgn = with_text_prior(cast(DFGN, start.dfgn), settings.add_text_prior, min(side, _MOST_PRIOR_SIDE))
    if settings.add_text_motion:
        start.dfgn = with_text_motion(cast(DFGN, start.dfgn), settings.add_text_motion, min(side, _MOST_PRIOR_SIDE))
    return start


def network_arguments(settings: TrainSettings, codec: Codec, size: int) -> dict[str, Any]:
    """Arguments of the network for stickers of ``size`` px, as they are before the text encoder decides its width."""
    side = min(size // codec.downscale, _MOST_PRIOR_SIDE)
    return {
        "text_prior_side": side,
        "text_motion_side": side,
        **settings.network(),
        "latent_channels": codec.latent_channels,
    }


def build_network(
    settings: TrainSettings, codec: Codec, size: int, device: torch.device, start: StickerPipeline | None = None
) -> Network:
    """The network of a new run on ``device``, with the weights of ``start``, or random ones from the seed.

    ``size`` is that of the stickers in pixels. This is the last use of torch's global generator.

    Raises:
        ValueError: the adapter's options are wrong.
    """
    torch.manual_seed(settings.seed)
    if start is None:
        arguments = network_arguments(settings, codec, size)
        text = load_text_encoder(settings.text, arguments["text_width"]).to(device)
        dfgn = DFGN(**arguments | {"text_width": text.width})
        net = Network(dfgn, text)
    else:
        net = Network(start.dfgn, start.text_encoder)
        if settings.by_adapter:
            assert settings.tune is not None
            net.text.requires_grad_(False)
            if isinstance(net.dfgn, DFGN):
                net.dfgn = AdaptedDFGN.around(net.dfgn, settings.tune, settings.tune_options)
    if settings.gradient_checkpointing:
        net.dfgn.enable_gradient_checkpointing()
    return net.to(device).train()
