from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from rdtf.masks import (
    GENERATION,
    PATTERNS,
    PREDICTION,
    Task,
    draw_known,
    loss_mask,
    masked_mean,
    unknown_counts,
    weighted_loss,
)

POSABLE = [(task, n) for n in range(1, 17) for task in Task if len(unknown_counts(task, n))]


def drawn(task: Task, n: int, times: int = 200, **kwargs) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter("".join("01"[int(k)] for k in draw_known(task, n, rng, **kwargs)) for _ in range(times))


def is_of_task(pattern: str, task: Task, loop: bool) -> bool:
    known = pattern.count("1")
    if task in GENERATION:
        return known == (task is not Task.TEXT_TO_VIDEO)
    one_run = "0" not in pattern.strip("0")
    if task is Task.INTERPOLATION:
        return known >= 2 and "0" in pattern and (loop or not one_run)
    before, after = len(pattern) - len(pattern.lstrip("0")), len(pattern) - len(pattern.rstrip("0"))
    return (
        one_run
        and known >= (2 if len(pattern) > 3 else 1)
        and (after >= before if task is Task.FORWARD else before >= after)
    )


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize(("task", "n"), POSABLE, ids=lambda value: getattr(value, "value", value))
def test_every_mask_is_of_its_task_and_has_the_count_that_was_asked_for(task: Task, n: int, loop: bool):
    for pattern in drawn(task, n, 30, loop=loop):
        assert is_of_task(pattern, task, loop)
    for unknown in unknown_counts(task, n):
        for pattern in drawn(task, n, 10, loop=loop, unknown=unknown):
            assert pattern.count("0") == unknown
            assert is_of_task(pattern, task, loop)


@pytest.mark.parametrize(
    ("task", "patterns"),
    [
        (Task.INTERPOLATION, {"10101010", "01010101", "10010010"}),
        (Task.FORWARD, {"11111000", "11110000", "11111110"}),
        (Task.BACKWARD, {"00111111", "00001111"}),
        (Task.IMAGE_TEXT_TO_VIDEO, {"10000000", "00010000", "00000001"}),
    ],
)
def test_without_a_count_masks_are_the_papers(task: Task, patterns: set[str]):
    found = drawn(task, 8, 500)
    assert patterns <= set(found)
    if task in PREDICTION:  # at least half of the clip is known
        assert {pattern.count("0") for pattern in found} == {1, 2, 3, 4}
    if task is Task.INTERPOLATION:  # periodic
        assert all(len({len(gap) for gap in pattern.strip("0").split("1")[1:-1]}) == 1 for pattern in found)


@pytest.mark.parametrize(("n", "loop"), [(3, False), (3, True), (5, False), (6, True)])
def test_with_a_count_every_in_between_mask_can_be_drawn(n: int, loop: bool):
    masks = ("".join(marks) for marks in product("01", repeat=n))
    expected = {mask for mask in masks if is_of_task(mask, Task.INTERPOLATION, loop)}
    counts = unknown_counts(Task.INTERPOLATION, n)
    assert set().union(*(drawn(Task.INTERPOLATION, n, 600, unknown=u, loop=loop) for u in counts)) == expected


def test_with_a_count_prediction_keeps_two_frames_and_may_add_on_both_sides():
    forward, backward = (drawn(task, 8, 800, unknown=6) for task in PREDICTION)
    assert set(forward) == {"11000000", "01100000", "00110000", "00011000"}
    assert {mask[::-1] for mask in backward} == set(forward)
    assert forward["11000000"] / 800 == pytest.approx(0.75, abs=0.05)


def test_measured_patterns_for_any_length():
    assert [pattern.marks(8) for pattern in PATTERNS.values()] == [
        "10101010",
        "10010010",
        "11111000",
        "00011111",
        "10000000",
    ]
    for n in range(4, 17):
        for pattern in PATTERNS.values():
            assert is_of_task(pattern.marks(n), pattern.task, loop=False)


def test_a_still_only_has_the_text_task():
    assert [task for task, n in POSABLE if n == 1] == [Task.TEXT_TO_VIDEO]
    assert (Task.INTERPOLATION, 2) not in POSABLE
    assert {task for task, n in POSABLE if n == 3} == set(Task)


@pytest.mark.parametrize(
    ("task", "n", "unknown"),
    [
        (Task.IMAGE_TO_VIDEO, 1, None),
        (Task.INTERPOLATION, 2, None),
        (Task.FORWARD, 1, None),
        (Task.FORWARD, 8, 7),
        (Task.BACKWARD, 8, 0),
        (Task.INTERPOLATION, 8, 7),
        (Task.TEXT_TO_VIDEO, 8, 7),
    ],
)
def test_impossible_masks_are_refused(task: Task, n: int, unknown: int | None):
    with pytest.raises(ValueError, match=task.value):
        draw_known(task, n, np.random.default_rng(0), unknown=unknown)


def test_the_given_image_is_a_showable_frame():
    showable = np.array([0, 0, 1, 0, 1, 0, 0, 0], bool)
    assert drawn(Task.IMAGE_TO_VIDEO, 8, showable=showable).keys() == {"00100000", "00001000"}
    assert len(drawn(Task.IMAGE_TO_VIDEO, 8, showable=np.zeros(8, bool))) == 8  # nothing fits: any will do


def test_same_generator_same_mask():
    a, b = (draw_known(Task.INTERPOLATION, 9, np.random.default_rng(7)) for _ in range(2))
    assert (a == b).all()


def test_only_image_to_video_hides_the_text():
    assert [task for task in Task if not task.uses_text] == [Task.IMAGE_TO_VIDEO]


def test_loss_mask():
    valid = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]], dtype=torch.bool)
    known = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
    assert loss_mask(valid, known, on_known=True).tolist() == valid.tolist()
    assert loss_mask(valid, known, on_known=False).tolist() == [
        [False, True, True, False],
        [True, True, False, False],
    ]


def test_a_frame_weighs_the_same_in_a_short_clip_and_in_a_long_one():
    valid = torch.arange(8) < torch.tensor([[2], [8]])
    error = torch.zeros(2, 3, 8, 4, 4)
    error[0] = 5.0
    error[1] = 1.0
    losses = masked_mean(error, valid)
    assert losses.tolist() == [5.0, 1.0]  # a clip's own mean does not depend on its padding
    assert weighted_loss(losses, valid, 10).item() == pytest.approx((2 * 5 + 8 * 1) / 10)


def test_a_clip_weighs_the_same_however_many_of_its_frames_are_unknown():
    valid = torch.ones(2, 8, dtype=torch.bool)
    known = torch.arange(8) < torch.tensor([[0], [7]])
    error = torch.rand(2, 3, 8, 4, 4, requires_grad=True)
    weighted_loss(masked_mean(error, loss_mask(valid, known, on_known=False)), valid, 16).backward()
    per_clip = error.grad.sum((1, 2, 3, 4))
    assert per_clip.tolist() == pytest.approx([0.5, 0.5])
    assert not error.grad[1, :, :7].any()


def test_where_given_frames_count_the_loss_is_the_mean_over_all_elements():
    valid = torch.arange(6) < torch.tensor([[3], [6], [1]])
    error = torch.rand(3, 2, 6, 4, 4)
    losses = masked_mean(error, loss_mask(valid, torch.rand(3, 6) < 0.5, on_known=True))
    assert weighted_loss(losses, valid, 10).item() == pytest.approx(error.movedim(1, 2)[valid].mean().item())


@pytest.mark.parametrize("garbage", [1e6, float("nan"), float("inf")])
def test_garbage_in_padding_changes_neither_loss_nor_gradient(garbage: float):
    mask = torch.tensor([[1, 1, 0]], dtype=torch.bool)

    def loss_and_gradient(filling: float):
        error = torch.ones(1, 2, 3, 2, 2)
        error[:, :, 2] = filling
        error.requires_grad_()
        loss = masked_mean(error, mask).sum()
        loss.backward()
        return loss.item(), error.grad

    (clean, clean_gradient), (dirty, dirty_gradient) = loss_and_gradient(0.0), loss_and_gradient(garbage)
    assert clean == dirty == 1.0
    assert torch.equal(clean_gradient, dirty_gradient)
    assert not dirty_gradient[:, :, 2].any()


def test_an_empty_mask_gives_no_loss():
    assert masked_mean(torch.ones(1, 1, 2, 1, 1), torch.zeros(1, 2, dtype=torch.bool)).item() == 0.0
