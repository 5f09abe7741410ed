from __future__ import annotations

import copy
import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rdtf.batch import ClipBatch
from rdtf.codec import load_codec
from rdtf.curriculum import Curriculum, SampleLoss
from rdtf.data.augment import FIRST_AUGMENTED, Augmentation
from rdtf.data.dataset import StickerDataset
from rdtf.data.keyframes import CLUSTER_COUNTS, EXTRACTIONS, Extraction, extract_frames
from rdtf.masks import PATTERNS, PREDICTION, Task, unknown_counts
from rdtf.text import BuiltinTextEncoder, KnownCaptions, TextFeatures, caption_words
from rdtf.train.latents import LatentCache
from rdtf.train.settings import recipe_settings
from rdtf.train.source import ClipSource, RankSlice, TextCache, known_captions

TEXT = BuiltinTextEncoder(width=16, buckets=64, table_width=8)


@pytest.fixture(scope="module")
def latents(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> LatentCache:
    dataset = StickerDataset(tiny_data, "train")
    return LatentCache(dataset, load_codec("pixel2"), tmp_path_factory.mktemp("latents"), num_augmented=1)


@pytest.fixture
def make_source(latents: LatentCache) -> Callable[..., ClipSource]:
    def make(
        curriculum: str = "none",
        task_weights: dict[str, float] | None = None,
        whole_captioned: bool = False,
        **overrides,
    ) -> ClipSource:
        settings = recipe_settings("fast", **{"batch_size": 8, "frames": 6, "num_augmented": 1, **overrides})
        curricula = Curriculum(curriculum, task_weights)
        return ClipSource(latents, TEXT, curricula, settings, whole_captioned=whole_captioned)

    return make


def assert_same(a: list[ClipBatch], b: list[ClipBatch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for name in ("video", "valid", "known", "loop"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.tasks, one.ids) == (other.tasks, other.ids)
        for x, y in zip(one.text, other.text, strict=True):
            assert all(np.array_equal(p, q) for p, q in zip(x.arrays, y.arrays, strict=True))


@pytest.mark.parametrize(("frames", "stickers", "groups"), [(6, 8, 1), (16, 8, 1), (16, 16, 2)])
def test_batches_are_what_they_promise(make_source: Callable[..., ClipSource], frames: int, stickers: int, groups: int):
    source = make_source(still_fraction=0.25, frames=frames, batch_size=stickers)
    moving, everything = _ids(source, source.moving), _ids(source, source.everything)
    for step in range(10):
        batches = source.batches(step, 0.5)
        assert sum(len(batch) for batch in batches) == stickers
        assert all(sticker in everything for batch in batches if batch.video.shape[2] == 1 for sticker in batch.ids)
        assert sum(len(batch) for batch in batches if batch.video.shape[2] == 1) == stickers / 4
        assert len(batches) == 1 + groups
        # Large steps part short clips from long ones, in groups of one size.
        clips = [batch.valid.sum(1) for batch in batches if batch.video.shape[2] > 1]
        assert len({len(lengths) for lengths in clips}) == 1
        assert all(a.max() <= b.min() for a, b in pairwise(clips))
        assert all(sticker in moving for batch in batches if batch.video.shape[2] > 1 for sticker in batch.ids)
        for batch in batches:
            b, c, f, h, w = batch.video.shape
            assert (b, c, h, w) == (len(batch), 16, 8, 8)
            assert f <= frames
            lengths = batch.valid.sum(1)
            assert torch.equal(batch.valid, torch.arange(f) < lengths[:, None])
            assert lengths.max() == f
            assert not batch.video.movedim(1, 2)[~batch.valid].any()
            assert batch.video.movedim(1, 2)[batch.valid].flatten(1).abs().amax(1).min() > 0
            assert not (batch.known & ~batch.valid).any()
            for task, n, unknown in zip(batch.tasks, lengths, (batch.valid & ~batch.known).sum(1), strict=True):
                assert int(unknown) in unknown_counts(task, int(n))


def test_without_short_clips_all_clips_are_whole(make_source: Callable[..., ClipSource]):
    source = make_source(frames=6, batch_size=8, short_clips=False, still_fraction=0.0, cluster_fraction=0.0)
    seen = set()
    for step in range(20):
        for batch in source.batches(step, 0.5):
            assert batch.valid.all() and batch.valid.shape[1] == 6
            seen.update(batch.ids)
    long_enough = {source.latents.record(i).id for i in range(len(source.latents)) if source.latents.num_frames[i] >= 6}
    assert seen == long_enough
    with pytest.raises(ValueError, match="set still_fraction=0 and cluster_fraction=0"):
        make_source(short_clips=False)
    short = copy.copy(source.latents)
    short.num_frames = np.minimum(short.num_frames, 5)
    with pytest.raises(ValueError, match="no sticker has 6 frames"):
        ClipSource(short, TEXT, source.curriculum, source.settings)


def test_captioned_clips_begin_where_the_typical_frame_is(make_source: Callable[..., ClipSource], latents: LatentCache):
    source = make_source(whole_captioned=True, still_fraction=0.0, frames=6, batch_size=8, caption_dropout=0.3)
    numbers = {latents.record(i).id: i for i in range(len(latents))}
    captioned, other = 0, 0
    for batch in (batch for step in range(20) for batch in source.batches(step, 0.5)):
        for i, (name, task, text) in enumerate(zip(batch.ids, batch.tasks, batch.text, strict=True)):
            count = int(batch.valid[i].sum())
            if count == 1:
                continue
            record = latents.record(numbers[name])
            plan = source.captioned_clip(numbers[name])
            wanted = latents.clip(numbers[name], plan.frames, plan.variant)
            same = count == len(plan.frames) and torch.equal(batch.video[i, :, :count], wanted)
            if task in (Task.TEXT_TO_VIDEO, Task.IMAGE_TEXT_TO_VIDEO) and len(text.arrays[0]):
                captioned += 1
                assert same and bool(batch.loop[i]) == record.loops
            else:
                other += not same
    assert captioned > 10 and other > 10


@pytest.mark.parametrize("extraction", EXTRACTIONS[1:])  # the first one draws
def test_clips_are_extracted_as_the_settings_say(
    make_source: Callable[..., ClipSource], latents: LatentCache, extraction: Extraction
):
    source = make_source(extraction=extraction, cluster_fraction=1.0, still_fraction=0.0, frames=8, batch_size=4)
    numbers = {latents.record(i).id: i for i in range(len(latents))}
    for batch in (batch for step in range(5) for batch in source.batches(step, 0.5)):
        for i, name in enumerate(batch.ids):
            sticker, count = numbers[name], int(batch.valid[i].sum())
            possible = set()
            for k, labels in zip(CLUSTER_COUNTS, map(np.asarray, latents.record(sticker).clusters), strict=True):
                possible.add(tuple(extract_frames(extraction, k, labels, np.random.default_rng(0)).tolist()))
            drawn = batch.video[i, :, :count]
            variants = range(2 + latents.num_augmented)
            clips = [(latents.clip(sticker, frames, v), len(frames)) for frames in possible for v in variants]
            turned = [clip.roll(by, 1) for clip, length in clips if length == count for by in range(length)]
            assert any(torch.equal(drawn, clip) for clip in turned)


def test_kept_text_features_are_bounded_by_bytes_and_batches_the_same(
    make_source: Callable[..., ClipSource], monkeypatch: pytest.MonkeyPatch
):
    whole = [make_source().batches(step, 0.5) for step in range(3)]
    monkeypatch.setattr("rdtf.train.source._TEXT_BYTES", 2000)
    source = make_source()
    for step, batches in enumerate(whole):
        assert_same(source.batches(step, 0.5), batches)
        assert 0 < source.text.bytes <= 2000


def test_large_text_features_take_no_more_memory_than_small_ones():
    """States of large encoders take a thousand times the bytes of hashed words."""

    class Wide(BuiltinTextEncoder):
        def prepare(self, captions: Sequence[str]) -> list[TextFeatures]:
            return [TextFeatures((np.full((77, 1024), len(caption), np.float16),)) for caption in captions]

    cache = TextCache(Wide(width=16, buckets=64, table_width=8), 1 << 20)
    for step in range(20):
        features = cache([f"caption {step}", "a cat"])
        assert [f.arrays[0][0, 0] for f in features] == [len(f"caption {step}"), 5]
        assert sum(f.arrays[0].nbytes for f in cache._kept.values()) <= cache.bytes <= 1 << 20
    assert len(cache._kept) == 6
    cache([f"all at once {i}" for i in range(20)])
    assert cache.bytes <= 1 << 20


def test_padding_is_of_use(make_source: Callable[..., ClipSource]):
    source = make_source(frames=16, batch_size=14, still_fraction=0.0)
    assert any(not batch.valid.all() for step in range(5) for batch in source.batches(step, 0.5))


def test_batches_are_a_function_of_seed_and_step(make_source: Callable[..., ClipSource]):
    first = make_source()
    in_order = [first.batches(step, 0.3) for step in range(4)]
    other = make_source()
    assert_same(other.batches(3, 0.3), in_order[3])  # whatever came before
    assert_same(other.batches(1, 0.3), in_order[1])
    ids = [
        [i for batch in batches for i in batch.ids] for batches in (in_order[1], make_source(seed=1).batches(1, 0.3))
    ]
    assert ids[0] != ids[1]


def test_batches_depend_on_the_curriculums_state(make_source: Callable[..., ClipSource]):
    source, again = (make_source("adaptive") for _ in range(2))
    for loss in np.geomspace(9, 1, 50):
        source.curriculum.observe([SampleLoss(Task.FORWARD, 2, 0.5, loss)])
    tasks = [[t for s in range(30) for batch in x.batches(s, 0.5) for t in batch.tasks] for x in (source, again)]
    assert tasks[0] != tasks[1]
    again.curriculum.load_state_dict(source.curriculum.state_dict())
    for step in range(5):
        assert_same(source.batches(step, 0.5), again.batches(step, 0.5))


def _ids(source: ClipSource, stickers: np.ndarray) -> set[str]:
    return {source.latents.record(i).id for i in stickers.tolist()}


def _drawn(source: ClipSource, step: int, single: bool | None = None) -> list[str]:
    """The step's stickers; with ``single``, those shown as a single frame or those that are not."""
    batches = source.batches(step, 0.5)
    return [i for batch in batches if single in (None, batch.video.shape[2] == 1) for i in batch.ids]


@pytest.mark.parametrize("batch_size", [7, 8])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_every_sticker_comes_once_an_epoch(make_source: Callable[..., ClipSource], batch_size: int, share: float):
    source = make_source(batch_size=batch_size, still_fraction=share)
    singles = round(batch_size * share)
    kinds = [(True, 20, singles), (False, 14, batch_size - singles)] if share else [(None, 20, batch_size)]
    for single, count, a_step in kinds:
        visits: Counter = Counter()
        for step in range(24):
            drawn = _drawn(source, step, single)
            assert len(drawn) == a_step
            visits.update(drawn)
            whole_passes = (step + 1) * a_step // count
            assert len(visits) == count or not whole_passes
            assert whole_passes <= min(visits.values()) or len(visits) < count
            assert max(visits.values()) <= whole_passes + 1


def test_typical_stills_are_one_unaltered_frame_a_sticker(make_source: Callable[..., ClipSource]):
    source = make_source(batch_size=20, still_fraction=0.5, still_frame="typical", num_augmented=2)
    shown: dict[str, list] = {}
    for step in range(8):
        for batch in source.batches(step, 0.5):
            if batch.video.shape[2] == 1:
                for sticker, video in zip(batch.ids, batch.video, strict=True):
                    shown.setdefault(sticker, []).append(video[:, 0])
    assert len(shown) == 20
    for number in range(len(source.latents)):
        first, *others = shown[source.latents.record(number).id]
        assert others and all(torch.equal(first, other) for other in others)
        frames = source.latents.frame_features(number)
        own = first.flatten().numpy()
        assert min(np.abs(frames - own).max(1)) == 0, "a frame of the sticker as it is"
        coverage = np.array(source.latents.record(number).coverage)
        full = frames[coverage >= coverage.max() / 2]
        distances = [np.linalg.norm(frames - frame, axis=1).mean() for frame in (own, *full)]
        assert distances[0] == pytest.approx(min(distances), rel=1e-6)


def test_a_sticker_that_is_mostly_out_of_view_is_typical_where_it_is_seen(
    make_source: Callable[..., ClipSource], monkeypatch: pytest.MonkeyPatch
):
    source = make_source(still_frame="typical")
    record = source.latents.record(0)
    looks = np.zeros((record.num_frames, 4), np.float32)
    looks[-1] = 1
    coverage = (0.0,) * (record.num_frames - 1) + (0.4,)
    monkeypatch.setattr(source.latents, "frame_features", lambda sticker: looks)
    monkeypatch.setattr(source.latents, "record", lambda sticker: dataclasses.replace(record, coverage=coverage))
    assert source._typical_frame(0) == record.num_frames - 1


def test_each_pass_has_its_own_order(make_source: Callable[..., ClipSource]):
    source = make_source(batch_size=20, still_fraction=0.0, frames=1)  # one pass a step, in one batch
    passes = [source.batches(step, 0.5)[0].ids for step in range(3)]
    assert len(set(passes)) == 3
    assert {frozenset(ids) for ids in passes} == {frozenset(_ids(source, source.everything))}


@pytest.mark.parametrize(("share", "singles"), [(0.25, 2), (0.5, 4), (1.0, 8)])
def test_the_share_of_stills(make_source: Callable[..., ClipSource], share: float, singles: int):
    source = make_source(still_fraction=share)
    for step in range(10):
        assert (len(_drawn(source, step, True)), len(_drawn(source, step, False))) == (singles, 8 - singles)


def test_without_a_share_every_sticker_is_shown_as_it_is(make_source: Callable[..., ClipSource]):
    source = make_source(still_fraction=0.0)
    moving = _ids(source, source.moving)
    for step in range(10):
        assert set(_drawn(source, step, False)) <= moving
        assert not set(_drawn(source, step, True)) & moving


def test_as_stills_all_stickers_show_any_of_their_frames(make_source: Callable[..., ClipSource], monkeypatch):
    source = make_source(still_fraction=0.5)
    seen: dict[int, set[int]] = defaultdict(set)
    clip = source.latents.clip

    def watched(sticker, frames, variant):
        (frame,) = frames
        seen[sticker].add(frame)
        return clip(sticker, frames, variant)

    monkeypatch.setattr(source.latents, "clip", watched)
    for step in range(100):
        source.batches(step, 0.5, stills=True)
    assert sorted(seen) == source.everything.tolist()
    for sticker, frames in seen.items():
        assert len(frames) > source.latents.num_frames[sticker] / 2


def test_the_names_of_a_dataset_have_styles_and_synonyms():
    rows = {
        "captions": [
            ["dog face, noto style", "Hund, noto style"],
            ["dog face, fluent 3d style"],
            ["a cat, noto style"],
            [""],
        ],
        "attributes": [
            '{"style": "noto", "keywords": ["pet", 7]}',
            '{"style": "fluent-3d"}',
            '{"keywords": "x"}',
            "{}",
        ],
        "num_frames": [1, 8, 1, 1],
    }
    known = known_captions(SimpleNamespace(column=rows.__getitem__))
    expected = KnownCaptions.of_stickers(
        [
            ("dog face", "noto style", ["Hund", "pet"]),
            ("dog face", "fluent 3d style", []),
            ("a cat, noto style", "", []),  # words of its maker, not a style of the metadata
        ],
        {"dog face"},
    )
    assert known is not None and known.stills == {"a cat, noto style"}
    assert vars(known) == vars(expected)


def test_moved_stills_are_motions_and_give_no_single_frames(make_source, latents: LatentCache, monkeypatch):
    rows = {
        "captions": [["a cat"], ["jumping", "jumping up and down"], ["spinning"]],
        "attributes": ["{}", '{"motion": "jump", "of": "a dog"}', '{"motion": "spin"}'],
        "num_frames": [1, 8, 8],
    }
    known = known_captions(SimpleNamespace(column=rows.__getitem__))
    assert known is not None and known.names == ("a cat",)
    assert not latents.moved.any()
    moved = np.arange(len(latents)) % 3 == 1
    monkeypatch.setattr(latents, "moved", moved)
    source = make_source(still_fraction=0.5)
    single, clips = ({name for step in range(12) for name in _drawn(source, step, one)} for one in (True, False))
    assert single == _ids(source, np.flatnonzero(~moved))
    assert clips == _ids(source, source.moving)  # moved or not
    monkeypatch.setattr(latents, "moved", np.ones(len(latents), bool))
    assert len(make_source(still_fraction=0.5).stills) == len(latents)  # there are no others


def test_moving_stickers_alone_give_the_single_frames_too(make_source: Callable[..., ClipSource]):
    source = make_source(still_fraction=0.25)
    source.stills = source.moving
    assert source.draws_stills_separately
    assert (len(_drawn(source, 0, True)), len(_drawn(source, 0, False))) == (2, 6)


def test_stills_alone_fill_the_batch(make_source: Callable[..., ClipSource]):
    source = make_source(still_fraction=0.25)
    source.everything = source.stills = np.setdiff1d(source.everything, source.moving)
    source.moving = source.moving[:0]
    assert not source.draws_stills_separately
    assert len(_drawn(source, 0, True)) == 8


def _words(source: ClipSource, steps: int = 40):
    """``(task, id, number of words shown)`` of many samples."""
    for step in range(steps):
        for batch in source.batches(step, 0.5):
            for task, sticker, text in zip(batch.tasks, batch.ids, batch.text, strict=True):
                yield task, sticker, len(text.arrays[1])


def test_image_to_video_hides_the_text_and_others_show_it(make_source: Callable[..., ClipSource], monkeypatch):
    source = make_source(caption_dropout=0.0, fill_caption_dropout=0.0, word_dropout=0.0)
    kept_colours = Augmentation(angle=0.0, scale=1.0, shift=(0.0, 0.0), hue=0.0, mirror=False)
    monkeypatch.setattr(source.latents, "augmentation", lambda record, variant: kept_colours)
    counts = {
        record.id: len(caption_words(record.caption))
        for record in map(source.latents.record, source.everything.tolist())
    }
    for task, sticker, words in _words(source):
        assert words == (counts[sticker] if task.uses_text else 0)


def test_recoloured_copies_do_not_show_a_caption_that_may_name_the_old_colour(make_source, monkeypatch):
    source = make_source(caption_dropout=0.0, fill_caption_dropout=0.0, word_dropout=0.0)
    variants: dict[str, set[int]] = defaultdict(set)
    clip = source.latents.clip

    def watched(sticker, frames, variant):
        variants[source.latents.record(sticker).id].add(variant)
        return clip(sticker, frames, variant)

    monkeypatch.setattr(source.latents, "clip", watched)
    records = {record.id: record for record in map(source.latents.record, source.everything.tolist())}
    hidden = shown = 0
    for step in range(60):
        variants.clear()
        for batch in source.batches(step, 0.5):
            for sticker, task, text in zip(batch.ids, batch.tasks, batch.text, strict=True):
                if not task.uses_text or len(variants[sticker]) > 1:
                    continue
                (variant,) = variants[sticker]
                recoloured = (
                    variant >= FIRST_AUGMENTED and source.latents.augmentation(records[sticker], variant).hue != 0
                )
                assert (len(text.arrays[1]) == 0) == recoloured
                hidden, shown = hidden + recoloured, shown + (not recoloured)
    assert hidden > 5
    assert shown > 50


def test_captions_and_words_are_dropped(make_source: Callable[..., ClipSource]):
    assert {words for _, _, words in _words(make_source(caption_dropout=1.0, fill_caption_dropout=1.0), 5)} == {0}
    source = make_source(caption_dropout=0.0, fill_caption_dropout=0.0, word_dropout=0.3, num_augmented=0)
    counts = {
        record.id: len(caption_words(record.caption))
        for record in map(source.latents.record, source.everything.tolist())
    }
    shown = [words / counts[sticker] for task, sticker, words in _words(source) if task.uses_text and words]
    assert np.mean(shown) == pytest.approx(0.7, abs=0.08)
    assert len(set(shown)) > 5


def test_only_stickers_that_may_be_mirrored_are(make_source: Callable[..., ClipSource], monkeypatch):
    source = make_source()
    seen: Counter = Counter()
    clip = source.latents.clip

    def watched(sticker, frames, variant):
        seen[source.latents.record(sticker).flippable, variant] += 1
        return clip(sticker, frames, variant)

    monkeypatch.setattr(source.latents, "clip", watched)
    for step in range(40):
        source.batches(step, 0.5)
    assert seen[False, 0] > 10
    assert seen[True, 1] > 10
    assert seen[False, 1] == 0


def test_default_settings_draw_every_measured_pattern_and_what_the_commands_ask_for(latents: LatentCache):
    settings = recipe_settings("fast", batch_size=32, still_fraction=0.0, cluster_fraction=0.0)
    source = ClipSource(latents, TEXT, Curriculum(settings.curriculum), settings)
    # As they are measured: without a caption.
    measured = {(pattern.marks(8), pattern.task, False) for pattern in PATTERNS.values()}
    seen: set[tuple] = set()
    for step in range(150):
        if step >= 40 and measured <= seen:
            break
        for batch in source.batches(step, 0.5):
            for i, task in enumerate(batch.tasks):
                marks = "".join("01"[int(given)] for given in batch.known[i, batch.valid[i]])
                seen.add((marks, task, len(batch.text[i].arrays[1]) > 0))
                if batch.loop[i] and task is Task.INTERPOLATION:
                    seen.add((marks, "loop"))
    assert measured <= seen
    sides = {(marks.strip("0"), marks[0] + marks[-1]) for marks, task, *_ in seen if task in PREDICTION}
    assert any(ends == "00" for _, ends in sides)  # new frames on both sides
    assert any(task is Task.FORWARD and marks.count("0") > marks.count("1") for marks, task, *_ in seen)
    assert any("0" not in marks.strip("0") for marks, kind, *_ in seen if kind == "loop")  # a gap around the loop


def test_captions_are_hidden_more_often_where_frames_are_given(make_source: Callable[..., ClipSource]):
    shown: dict[Task, list[bool]] = defaultdict(list)
    for task, _, words in _words(make_source(num_augmented=0, word_dropout=0.0), 120):
        shown[task].append(words > 0)
    fill, made = (Task.INTERPOLATION, *PREDICTION), (Task.TEXT_TO_VIDEO, Task.IMAGE_TEXT_TO_VIDEO)
    in_fills, in_generation = (np.mean([each for task in tasks for each in shown[task]]) for tasks in (fill, made))
    assert in_fills / in_generation == pytest.approx(0.5 / 0.9, abs=0.08)


def test_all_tasks_are_drawn(make_source: Callable[..., ClipSource]):
    assert {task for task, _, _ in _words(make_source(), 30)} == set(Task)
    only = make_source(task_weights={task.value: float(task is Task.FORWARD) for task in Task})
    batches = [batch for step in range(30) for batch in only.batches(step, 0.5) if batch.video.shape[2] > 1]
    assert {task for batch in batches for task in batch.tasks} == {Task.FORWARD}


def test_the_longest_clip_sets_the_slots(make_source: Callable[..., ClipSource]):
    longest = {frames: make_source(frames=frames).batches(0, 0.5)[-1].video.shape[2] for frames in (1, 2, 3, 16)}
    assert (longest[1], longest[2], longest[3]) == (1, 2, 3)
    assert 3 < longest[16] <= 16


def test_an_empty_split_is_named():
    empty = object.__new__(LatentCache)
    empty.num_frames = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="split is empty"):
        ClipSource(empty, TEXT, Curriculum("none"), recipe_settings("fast"))


@pytest.mark.parametrize(("count", "parts"), [(2, 1), (3, 2), (4, 1), (8, 1), (1, 3)])
def test_shares_are_the_whole_batch(make_source: Callable[..., ClipSource], count: int, parts: int):
    """Every clip is in exactly one share, as it is in the whole batch, and shares are equally large."""
    source = make_source(batch_size=8)

    def clips(batches: list[ClipBatch]) -> dict[int, tuple[str, Task, list[float], list[bool]]]:
        found = {}
        for batch in batches:
            for i, position in enumerate(batch.positions):
                frames = batch.valid[i]
                clip = (batch.ids[i], batch.tasks[i], batch.video[i, :, frames].flatten().tolist())
                assert position not in found
                found[position] = (*clip, batch.known[i, frames].tolist())
        return found

    for step in range(3):
        everything = clips(source.batches(step, 0.5))
        assert sorted(everything) == list(range(8))
        shares = [source.batches(step, 0.5, RankSlice(rank, count, parts)) for rank in range(count)]
        assert {sum(len(batch) for batch in share) for share in shares} <= {8 // count, -(-8 // count)}
        merged = [clips(share) for share in shares]
        assert sum(len(part) for part in merged) == 8
        assert {key: value for part in merged for key, value in part.items()} == everything
