from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image, ImageDraw

from rdtf.codec import SHIPPED, Codec, DiffusersCodec, PixelCodec, StickerAutoencoder, load_codec
from rdtf.pixels import to_frames, to_tensor


def drawn_stickers(size: int, count: int = 6) -> np.ndarray:
    """Antialiased faces: an ellipse with eyes and a mouth on transparency, one colour each."""
    big = 4 * size
    frames = []
    for i in range(count):
        image = Image.new("RGBA", (big, big))
        draw = ImageDraw.Draw(image)
        colour = tuple(int(c) for c in np.random.default_rng(i).integers(40, 255, 3))
        draw.ellipse((big * 0.12, big * (0.15 + 0.02 * i), big * 0.88, big * 0.9), fill=(*colour, 255))
        for x in (0.35, 0.65):
            draw.ellipse((big * (x - 0.06), big * 0.4, big * (x + 0.06), big * 0.55), fill=(30, 20, 20, 255))
        draw.arc((big * 0.35, big * 0.5, big * 0.65, big * 0.75), 20, 160, fill=(30, 20, 20, 255), width=big // 24)
        frames.append(np.asarray(image.resize((size, size), Image.Resampling.BOX)))
    return np.stack(frames)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * ((a - b) / 2).square().mean().log10())


def random_frames(n: int = 3, h: int = 32, w: int = 32) -> torch.Tensor:
    frames = np.random.default_rng(0).integers(0, 256, (n, h, w, 4), dtype=np.uint8)
    return to_tensor(frames)


def scrambled(codec: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a random value, so that no zero-initialised path hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in codec.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))


def tiny_kl(**config: object) -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=3,
        **config,
    )


def tiny_tiny() -> AutoencoderTiny:
    torch.manual_seed(2)
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )


def every_codec() -> list[Codec]:
    ours = [StickerAutoencoder.for_downscale(4), StickerAutoencoder.for_downscale(8)]
    for codec in ours:
        scrambled(codec)
    wrapped = [DiffusersCodec.wrap(tiny_kl()), DiffusersCodec.wrap(tiny_tiny())]
    return [*ours, PixelCodec(1), PixelCodec(2), *wrapped]


CODECS = every_codec()
IDS = ["f4", "f8", "pixel", "pixel2", "kl", "tiny"]
EXPECTED = {"f4": (8, 4), "f8": (16, 8), "pixel": (4, 1), "pixel2": (16, 2), "kl": (6, 4), "tiny": (8, 8)}


@pytest.mark.parametrize("codec", CODECS, ids=IDS)
class TestContract:
    def test_shapes(self, codec: Codec, request: pytest.FixtureRequest) -> None:
        assert isinstance(codec, Codec)
        name = request.node.callspec.id
        assert (codec.latent_channels, codec.downscale) == EXPECTED[name]
        frames = random_frames(2, 32, 48)
        latents = codec.encode(frames)
        assert latents.shape == (2, codec.latent_channels, 32 // codec.downscale, 48 // codec.downscale)
        assert latents.dtype == torch.float32
        assert codec.decode(latents).shape == frames.shape
        assert codec.decode(latents).dtype == torch.float32

    def test_output_is_valid_premultiplied_rgba_for_any_latents(self, codec: Codec) -> None:
        latents = 3 * torch.randn(2, codec.latent_channels, 4, 4, generator=torch.Generator().manual_seed(0))
        out = codec.decode(latents)
        assert out.abs().max() <= 1
        assert (out[:, :3] <= out[:, 3:]).all()

    def test_deterministic_and_frames_are_independent(self, codec: Codec) -> None:
        frames = random_frames()
        latents = codec.encode(frames)
        assert not latents.requires_grad and not codec.decode(latents).requires_grad
        assert torch.equal(latents, codec.encode(frames))
        torch.testing.assert_close(codec.encode(frames[1:2]), latents[1:2])

    def test_wrong_input(self, codec: Codec, unchecked: None) -> None:
        with pytest.raises(ValueError, match="RGBA"):
            codec.encode(torch.zeros(1, 3, 32, 32))
        if codec.downscale > 1:
            with pytest.raises(ValueError, match=f"multiples of {codec.downscale}"):
                codec.encode(torch.zeros(1, 4, 32, 33))

    def test_save_and_load_keep_everything(self, codec: Codec, tmp_path: Path) -> None:
        codec.save_pretrained(tmp_path / "codec")  # type: ignore[attr-defined]
        again = load_codec(tmp_path / "codec")
        assert type(again) is type(codec)
        assert again.fingerprint == codec.fingerprint
        frames = random_frames()
        latents = codec.encode(frames)
        assert torch.equal(again.encode(frames), latents)
        assert torch.equal(again.decode(latents), codec.decode(latents))


def test_fingerprints_differ_and_follow_the_weights() -> None:
    prints = {codec.fingerprint for codec in CODECS}
    assert len(prints) == len(CODECS)
    codec = StickerAutoencoder.for_downscale(4)
    before = codec.fingerprint
    assert before == codec.fingerprint
    with torch.no_grad():
        codec.latent_mean[0] += 0.5
    assert codec.fingerprint != before


def test_pixels_are_exact() -> None:
    frames = random_frames()
    for patch in (1, 2):
        codec = PixelCodec(patch)
        torch.testing.assert_close(codec.decode(codec.encode(frames)), frames, rtol=0, atol=0)
    assert torch.equal(PixelCodec(1).encode(frames), frames)
    with pytest.raises(ValueError, match="choose 1 or 2"):
        PixelCodec(3)


def test_sticker_autoencoder_sizes() -> None:
    millions = {d: sum(p.numel() for p in StickerAutoencoder.for_downscale(d).parameters()) / 1e6 for d in (4, 8)}
    assert millions[4] == pytest.approx(0.95, abs=0.1)
    assert millions[8] == pytest.approx(2.75, abs=0.1)
    with pytest.raises(ValueError, match="choose 4 or 8"):
        StickerAutoencoder.for_downscale(16)
    with pytest.raises(ValueError, match="equally long"):
        StickerAutoencoder(widths=(8, 8), encoder_blocks=(1,), decoder_blocks=(1, 1))


class TestDiffusers:
    @pytest.mark.parametrize("make", [tiny_kl, tiny_tiny])
    def test_alpha_and_colour_never_mix(self, make: object) -> None:
        codec = DiffusersCodec.wrap(make())  # type: ignore[operator]
        frames = random_frames()
        half = codec.latent_channels // 2
        other_colour = frames.clone()
        other_colour[:, :3] = -1
        latents, changed = codec.encode(frames), codec.encode(other_colour)
        assert torch.equal(latents[:, half:], changed[:, half:])
        assert not torch.equal(latents[:, :half], changed[:, :half])
        assert torch.equal(codec.decode(latents)[:, 3], codec.decode(changed * 1.0)[:, 3])
        # A grey picture is its own alpha picture: both halves see the same three planes.
        opaque_white = torch.ones(1, 4, 32, 32)
        colour, alpha = codec.encode(opaque_white).chunk(2, dim=1)
        torch.testing.assert_close(colour, alpha)

    def test_latents_are_the_wrapped_models_mode_shifted_and_scaled(self) -> None:
        autoencoder = tiny_kl(scaling_factor=0.5, shift_factor=0.25)
        frames = random_frames()
        with torch.no_grad():
            mode = autoencoder.encode(frames[:, :3]).latent_dist.mode()
        codec = DiffusersCodec.wrap(autoencoder)
        torch.testing.assert_close(codec.encode(frames)[:, :3], (mode - 0.25) * 0.5)

    def test_latent_statistics_of_each_channel(self) -> None:
        mean, std = [0.1, -0.2, 0.3], [1.0, 2.0, 4.0]
        plain = DiffusersCodec.wrap(tiny_kl(scaling_factor=1.0))
        codec = DiffusersCodec.wrap(tiny_kl(scaling_factor=1.0, latents_mean=mean, latents_std=std))
        frames = random_frames()
        expected = (plain.encode(frames)[:, 3:] - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(codec.encode(frames)[:, 3:], expected)
        torch.testing.assert_close(codec.decode(codec.encode(frames)), plain.decode(plain.encode(frames)))

    @pytest.mark.parametrize("make", [tiny_kl, tiny_tiny])
    def test_a_plain_folder_loads_without_network(
        self, make: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        autoencoder = make()  # type: ignore[operator]
        autoencoder.save_pretrained(tmp_path / "vae")
        codec = load_codec(str(tmp_path / "vae"))
        assert isinstance(codec, DiffusersCodec)
        assert codec.fingerprint == DiffusersCodec.wrap(autoencoder).fingerprint
        assert not any(parameter.requires_grad for parameter in codec.parameters())

    def test_a_model_that_is_no_autoencoder(self, tmp_path: Path) -> None:
        from diffusers import UNet2DModel

        unet = UNet2DModel(
            block_out_channels=(8,),
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            norm_num_groups=4,
            layers_per_block=1,
        )
        unet.save_pretrained(tmp_path / "unet")
        with pytest.raises(ValueError, match="'UNet2DModel' is no autoencoder"):
            load_codec(tmp_path / "unet")


class TestLoad:
    def test_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"'f4' or 'f8'.*'pixel'"):
            load_codec("f5")
        with pytest.raises(ValueError, match="no codec"):
            load_codec(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"_class_name": "Nonsense"}))
        with pytest.raises(ValueError, match="'Nonsense'"):
            load_codec(tmp_path)

    def test_pixel_names(self) -> None:
        assert load_codec("pixel").downscale == 1
        assert load_codec("pixel2").downscale == 2

    def test_a_hub_id_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*_: object, **__: object) -> None:
            raise OSError("offline")

        monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
        with pytest.raises(ValueError, match=r"'nobody/nothing'.*offline"):
            load_codec("nobody/nothing")


@pytest.mark.parametrize(("name", "size", "floor"), [("f4", 64, 30.0), ("f8", 128, 29.5)])
class TestShipped:
    def test_reconstructs_drawn_stickers(self, name: str, size: int, floor: float) -> None:
        codec = load_codec(name)
        frames = to_tensor(drawn_stickers(size))
        out = codec.decode(codec.encode(frames))
        assert psnr(out, frames) > floor
        assert (to_frames(out)[:, 0, 0] == 0).all()  # transparent corners are perfectly so

    def test_latents_are_normalised(self, name: str, size: int, floor: float) -> None:
        latents = load_codec(name).encode(to_tensor(drawn_stickers(size, 12)))
        assert latents.mean().abs() < 0.5
        assert 0.5 < latents.std() < 2

    def test_decoder_forgives_small_errors(self, name: str, size: int, floor: float) -> None:
        codec = load_codec(name)
        frames = to_tensor(drawn_stickers(size))
        latents = codec.encode(frames)
        noisy = latents + 0.05 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
        assert psnr(codec.decode(noisy), frames) > floor - 1.5

    def test_storage_in_half_precision_and_small(self, name: str, size: int, floor: float) -> None:
        folder = Path(__file__).parents[1] / "src" / "rdtf" / SHIPPED[name]
        assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) < 6e6
        codec = load_codec(name)
        assert codec.dtype == torch.float32  # type: ignore[attr-defined]
        weights = codec.state_dict()  # type: ignore[attr-defined]
        assert all(torch.equal(value, value.half().float()) for value in weights.values())
