"""The rules by which fits stop, on made-up measurements."""

from __future__ import annotations

import pytest
import torch

from signbridge.probes.sgd.course import (
    FINISH,
    OBJECTIVE,
    OVERTAKEN,
    RUNNING,
    STEPS,
    TOLERANCE,
    VALIDATION,
    Course,
    Measured,
)
from signbridge.probes.sgd.sums import Sums
from signbridge.probes.sgd.torch_model import BatchedLinearProbes

LAYERS, RATES, PENALTIES, CLASSES, FEATURES = 2, (0.1, 1.0), (0.1, 1.0, 10.0), 3, 4


@pytest.fixture
def both():
    model = BatchedLinearProbes(LAYERS, FEATURES, CLASSES, PENALTIES * len(RATES))
    torch.nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(0))
    course = Course(model, RATES, len(PENALTIES), 1000)
    course.samples.fill_(50)
    return model, course


def measured(course, loss, validation=float("nan"), slope=1.0):
    """The same for all fits at the course's index, or tensors of the shape of all fits."""
    at = course.index
    full = torch.ones(course.reason.shape, dtype=torch.float64)
    shape = (*at[1].shape, CLASSES)
    sums = Sums(
        (full * loss)[at],
        torch.full((*shape, FEATURES), slope),
        torch.full(shape, slope),
        torch.full(shape, 0.1),
    )
    return Measured(sums, (full * validation)[at])


def fits(layer, setting, value=True, other=False):
    out = torch.full((LAYERS, len(RATES) * len(PENALTIES)), other)
    out[layer, setting] = value
    return out


def test_a_fit_that_has_got_worse_goes_back_at_half_the_rate(both):
    model, course = both
    course.judge(model, measured(course, 2.0))
    best, rates = model.weight.detach().clone(), course.rate.clone()
    torch.testing.assert_close(rates[0], torch.tensor([0.1] * 3 + [1.0] * 3))
    with torch.no_grad():
        model.weight.mul_(0.5)
    moved = model.weight.detach().clone()
    loss = torch.full((2, 6), 1.0, dtype=torch.float64)
    loss[1, 4], loss[0, 2] = 9.0, torch.nan
    course.judge(model, measured(course, loss, slope=2.0))
    worse = fits(1, 4) | fits(0, 2)
    torch.testing.assert_close(course.rate, torch.where(worse, rates / 2, rates))
    expected = torch.where(worse[..., None, None], best, moved)
    assert torch.equal(model.weight.detach(), expected)
    assert torch.equal(course.anchor_weight, expected)
    assert (course.slope_weight[worse] == 1).all()
    assert (course.slope_weight[~worse] == 2).all()
    assert torch.isfinite(course.objective).all()


def test_a_small_gradient_stops_a_fit(both):
    model, course = both
    course.judge(model, measured(course, 2.0))
    assert (course.reason == RUNNING).all()
    # A slope that takes the penalty's away leaves nothing.
    found = measured(course, 1.0)
    decay = course.decay[:, None, None]
    found.training.weight[0] = -(decay * model.weight.detach()[0])
    found.training.bias[0] = 0
    course.step.fill_(40)
    course.judge(model, found)
    assert (course.reason[0] == TOLERANCE).all()
    assert (course.reason[1] == RUNNING).all()
    assert (course.steps[0] == 40).all()
    layers, settings = course.index
    assert layers.tolist() == [[1]]
    assert settings.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_settled_validation_part_stops_a_fit_and_its_slower_siblings(both):
    model, course = both
    with torch.no_grad():
        model.weight.zero_()  # no penalty
    for number in range(5):
        validation = 1.0 + 0.1 * number * (~fits(0, 3)).double()
        loss = 2.0 - 0.1 * number - 0.05 * fits(0, 3).double()
        course.step.fill_(20 * number)
        course.judge(model, measured(course, loss, validation))
    # Penalty 0 at the second rate has settled; the first rate was behind it.
    assert int(course.reason[0, 3]) == VALIDATION
    assert int(course.reason[0, 0]) == OVERTAKEN
    assert int(course.steps[0, 3]) == 60
    assert int((course.reason == RUNNING).sum()) == 10
    assert course.index[1].shape == (2, 6)  # the other layer has all six


def test_a_validation_part_that_gets_worse_stops_nothing(both):
    """Else the number of steps would be a second penalty beside C."""
    model, course = both
    for number in range(8):
        course.judge(model, measured(course, 2.0 - 0.1 * number, 1.0 + 0.1 * number))
    assert (course.reason == RUNNING).all()


def test_without_a_validation_part_the_objective_stops(both):
    model, course = both
    for number in range(4):
        course.judge(model, measured(course, 2.0 - 1e-7 * number))
    assert (course.reason == OBJECTIVE).all()


def test_refused_points_are_no_rest(both):
    model, course = both
    course.judge(model, measured(course, 2.0, 1.0))
    for _ in range(6):
        course.judge(model, measured(course, 3.0, 1.0))
    assert (course.reason == RUNNING).all()


def test_all_steps_made(both):
    model, course = both
    course.judge(model, measured(course, 2.0))
    course.step.fill_(1000)
    course.judge(model, measured(course, 1.0))
    assert (course.reason == STEPS).all()
    assert course.at_rest


def test_the_finish_goes_on_with_the_lowest_objective_of_each_penalty(both):
    model, course = both
    loss = torch.tensor([[1.0, 2, 3, 2, 1, 4], [3.0, 3, 3, 1, 1, 1]], dtype=torch.float64)
    with torch.no_grad():
        model.weight.zero_()
    course.judge(model, measured(course, loss))
    course.pick()
    assert course.picked.tolist() == [[0, 4, 2], [3, 4, 5]]
    course.finish(model)
    assert int(course.stage) == FINISH
    assert torch.equal(course.active.nonzero()[:, 1].view(2, 3), course.picked.sort().values)
    assert course.index[1].tolist() == [[0, 2, 4], [3, 4, 5]]
    # On more samples the objective is another, so even a higher one is taken.
    course.judge(model, measured(course, 5.0))
    assert torch.equal(course.chosen(course.objective), torch.full((2, 3), 5.0).double())
    assert torch.equal(
        course.chosen(torch.arange(12).view(2, 6)), torch.tensor([[0, 4, 2], [9, 10, 11]])
    )
