"""The network that a run trains, with its text encoder: made here and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rdtf.batch import ClipBatch
from rdtf.codec import Codec
from rdtf.model import DFGN
from rdtf.text import TextEncoder, load_text_encoder
from rdtf.train.settings import TrainSettings


class Network(nn.Module):
    """Network and text encoder as one module: what a pass of training calls."""

    def __init__(self, dfgn: DFGN, text: TextEncoder) -> None:
        super().__init__()
        self.dfgn, self.text = dfgn, text

    def forward(self, batch: ClipBatch, noisy: Tensor, timestep: Tensor) -> Tensor:
        """The output for noised clips of the batch, ``(b, c, f, h, w)``."""
        text = self.dfgn.text_context(*self.text(batch.text))
        return self.dfgn(noisy, timestep, batch.video, batch.known, batch.valid, batch.loop, text)


def build_network(settings: TrainSettings, codec: Codec, device: torch.device) -> Network:
    """The network of a new run on ``device``; its initial weights are a function of the seed.

    Nothing after it draws from torch's global generator.
    """
    torch.manual_seed(settings.seed)
    arguments = settings.network()
    text = load_text_encoder(settings.text, arguments["text_width"]).to(device)
    arguments |= {"latent_channels": codec.latent_channels, "text_width": text.width}
    dfgn = DFGN(**arguments).to(device)
    if settings.gradient_checkpointing:
        dfgn.enable_gradient_checkpointing()
    return Network(dfgn, text)
