"""The rules by which fits stop, on made-up measurements."""

from __future__ import annotations

import pytest
import torch

from signbridge.probes.sgd.linear import BatchedLinearProbes, Gradients
from signbridge.probes.sgd.schedule import (
    FINISH,
    OBJECTIVE,
    OVERTAKEN,
    RUNNING,
    STEPS,
    TOLERANCE,
    VALIDATION,
    Schedule,
)

LAYERS, RATES, PENALTIES, CLASSES, FEATURES = 2, (0.1, 1.0), (0.1, 1.0, 10.0), 3, 4


@pytest.fixture
def both():
    model = BatchedLinearProbes(LAYERS, FEATURES, CLASSES, PENALTIES * len(RATES))
    torch.nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    schedule = Schedule(model, RATES, len(PENALTIES), 1000)
    schedule.samples.fill_(50)
    return model, schedule


def measured(schedule, loss, validation=float("nan"), slope=1.0):
    """The same for all fits at the schedule's index, or tensors of the shape of all fits."""
    at = schedule.index
    full = torch.ones(schedule.reason.shape, dtype=torch.float64)
    shape = (*at[1].shape, CLASSES)
    sums = Gradients(
        (full * loss)[at],
        torch.full((*shape, FEATURES), slope),
        torch.full(shape, slope),
        torch.full(shape, 0.1),
    )
    return sums, (full * validation)[at]


def fits(layer, setting, value=True, other=False):
    out = torch.full((LAYERS, len(RATES) * len(PENALTIES)), other)
    out[layer, setting] = value
    return out


def test_a_fit_that_has_got_worse_goes_back_at_half_the_rate(both):
    model, schedule = both
    schedule.judge(model, *measured(schedule, 2.0))
    best, rates = model.weight.detach().clone(), schedule.rate.clone()
    torch.testing.assert_close(rates[0], torch.tensor([0.1] * 3 + [1.0] * 3))
    with torch.no_grad():
        model.weight.mul_(0.5)
    moved = model.weight.detach().clone()
    loss = torch.full((2, 6), 1.0, dtype=torch.float64)
    loss[1, 4], loss[0, 2] = 9.0, torch.nan
    schedule.judge(model, *measured(schedule, loss, slope=2.0))
    worse = fits(1, 4) | fits(0, 2)
    torch.testing.assert_close(schedule.rate, torch.where(worse, rates / 2, rates))
    expected = torch.where(worse[..., None, None], best, moved)
    assert torch.equal(model.weight.detach(), expected)
    assert torch.equal(schedule.anchor_weight, expected)
    assert (schedule.slope_weight[worse] == 1).all()
    assert (schedule.slope_weight[~worse] == 2).all()
    assert torch.isfinite(schedule.objective).all()


def test_a_small_gradient_stops_a_fit(both):
    model, schedule = both
    schedule.judge(model, *measured(schedule, 2.0))
    assert (schedule.reason == RUNNING).all()
    # A slope that takes the penalty's away leaves nothing.
    found = measured(schedule, 1.0)
    decay = schedule.decay[:, None, None]
    found[0].weight[0] = -(decay * model.weight.detach()[0])
    found[0].bias[0] = 0
    schedule.step.fill_(40)
    schedule.judge(model, *found)
    assert (schedule.reason[0] == TOLERANCE).all()
    assert (schedule.reason[1] == RUNNING).all()
    assert (schedule.steps[0] == 40).all()
    layers, settings = schedule.index
    assert layers.tolist() == [[1]]
    assert settings.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_settled_validation_part_stops_a_fit_and_its_slower_siblings(both):
    model, schedule = both
    with torch.no_grad():
        model.weight.zero_()  # no penalty
    for number in range(5):
        validation = 1.0 + 0.1 * number * (~fits(0, 3)).double()
        loss = 2.0 - 0.1 * number - 0.05 * fits(0, 3).double()
        schedule.step.fill_(20 * number)
        schedule.judge(model, *measured(schedule, loss, validation))
    # Penalty 0 at the second rate has settled; the first rate was behind it.
    assert int(schedule.reason[0, 3]) == VALIDATION
    assert int(schedule.reason[0, 0]) == OVERTAKEN
    assert int(schedule.steps[0, 3]) == 60
    assert int((schedule.reason == RUNNING).sum()) == 10
    assert schedule.index[1].shape == (2, 6)  # the other layer has all six


def test_a_validation_part_that_gets_worse_stops_nothing(both):
    """Else the number of steps would be a second penalty beside C."""
    model, schedule = both
    for number in range(8):
        schedule.judge(model, *measured(schedule, 2.0 - 0.1 * number, 1.0 + 0.1 * number))
    assert (schedule.reason == RUNNING).all()


def test_without_a_validation_part_the_objective_stops(both):
    model, schedule = both
    for number in range(4):
        schedule.judge(model, *measured(schedule, 2.0 - 1e-7 * number))
    assert (schedule.reason == OBJECTIVE).all()


def test_refused_points_are_no_rest(both):
    model, schedule = both
    schedule.judge(model, *measured(schedule, 2.0, 1.0))
    for _ in range(6):
        schedule.judge(model, *measured(schedule, 3.0, 1.0))
    assert (schedule.reason == RUNNING).all()


def test_all_steps_made(both):
    model, schedule = both
    schedule.judge(model, *measured(schedule, 2.0))
    schedule.step.fill_(1000)
    schedule.judge(model, *measured(schedule, 1.0))
    assert (schedule.reason == STEPS).all()
    assert schedule.at_rest


def test_the_finish_goes_on_with_the_lowest_objective_of_each_penalty(both):
    model, schedule = both
    loss = torch.tensor([[1.0, 2, 3, 2, 1, 4], [3.0, 3, 3, 1, 1, 1]], dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    schedule.judge(model, *measured(schedule, loss))
    schedule.pick()
    assert schedule.picked.tolist() == [[0, 4, 2], [3, 4, 5]]
    schedule.finish(model)
    assert int(schedule.stage) == FINISH
    assert torch.equal(schedule.active.nonzero()[:, 1].view(2, 3), schedule.picked.sort().values)
    assert schedule.index[1].tolist() == [[0, 2, 4], [3, 4, 5]]
    # On more samples the objective is another, so even a higher one is taken.
    schedule.judge(model, *measured(schedule, 5.0))
    assert torch.equal(schedule.chosen(schedule.objective), torch.full((2, 3), 5.0).double())
    assert torch.equal(
        schedule.chosen(torch.arange(12).view(2, 6)), torch.tensor([[0, 4, 2], [9, 10, 11]])
    )
