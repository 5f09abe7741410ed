from __future__ import annotations

import json

import numpy as np
import pytest

from rdtf.curriculum import CURRICULA, Curriculum, SampleLoss
from rdtf.masks import GENERATION, PREDICTION, Task, unknown_counts

ADAPTIVE = ["adaptive", "adaptive-normalised"]


def feed(curriculum: Curriculum, losses) -> Curriculum:
    for loss in losses:
        curriculum.observe([SampleLoss(Task.FORWARD, 3, 0.5, float(loss))])
    return curriculum


@pytest.mark.parametrize(
    ("progress", "generation", "interpolation", "prediction"),
    [(0.0, 0.1, 0.9, 0.7), (0.25, 0.3, 0.7, 0.6), (0.5, 0.5, 0.5, 0.5), (0.75, 0.7, 0.3, 0.4), (1.0, 0.9, 0.1, 0.3)],
)
def test_static_weights(progress: float, generation: float, interpolation: float, prediction: float):
    total = 3 * generation + interpolation + 2 * prediction
    weights = Curriculum("linear").weights(progress)
    for task in GENERATION:
        assert weights[task] == pytest.approx(generation / total)
    assert weights[Task.INTERPOLATION] == pytest.approx(interpolation / total)
    for task in PREDICTION:
        assert weights[task] == pytest.approx(prediction / total)


@pytest.mark.parametrize("difficulty", range(5))
def test_difficulties_from_easy_to_hard(difficulty: int):
    curriculum = Curriculum("adaptive")
    # The newest of eleven signals has a chosen rank: a high signal is easy, a low one is hard.
    rank = 9 - 2 * difficulty
    signals = [float(i) for i in range(11) if i != rank] + [float(rank)]
    curriculum.load_state_dict({**curriculum.state_dict(), "signals": signals})
    assert curriculum.difficulty == difficulty
    generation, interpolation = (0.1, 0.3, 0.5, 0.7, 0.9)[difficulty], (0.9, 0.7, 0.5, 0.3, 0.1)[difficulty]
    total = 3 * (0.5 + generation) + (0.5 + interpolation) + 2 * (0.5 + 0.5)
    weights = curriculum.weights(0.5)
    assert weights[Task.TEXT_TO_VIDEO] == pytest.approx((0.5 + generation) / total)
    assert weights[Task.INTERPOLATION] == pytest.approx((0.5 + interpolation) / total)
    assert weights[Task.BACKWARD] == pytest.approx(1.0 / total)


def test_signal_is_the_papers_formula():
    curriculum = feed(Curriculum("adaptive"), [4.0, 2.0, 3.0])
    expected = [5 * 4 + 3 * 4, 5 * 2 + 3 * 3 + 1.3 * (2 - 4), 5 * 3 + 3 * 3 + 1.3 * (3 - 2)]
    assert list(curriculum.signals) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_struggling_network_gets_easy_tasks_and_a_learning_one_hard_tasks(kind: str):
    assert Curriculum(kind).difficulty == 0
    assert feed(Curriculum(kind), np.linspace(5, 1, 9)).difficulty == 0  # too few values for a rank
    falling = feed(Curriculum(kind), np.geomspace(5, 1, 40))
    rising = feed(Curriculum(kind), np.geomspace(1, 5, 40))
    assert (rising.difficulty, falling.difficulty) == (0, 4)
    assert rising.weights(0.5)[Task.INTERPOLATION] > falling.weights(0.5)[Task.INTERPOLATION]
    assert rising.weights(0.5)[Task.TEXT_TO_VIDEO] < falling.weights(0.5)[Task.TEXT_TO_VIDEO]


def test_kinds_for_experiments_read_the_controller_otherwise():
    assert set(CURRICULA) == {"none", "linear", *ADAPTIVE, "adaptive-reversed", "adaptive-constant"}
    falling, rising = np.geomspace(5, 1, 40), np.geomspace(1, 5, 40)
    difficulties = [feed(Curriculum("adaptive-reversed"), losses).difficulty for losses in (falling, rising)]
    assert difficulties == [0, 4]
    difficulties = [feed(Curriculum("adaptive-constant"), losses).difficulty for losses in (falling, rising)]
    assert difficulties == [4, 4]


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_loss_that_has_come_to_rest_is_not_read_as_struggling(kind: str):
    curriculum, rng, difficulties = Curriculum(kind), np.random.default_rng(0), []
    for step in range(900):
        level = 0.3 + 1.2 * np.exp(-step / 100)
        samples = []
        for task in list(Task):
            noise, luck = rng.random(), np.exp(rng.normal(0, 0.2))
            samples.append(SampleLoss(task, 4, noise, float(level * (2.5 - 2 * noise) * luck)))
        curriculum.observe(samples)
        difficulties.append(curriculum.difficulty)
    assert np.mean(difficulties[100:400]) > 3  # it falls
    assert np.mean(difficulties[400:]) > 2  # it stays low


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_kinds_without_a_controller_do_not_react(kind: str):
    curriculum = feed(Curriculum(kind), np.linspace(5, 1, 40))
    assert curriculum.weights(0.3) == Curriculum(kind).weights(0.3)
    if kind == "none":
        assert len(set(curriculum.weights(0.3).values())) == 1


def _mixed(curriculum: Curriculum, noise: float, task: Task, scale: float, steps: int = 30) -> list[float]:
    """Losses that are higher for little noise and for generation, as real ones are, times ``scale``."""
    loss = scale * (3.0 - 2 * noise) * (2.0 if task in GENERATION else 1.0)
    for _ in range(steps):
        curriculum.observe([SampleLoss(task, 4, noise, loss)])
    return list(curriculum.signals)[-steps:]


def test_normalised_variant_reacts_to_real_change_only():
    raw, normalised = Curriculum("adaptive"), Curriculum("adaptive-normalised")
    mixes = [(0.1, Task.FORWARD), (0.9, Task.FORWARD), (0.5, Task.TEXT_TO_VIDEO), (0.1, Task.TEXT_TO_VIDEO)]
    signals = {
        curriculum.kind: [s for mix in mixes for s in _mixed(curriculum, *mix, scale=1.0)]
        for curriculum in (raw, normalised)
    }
    assert np.ptp(signals["adaptive"]) > 5  # reads its own dice
    assert np.ptp(signals["adaptive-normalised"]) < 1e-6
    better = _mixed(normalised, *mixes[0], scale=0.5, steps=1)[0]
    assert better < min(signals["adaptive-normalised"]) - 1
    assert normalised.difficulty == 4
    worse = _mixed(normalised, *mixes[1], scale=2.0, steps=1)[0]
    assert worse > max(signals["adaptive-normalised"]) + 1
    assert normalised.difficulty == 0


@pytest.mark.parametrize("kind", CURRICULA)
def test_state_survives_and_goes_on_alike(kind: str):
    rng = np.random.default_rng(3)
    losses = rng.random((80, 4)) + 1

    def go_on(curriculum: Curriculum, rows) -> list:
        seen = []
        for i, row in enumerate(rows):
            tasks = list(Task)[:4]
            curriculum.observe([SampleLoss(t, 2, v / 2, v) for t, v in zip(tasks, row.tolist(), strict=True)])
            seen.append((curriculum.weights(i / 80), curriculum.draw(i / 80, 8, np.random.default_rng(i))))
        return seen

    first = Curriculum(kind)
    go_on(first, losses[:40])
    second = Curriculum(kind)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert go_on(first, losses[40:]) == go_on(second, losses[40:])


@pytest.mark.parametrize("kind", CURRICULA)
@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_weights_sum_to_one(kind: str, progress: float):
    weights = feed(Curriculum(kind, {"interpolation": 2.5}), np.linspace(3, 1, 25)).weights(progress)
    assert set(weights) == set(Task)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert min(weights.values()) > 0


def test_task_weights_multiply():
    plain, tripled = Curriculum("none").weights(0), Curriculum("none", {"text_to_video": 3.0}).weights(0)
    ratio = tripled[Task.TEXT_TO_VIDEO] / tripled[Task.FORWARD]
    assert ratio == pytest.approx(3 * plain[Task.TEXT_TO_VIDEO] / plain[Task.FORWARD])
    only = Curriculum("linear", {task.value: float(task is Task.BACKWARD) for task in Task})
    rng = np.random.default_rng(0)
    assert {only.draw(0.5, 8, rng)[0] for _ in range(30)} == {Task.BACKWARD}
    assert only.draw(0.5, 1, rng)[0] is Task.TEXT_TO_VIDEO  # a still has no other task


@pytest.mark.parametrize("kind", CURRICULA)
@pytest.mark.parametrize("frames", [1, 2, 3, 8, 16])
def test_only_tasks_that_fit_are_drawn_with_counts_that_fit(kind: str, frames: int):
    curriculum = feed(Curriculum(kind), np.linspace(5, 1, 20))
    rng = np.random.default_rng(0)
    for _ in range(100):
        task, unknown = curriculum.draw(0.5, frames, rng)
        assert len(unknown_counts(task, frames))
        assert unknown is None or unknown in unknown_counts(task, frames)
        assert frames > 1 or task is Task.TEXT_TO_VIDEO


def test_draws_follow_the_weights():
    curriculum = Curriculum("linear")
    rng = np.random.default_rng(0)
    drawn = [curriculum.draw(0.0, 8, rng)[0] for _ in range(4000)]
    for task, weight in curriculum.weights(0.0).items():
        assert drawn.count(task) / 4000 == pytest.approx(weight, abs=0.025)


def test_normalised_variant_chooses_more_unknown_frames_when_it_goes_well():
    def mean_unknown(losses) -> float:
        curriculum, rng = feed(Curriculum("adaptive-normalised"), losses), np.random.default_rng(0)
        drawn = [curriculum.draw(0.0, 16, rng) for _ in range(400)]
        counts = [unknown for task, unknown in drawn if task is Task.INTERPOLATION]
        assert counts.count(None) / len(counts) == pytest.approx(0.5, abs=0.15)  # periodic, whatever the difficulty
        return float(np.mean([unknown for unknown in counts if unknown is not None]))

    assert mean_unknown(np.geomspace(5, 1, 40)) > mean_unknown(np.geomspace(1, 5, 40)) + 4


@pytest.mark.parametrize(
    ("kind", "task_weights", "message"),
    [
        ("adaptiv", None, "adaptive-normalised"),
        ("none", {"text2video": 1.0}, "text_to_video"),
        ("none", {"text_to_video": -1.0}, "at least 0"),
        ("none", {task.value: 0.0 for task in Task}, "above 0"),
    ],
)
def test_wrong_arguments_are_named(kind: str, task_weights: dict | None, message: str):
    with pytest.raises(ValueError, match=message):
        Curriculum(kind, task_weights)


def test_nothing_observed_changes_nothing():
    curriculum = feed(Curriculum("adaptive"), [1.0, 2.0])
    before = curriculum.state_dict()
    curriculum.observe([])
    assert curriculum.state_dict() == before
