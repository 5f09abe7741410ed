from __future__ import annotations

import pytest
import torch

from rdtf.model.time_axis import MAX_FRAMES, known_neighbours, make_time_axis


def bools(*rows: str) -> torch.Tensor:
    return torch.tensor([[char == "1" for char in row] for row in rows])


LINEAR, CIRCULAR = torch.tensor([False]), torch.tensor([True])


def neighbours(known: str, valid: str | None = None, loop: torch.Tensor = LINEAR):
    return known_neighbours(bools(known), bools(valid or "1" * len(known)), loop)


def picks(matrix: torch.Tensor) -> list[int | None]:
    """Which frame each row picks; None for a row of zeros."""
    assert set(matrix.unique().tolist()) <= {0.0, 1.0}
    assert (matrix.sum(-1) <= 1).all()
    return [int(row.argmax()) if row.any() else None for row in matrix[0]]


@pytest.mark.parametrize("frames", range(1, MAX_FRAMES + 1))
def test_any_number_of_frames(frames: int):
    valid = torch.arange(frames) < torch.tensor([[frames], [1]])
    axis = make_time_axis(valid, torch.tensor([True, True]))
    assert axis.frames == frames
    assert 0 <= axis.offset.min() <= axis.offset.max() <= 2 * MAX_FRAMES - 2


@pytest.mark.parametrize("valid", ["1" * 17, "0000", "1011", "0111"])
def test_axes_that_cannot_be_are_refused(valid: str):
    with pytest.raises(ValueError, match="frames"):
        make_time_axis(bools(valid))
    with pytest.raises(ValueError, match="frames"):
        make_time_axis(torch.zeros(1, 0, dtype=torch.bool))


def test_shift_of_a_linear_clip():
    before, after = make_time_axis(bools("1110")).shift.chunk(2, 1)
    assert picks(before) == [None, 0, 1, None]
    assert picks(after) == [1, 2, None, None]


def test_shift_of_a_circular_clip_wraps_at_its_own_end():
    before, after = make_time_axis(bools("1110"), CIRCULAR).shift.chunk(2, 1)
    assert picks(before) == [2, 0, 1, None]
    assert picks(after) == [1, 2, 0, None]


def test_offsets_are_signed_and_circular_ones_go_the_short_way():
    linear = make_time_axis(bools("11111")).offset - (MAX_FRAMES - 1)
    assert linear[0, 0].tolist() == [0, 1, 2, 3, 4]
    assert linear[0, 4].tolist() == [-4, -3, -2, -1, 0]
    circular = make_time_axis(bools("11111"), CIRCULAR).offset - (MAX_FRAMES - 1)
    assert circular[0, 0].tolist() == [0, 1, 2, -2, -1]
    assert circular[0, 3].tolist() == [2, -2, -1, 0, 1]
    even = make_time_axis(bools("1111"), CIRCULAR).offset - (MAX_FRAMES - 1)
    assert even[0, 1].tolist() == [-1, 0, 1, 2]  # opposite has one fixed sign


def test_loop_is_a_matter_of_each_clip():
    mixed = make_time_axis(bools("1111", "1111"), torch.tensor([True, False]))
    for i, loop in enumerate((CIRCULAR, LINEAR)):
        alone = make_time_axis(bools("1111"), loop)
        assert torch.equal(mixed.shift[i], alone.shift[0])
        assert torch.equal(mixed.offset[i], alone.offset[0])


def test_padding_is_hidden_from_attention():
    assert make_time_axis(bools("1100")).key_bias.tolist() == [[0.0, 0.0, float("-inf"), float("-inf")]]


def test_neighbours_linear():
    near = neighbours("01000100")
    assert picks(near.previous) == [None, 1, 1, 1, 1, 5, 5, 5]
    assert picks(near.next) == [1, 1, 5, 5, 5, 5, None, None]
    assert (near.distance[0, :, 0] * 8).tolist() == [8, 0, 1, 2, 3, 0, 1, 2]
    assert (near.distance[0, :, 1] * 8).tolist() == [1, 0, 3, 2, 1, 0, 8, 8]
    blend = near.blend[0, :, [1, 5]]
    expected = [[1, 0], [1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1], [0, 1], [0, 1]]
    assert torch.allclose(blend, torch.tensor(expected, dtype=torch.float))
    assert torch.allclose(near.blend.sum(2), torch.ones(1, 8))


def test_neighbours_circular():
    near = neighbours("01000100", loop=CIRCULAR)
    assert picks(near.previous) == [5, 1, 1, 1, 1, 5, 5, 5]
    assert picks(near.next) == [1, 1, 5, 5, 5, 5, 1, 1]
    assert (near.distance[0, :, 0] * 8).tolist() == [3, 0, 1, 2, 3, 0, 1, 2]
    assert (near.distance[0, :, 1] * 8).tolist() == [1, 0, 3, 2, 1, 0, 3, 2]
    assert torch.allclose(near.blend[0, 0, [1, 5]], torch.tensor([0.75, 0.25]))
    assert torch.allclose(near.blend[0, 7, [1, 5]], torch.tensor([0.5, 0.5]))


def test_circular_neighbours_turn_with_the_clip():
    near, turned = neighbours("0110001", loop=CIRCULAR), neighbours("1011000", loop=CIRCULAR)
    for name in ("previous", "next", "blend"):
        assert torch.equal(getattr(near, name).roll((1, 1), (1, 2)), getattr(turned, name))
    assert torch.equal(near.distance.roll(1, 1), turned.distance)


def test_a_single_known_frame_fills_a_clip():
    for loop in (LINEAR, CIRCULAR):
        near = neighbours("0010", loop=loop)
        assert torch.equal(near.blend, torch.eye(4)[[2, 2, 2, 2]][None])


def test_no_known_frame():
    for loop in (LINEAR, CIRCULAR):
        near = neighbours("0000", loop=loop)
        for matrix in (near.previous, near.next, near.blend):
            assert not matrix.any()
        assert torch.equal(near.distance, torch.ones(1, 4, 2))


def test_a_known_frame_is_its_own_neighbour():
    near = neighbours("1111")
    for matrix in (near.previous, near.next, near.blend):
        assert torch.equal(matrix, torch.eye(4)[None])
    assert not near.distance.any()


@pytest.mark.parametrize("loop", [LINEAR, CIRCULAR])
def test_padding_has_no_neighbours_and_is_none(loop: torch.Tensor):
    padded = neighbours("01001111", "11110000", loop)  # "known" padding must not count
    alone = neighbours("0100", loop=loop)
    for name in ("previous", "next", "blend"):
        matrix = getattr(padded, name)
        assert torch.equal(matrix[:, :4, :4], getattr(alone, name))
        assert not matrix[:, 4:].any()
        assert not matrix[:, :, 4:].any()
    assert torch.equal(padded.distance[:, :4], alone.distance)
