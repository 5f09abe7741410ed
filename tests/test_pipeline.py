from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from rdtf.copy_decoder import CopyDecoder
from rdtf.diffusion.objective import Objective
from rdtf.evaluate.frames import half_transparent
from rdtf.loading import load_pipeline
from rdtf.model.adapter import AdaptedDFGN
from rdtf.pipeline import StickerPipeline
from rdtf.pixels import fit, premultiply, sharpen_edges, to_frames, to_tensor

SIZE = 8


@pytest.fixture(scope="session")
def make_pipeline(make_pipeline: Callable[..., StickerPipeline]) -> Callable[..., StickerPipeline]:
    return partial(make_pipeline, SIZE, steps=3)


@pytest.fixture(scope="session")
def pipeline(make_pipeline) -> StickerPipeline:
    return make_pipeline()


def picture(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype=np.uint8)


def same(a, b) -> bool:
    return all(np.array_equal(x.frames, y.frames) for x, y in zip(a.stickers, b.stickers, strict=True))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("image_guidance", [1.0, 2.0])
def test_given_frames_come_back_exactly(pipeline: StickerPipeline, guidance: float, image_guidance: float):
    given = {0: picture(0), 3: picture(1), 4: picture(2)}
    out = pipeline(
        ["a cat", ""],
        frames=given,
        num_frames=6,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
    )
    for sticker in out.stickers:
        assert sticker.frames.shape == (6, SIZE, SIZE, 4)
        for position, frame in given.items():
            assert np.array_equal(sticker.frames[position], frame)
        assert sticker.attributes["given"] == [0, 3, 4]


def test_each_prompt_with_frames_of_its_own(pipeline: StickerPipeline):
    prompts, frames = ["a cat", "a dog", ""], [{0: picture(0)}, {}, {1: picture(1), 3: picture(2)}]
    together = pipeline(prompts, frames=frames, num_frames=4, num_stickers_per_prompt=2, seed=5).stickers
    for i, sticker in enumerate(together):
        prompt, given = prompts[i // 2], frames[i // 2]
        alone = pipeline(prompt, frames=given, num_frames=4, seed=5 + i).stickers[0]
        assert sticker.attributes["given"] == sorted(given) and sticker.caption == prompt
        assert all(np.array_equal(sticker.frames[position], frame) for position, frame in given.items())
        difference = np.abs(sticker.frames.astype(int) - alone.frames)
        assert difference.max() <= 1  # rounding of another batch size
    with pytest.raises(ValueError, match="3 prompts with 2 mappings of given frames"):
        pipeline(prompts, frames=frames[:2], num_frames=4)


@pytest.mark.parametrize("size", [SIZE, 20, 5])
def test_given_frames_of_any_size_are_fitted_to_the_output(pipeline: StickerPipeline, size: int):
    frame = np.random.default_rng(0).integers(0, 256, (10, 13, 4), dtype=np.uint8)
    images = {0: Image.fromarray(frame, "RGBA"), 2: Image.fromarray(frame[..., :3], "RGB"), 3: picture(1, size)}
    sticker = pipeline(frames=images, num_frames=4, output_size=size).stickers[0]
    assert sticker.size == (size, size)
    assert np.array_equal(sticker.frames[0], fit(frame[None], size)[0])
    opaque = np.dstack([frame[..., :3], np.full((10, 13), 255, np.uint8)])
    assert np.array_equal(sticker.frames[2], fit(opaque[None], size)[0])
    assert np.array_equal(sticker.frames[3], images[3])


def test_same_seed_same_pixels(pipeline: StickerPipeline):
    first, torch_state = pipeline("a cat", seed=3), torch.get_rng_state()
    torch.manual_seed(77)
    assert same(first, pipeline("a cat", seed=3))
    assert not same(first, pipeline("a cat", seed=4))
    assert not same(first, pipeline("a dog", seed=3))
    torch.set_rng_state(torch_state)
    pipeline("a cat")
    assert torch.equal(torch.get_rng_state(), torch_state)  # the process's own stream is left alone


@pytest.mark.parametrize("num_frames", [1, 2, 7, 16])
def test_any_number_of_frames(pipeline: StickerPipeline, num_frames: int):
    sticker = pipeline("a cat", num_frames=num_frames, num_inference_steps=1, fps=5).stickers[0]
    assert sticker.frames.shape == (num_frames, SIZE, SIZE, 4)
    assert sticker.durations.tolist() == [200.0] * num_frames


def test_saved_and_loaded_without_a_network(pipeline: StickerPipeline, tmp_path: Path, monkeypatch):
    pipeline.save_pretrained(tmp_path / "run" / "pipeline")

    def refuse(*_args, **_kwargs):
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    arguments = {"frames": {0: picture(0)}, "num_frames": 4, "seed": 5}
    expected = pipeline("a cat", **arguments)
    for loaded in (
        load_pipeline(tmp_path / "run" / "pipeline"),
        load_pipeline(tmp_path / "run"),
        load_pipeline(str(tmp_path / "run")),
    ):
        assert loaded.config.sample_size == SIZE
        assert loaded.config.steps == 3
        assert same(loaded("a cat", **arguments), expected)


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no trained model.*model_index\.json"):
        load_pipeline(tmp_path)


def test_transparency_goes_through(make_pipeline: Callable[..., StickerPipeline]):
    """A network that predicts the clip and adds nothing cross-fades what is given; what is empty in both stays so."""
    a, b = picture(0), picture(1)
    a[:, :4, 3] = b[:, :4, 3] = 0
    a[:, 4:, 3] = b[:, 4:, 3] = 255
    pipe = make_pipeline(awake=False, objective=Objective(prediction="sample"))
    frames = pipe(frames={0: a, 2: b}, num_frames=3).stickers[0].frames
    assert not frames[1, :, :4].any()
    assert (frames[1, :, 4:, 3] == 255).all()
    middle = (a[:, 4:, :3].astype(int) + b[:, 4:, :3]) / 2
    assert np.abs(frames[1, :, 4:, :3] - middle).max() <= 1


def test_loop_makes_time_circular(make_pipeline: Callable[..., StickerPipeline], pipeline: StickerPipeline):
    a, b = picture(0), picture(1)
    a[..., 3] = b[..., 3] = 255
    fresh = make_pipeline(awake=False, objective=Objective(prediction="sample"))
    open_, circular = (fresh(frames={0: a, 4: b}, num_frames=8, loop=x).stickers[0].frames for x in (False, True))
    assert np.abs(open_[6].astype(int) - b).max() <= 1
    assert np.abs(circular[6].astype(int) - (a.astype(int) + b) / 2).max() <= 1
    assert not same(pipeline("a cat", loop=True), pipeline("a cat", loop=False))
    assert pipeline("a cat", loop=True).stickers[0].attributes["loops"] is True
    both = pipeline(["a cat", "a cat"], loop=[True, False], num_stickers_per_prompt=2).stickers
    assert [sticker.attributes["loops"] for sticker in both] == [True, True, False, False]
    for sticker, looping in zip(both, (True, True, False, False), strict=True):
        [alone] = pipeline("a cat", loop=looping, seed=sticker.attributes["seed"]).stickers
        assert np.abs(sticker.frames.astype(int) - alone.frames).max() <= 1
    with pytest.raises(ValueError, match="1 prompts with 2 values of loop"):
        pipeline("a cat", loop=[True, False])


def test_the_habits_of_diffusers(pipeline: StickerPipeline):
    call = {"num_frames": 2, "num_inference_steps": 1}
    first = pipeline("a cat", generator=torch.Generator().manual_seed(3), num_stickers_per_prompt=2, **call)
    assert [[image.mode for image in clip] for clip in first.frames] == [["RGBA", "RGBA"]] * 2
    assert np.array_equal(np.asarray(first.frames[0][1]), first.stickers[0].frames[1])
    assert not np.array_equal(first.stickers[0].frames, first.stickers[1].frames)
    again = pipeline("a cat", generator=torch.Generator().manual_seed(3), **call)
    assert np.array_equal(again.stickers[0].frames, first.stickers[0].frames)
    seeds = [sticker.attributes["seed"] for sticker in first.stickers]
    assert np.array_equal(pipeline("a cat", seed=seeds[1], **call).stickers[0].frames, first.stickers[1].frames)
    with pytest.raises(ValueError, match="1 stickers with 2 generators"):
        pipeline("a cat", generator=[torch.Generator()] * 2, **call)

    video = pipeline("a cat", output_type="np", seed=seeds[0], **call).frames
    assert video.shape == (1, 2, SIZE, SIZE, 4) and np.array_equal(video[0], first.stickers[0].frames / np.float32(255))
    tensor = pipeline("a cat", output_type="pt", seed=seeds[0], **call).frames
    assert torch.equal(tensor.movedim(2, -1), torch.from_numpy(video))
    with pytest.raises(ValueError, match="output_type"):
        pipeline("a cat", output_type="latent", **call)

    plain, away = (pipeline("a cat", negative_prompt=n, guidance_scale=3.0, **call) for n in (None, "a dog"))
    assert not np.array_equal(plain.stickers[0].frames, away.stickers[0].frames)
    same = pipeline("a cat", negative_prompt="a cat", guidance_scale=3.0, **call)
    alone = pipeline("a cat", guidance_scale=1.0, **call)  # away from itself: the guidance has nowhere to lead
    assert np.abs(premultiply(same.stickers[0].frames).astype(int) - premultiply(alone.stickers[0].frames)).max() <= 1


def test_a_callback_as_diffusers_calls_it(pipeline: StickerPipeline):
    call = {"num_frames": 2, "num_inference_steps": 3}
    seen: list[tuple] = []

    def watch(pipe, index, timestep, kwargs):
        seen.append((pipe is pipeline, index, float(timestep), kwargs["latents"].shape))
        return kwargs

    watched = pipeline(["a cat", "a dog"], batch_size=2, callback_on_step_end=watch, **call)
    assert [index for _, index, _, _ in seen] == [0, 1, 2]
    assert [level for _, _, level, _ in seen] == pytest.approx([1000, 2000 / 3, 1000 / 3], rel=1e-3)
    assert all(own and shape == (2, 16, 2, SIZE // 2, SIZE // 2) for own, _, _, shape in seen)
    assert same(watched, pipeline(["a cat", "a dog"], batch_size=2, **call))

    def emptied(pipe, index, timestep, kwargs):
        return {"latents": torch.full_like(kwargs["latents"], -1.0)} if index == 2 else {}

    assert not pipeline("a cat", callback_on_step_end=emptied, **call).stickers[0].frames.any()

    def cancel(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline("a cat", callback_on_step_end=cancel, **call)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_give_nearly_the_same_sticker(pipeline: StickerPipeline, tmp_path: Path, dtype: torch.dtype):
    given = {1: picture(0)}
    wanted = pipeline("a cat", frames=given, num_frames=3)
    pipeline.save_pretrained(tmp_path / "model")
    moved = load_pipeline(tmp_path / "model").to(dtype)
    assert moved.dtype == dtype and {p.dtype for p in moved.dfgn.parameters()} == {dtype}
    made = moved("a cat", frames=given, num_frames=3).stickers[0]
    assert np.array_equal(made.frames[1], given[1])
    difference = np.abs(premultiply(made.frames).astype(int) - premultiply(wanted.stickers[0].frames))
    assert difference.mean() < 4
    assert same(moved.to(torch.float32)("a cat", num_frames=2), moved("a cat", num_frames=2))


def test_a_copy_decoder_takes_the_pixels_of_larger_given_frames(make_pipeline: Callable[..., StickerPipeline]):
    """A new copy decoder weighs the given frame's pixels nine to one score of e against its own."""
    pipe = make_pipeline(copy_decoder=CopyDecoder(widths=(8, 8), references=1))
    side = 4 * pipe.config.sample_size
    large = np.zeros((side, side, 4), np.uint8)
    large[::2] = 255  # stripes that no smaller picture can show
    made = pipe(frames={0: large}, num_frames=2, output_size=side).stickers[0].frames
    assert np.array_equal(made[0], large)
    contrast = premultiply(made[1]).astype(int)[::2, ..., 3] - premultiply(made[1])[1::2, ..., 3]
    assert contrast.mean() == pytest.approx(255 * 9 / (9 + np.e), abs=8)
    small = pipe(frames={0: large}, num_frames=2).stickers[0].frames
    plain = make_pipeline()(frames={0: large}, num_frames=2, output_size=side).stickers[0].frames
    assert small.shape[1] == pipe.config.sample_size and plain.shape == made.shape
    contrast = premultiply(plain[1]).astype(int)[::2, ..., 3] - premultiply(plain[1])[1::2, ..., 3]
    assert abs(contrast.mean()) < 20
    words = pipe("a cat", num_frames=2, output_size=side, still_first=True).stickers[0]
    assert words.size == (side, side)


def test_other_schedulers_take_the_place_or_are_refused(make_pipeline: Callable[..., StickerPipeline], tmp_path: Path):
    given = {0: picture(0)}
    pipe = make_pipeline(objective=Objective(path="ddpm", prediction="epsilon"))
    config = pipe.scheduler.config
    for kind in (EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = kind.from_config(config)
        first = pipe(["a cat", "a dog"], frames=given, num_frames=2, seed=1)
        assert np.array_equal(first.stickers[1].frames[0], given[0])
        assert same(first, pipe(["a cat", "a dog"], frames=given, num_frames=2, seed=1))
        alone = pipe("a dog", frames=given, num_frames=2, seed=2).stickers[0]
        assert np.array_equal(alone.frames, first.stickers[1].frames)
    pipe.save_pretrained(tmp_path / "swapped")
    assert same(load_pipeline(tmp_path / "swapped")("a cat", num_frames=2), pipe("a cat", num_frames=2))
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler does not sample this model: .* ddpm path"):
        pipe("a cat")
    pipe.save_pretrained(tmp_path / "wrong")
    with pytest.raises(ValueError, match="scheduler_config.json: FlowMatchEulerDiscreteScheduler does not sample"):
        load_pipeline(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ({}, 1),
        ({"prompt": "a cat", "guidance_scale": 1.0}, 1),
        ({"prompt": "a cat", "guidance_scale": 2.0}, 2),
        ({"frames": {0: picture(0)}, "image_guidance_scale": 1.0}, 1),
        ({"frames": {0: picture(0)}, "image_guidance_scale": 2.0}, 2),
        ({"prompt": "a cat", "frames": {0: picture(0)}, "guidance_scale": 2.0, "image_guidance_scale": 1.0}, 2),
        ({"prompt": "a cat", "frames": {0: picture(0)}, "guidance_scale": 3.0, "image_guidance_scale": 2.0}, 3),
    ],
)
def test_no_pass_is_wasted(pipeline: StickerPipeline, monkeypatch, arguments: dict, calls: int):
    seen = 0
    forward = pipeline.dfgn.forward

    def counted(*args, **kwargs):
        nonlocal seen
        seen += len(args[0])  # all passes are one batch
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipeline.dfgn, "forward", counted)
    steps: list[tuple[int, int]] = []
    pipeline(**arguments, num_inference_steps=4, on_step=lambda done, of: steps.append((done, of)))
    assert seen == 4 * calls
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_sticker_is_the_same_alone_and_among_many(pipeline: StickerPipeline):
    call = {"num_frames": 3, "guidance_scale": 3.0, "frames": {1: picture(0)}}
    captions = ["a cat", "a red dog that waves both arms", ""]
    many = pipeline(captions, num_stickers_per_prompt=2, seed=7, **call).stickers
    assert [sticker.caption for sticker in many] == [caption for caption in captions for _ in range(2)]
    for i, sticker in enumerate(many):
        alone = pipeline(sticker.caption, seed=7 + i, **call).stickers[0]
        assert np.array_equal(sticker.frames, alone.frames)
        assert sticker.attributes["seed"] == 7 + i


def test_stickers_are_made_a_few_at_a_time(pipeline: StickerPipeline, monkeypatch):
    sizes = []
    forward = pipeline.dfgn.forward

    def watched(*args, **kwargs):
        sizes.append(len(args[0]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(pipeline.dfgn, "forward", watched)
    steps: list[tuple[int, int]] = []
    out = pipeline(
        num_stickers_per_prompt=5,
        num_frames=2,
        num_inference_steps=2,
        batch_size=2,
        on_step=lambda done, of: steps.append((done, of)),
    )
    assert len(out.stickers) == 5 and sizes == [2, 2, 2, 2, 1, 1]
    assert steps == [(i, 6) for i in range(1, 7)]
    with pytest.raises(ValueError, match="batch_size must be 1"):
        pipeline(batch_size=0)


def test_a_still_first_begins_the_sticker(pipeline: StickerPipeline, monkeypatch):
    lengths = []
    forward = pipeline.dfgn.forward

    def watched(noisy, timestep, known_video, known, *rest):
        lengths.append((noisy.shape[2], known[-1].tolist()))
        return forward(noisy, timestep, known_video, known, *rest)

    monkeypatch.setattr(pipeline.dfgn, "forward", watched)
    arguments = {"num_inference_steps": 2, "guidance_scale": 2.0, "seed": 3}
    steps: list[tuple[int, int]] = []
    moving = pipeline(
        "a cat",
        num_frames=3,
        still_first=True,
        loop=True,
        on_step=lambda done, of: steps.append((done, of)),
        **arguments,
    ).stickers[0]
    assert lengths == [(1, [False])] * 2 + [(3, [True, False, False])] * 2
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    still = pipeline("a cat", num_frames=1, **arguments).stickers[0]
    assert np.array_equal(moving.frames[0], still.frames[0])
    assert moving.attributes["given"] == []
    lengths.clear()
    given = pipeline("a cat", frames={1: picture(0)}, num_frames=3, still_first=True, **arguments).stickers[0]
    assert [length for length, _ in lengths] == [3, 3] and np.array_equal(given.frames[1], picture(0))


def test_the_text_guides_between_two_noise_levels(make_pipeline, monkeypatch):
    whole, interval = make_pipeline(), make_pipeline(guidance_low=0.3, guidance_high=0.8)
    call = {"num_frames": 2, "num_inference_steps": 5, "guidance_scale": 3.0}
    clips = {}
    forward = interval.dfgn.forward

    def watched(noisy, timestep, *rest):
        clips[float(timestep[0])] = len(noisy)
        return forward(noisy, timestep, *rest)

    monkeypatch.setattr(interval.dfgn, "forward", watched)
    guided = interval("a cat", **call).stickers[0].frames
    assert [clips[level] for level in sorted(clips)] == [1, 2, 2, 2, 1]  # levels 200 to 1000
    assert not np.array_equal(guided, whole("a cat", **call).stickers[0].frames)
    unguided = {**call, "guidance_scale": 1.0}
    same = [pipe("a cat", **unguided).stickers[0].frames for pipe in (whole, interval)]
    assert np.array_equal(*same)


def test_clips_with_given_frames_have_their_own_guidance(make_pipeline, monkeypatch):
    pipe = make_pipeline(guidance=3.0, clip_guidance=1.0)
    passes = []
    forward = pipe.dfgn.forward

    def watched(noisy, *rest):
        passes.append((noisy.shape[2], len(noisy)))
        return forward(noisy, *rest)

    monkeypatch.setattr(pipe.dfgn, "forward", watched)
    call = {"num_frames": 2, "num_inference_steps": 1}
    pipe("a cat", still_first=True, **call)
    pipe("a cat", still_first=False, **call)
    pipe("a cat", frames={0: picture(0)}, **call)
    pipe("a cat", frames={0: picture(0)}, guidance_scale=3.0, **call)
    assert passes == [(1, 2), (2, 1), (2, 2), (2, 1), (2, 2)]


def test_narrower_edges_keep_colours_and_even_areas():
    soft = np.full((1, 6, 6, 4), (200, 80, 10, 0), np.uint8)
    soft[0, :, 1:, 3] = 60, 128, 195, 255, 255  # an edge of three pixels
    soft[0, 3:, :, 3] = 100  # glass
    sharp = to_frames(sharpen_edges(to_tensor(soft), 2.0))
    assert sharp[0, 0, :, 3].tolist() == [0, 56, 129, 199, 255, 255]
    assert (sharp[0, 4:, :, 3] == 100).all()
    seen = sharp[..., 3] > 0
    assert (np.abs(sharp[seen][:, :3].astype(int) - (200, 80, 10)) <= 3).all()
    assert np.array_equal(to_frames(sharpen_edges(to_tensor(soft), 1.0)), to_frames(to_tensor(soft)))


def test_edges_of_alpha_are_narrowed(make_pipeline):
    """Fewer half-transparent pixels in every size; given frames stay as they are."""
    plain, sharp = make_pipeline(), make_pipeline(edge_contrast=2.0)
    for size in (None, 48):
        call = {"frames": {0: picture(0)}, "num_frames": 2, "num_inference_steps": 2, "output_size": size}
        soft, hard = (pipe("a cat", **call).stickers[0].frames for pipe in (plain, sharp))
        assert np.array_equal(soft[0], hard[0])
        assert half_transparent(hard[1:]) < 0.9 * half_transparent(soft[1:])


def test_the_network_sees_what_it_was_trained_on(pipeline: StickerPipeline, monkeypatch):
    """Noise levels fall evenly from 1000, and given frames stand in the noisy clip at the level of the step."""
    seen = []
    forward = pipeline.dfgn.forward

    def watched(noisy, timestep, known_video, known, *rest):
        seen.append((noisy, float(timestep[0]), known_video, known))
        return forward(noisy, timestep, known_video, known, *rest)

    monkeypatch.setattr(pipeline.dfgn, "forward", watched)
    pipeline(frames={1: picture(0)}, num_frames=3, num_inference_steps=5, image_guidance_scale=1.0)
    assert [level for _, level, _, _ in seen] == pytest.approx([1000, 800, 600, 400, 200])
    noise = seen[0][0][:, :, 1]
    for noisy, level, known_video, known in seen:
        assert known.tolist() == [[False, True, False]]
        t = level / 1000
        assert torch.allclose(noisy[:, :, 1], (1 - t) * known_video[:, :, 1] + t * noise, atol=1e-4)


@pytest.mark.parametrize(("path", "start"), [("flow", 0.5), ("ddpm", 1.0)])
def test_with_a_similarity_prior_sampling_begins_at_its_level(make_pipeline, monkeypatch, path: str, start: float):
    """I2V-Adapter's: every unknown frame begins as the noised prior of the given one."""
    pipe = make_pipeline(objective=Objective(path=path, prediction="sample"))
    pipe.dfgn = tuned = AdaptedDFGN.around(pipe.dfgn, "i2v-adapter", {"start": start})
    priors, seen = [], []
    prior, forward = tuned.adapter.init_latents, tuned.forward
    monkeypatch.setattr(tuned.adapter, "init_latents", lambda *args: priors.append(prior(*args)) or priors[-1])

    def watched(noisy, timestep, *rest):
        seen.append((noisy, int(timestep[0])))
        return forward(noisy, timestep, *rest)

    monkeypatch.setattr(tuned, "forward", watched)
    arguments = {"num_frames": 3, "num_inference_steps": 4, "image_guidance_scale": 1.0, "seed": 3}
    pipe(**arguments)
    noise, levels = seen[0][0], [level for _, level in seen]
    assert len(levels) == 4 and not priors
    seen.clear()
    pipe(frames={0: picture(0)}, **arguments)
    assert [level for _, level in seen] == [level for level in levels if level <= 1000 * start] and len(priors) == 1
    if path == "flow":
        signal, sigma = 0.5, 0.5
    else:
        kept = float(pipe.scheduler.alphas_cumprod[levels[0]])
        signal, sigma = kept**0.5, (1 - kept) ** 0.5
    begun = seen[0][0][0, :, 1:]
    assert torch.allclose(begun, signal * priors[0][:, None] + sigma * noise[0, :, 1:], atol=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(prediction="v_prediction"),
        Objective(path="ddpm", prediction="epsilon"),
        Objective(path="ddpm", prediction="v_prediction"),
        Objective(path="ddpm", prediction="sample"),
    ],
    ids=lambda o: f"{o.path}-{o.prediction}",
)
def test_other_objectives_generate_too(make_pipeline: Callable[..., StickerPipeline], objective: Objective):
    eta = 1.0 if objective.path == "ddpm" else 0.0
    pipeline = make_pipeline(objective=objective, eta=eta)
    given = {1: picture(0)}
    first = pipeline(["a cat", "a dog"], frames=given, num_frames=3, seed=1)
    assert same(first, pipeline(["a cat", "a dog"], frames=given, num_frames=3, seed=1))
    assert np.array_equal(first.stickers[1].frames[1], given[1])
    alone = pipeline("a dog", frames=given, num_frames=3, seed=2).stickers[0].frames
    difference = premultiply(first.stickers[1].frames).astype(int) - premultiply(alone)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_frames": 0}, "num_frames must be 1 to 16"),
        ({"num_frames": 17}, "num_frames must be 1 to 16"),
        ({"frames": {8: picture(0)}}, r"\[8\].*clip of 8"),
        ({"frames": {-1: picture(0)}}, r"\[-1\]"),
        ({"frames": {0: picture(0)[..., :3]}}, "RGBA"),
        ({"frames": {0: picture(0).astype(float)}}, "uint8"),
        ({"prompt": []}, "prompts must be 1"),
        ({"num_inference_steps": 0}, "num_inference_steps must be 1"),
        ({"num_stickers_per_prompt": 0}, "num_stickers_per_prompt"),
        ({"fps": 0}, "fps must be"),
        ({"durations": [100.0] * 7}, "durations must be"),
        ({"output_size": 0}, "output_size must be 1 to 4096"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be -100.0 to 100.0, not nan"),
        ({"guidance_scale": float("inf")}, "not inf"),
        ({"seed": 1 << 64}, "seed must be"),
        ({"seed": (1 << 63) - 2, "num_stickers_per_prompt": 2}, "seed must be"),
    ],
)
def test_wrong_requests_are_named(pipeline: StickerPipeline, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        pipeline(**arguments)
