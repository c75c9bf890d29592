from __future__ import annotations

import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from signbridge.errors import ProbeError
from signbridge.probes import ActivationDataModule, LinearProbes
from signbridge.probes.sgd.linear import BatchedLinearProbes, logits_of, losses


def reference(X, y, C):
    """scikit-learn at its optimum: coefficients and intercepts, one row for each class."""
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=20000).fit(X, y)
    if len(fit.classes_) == 2:
        return np.vstack([-fit.coef_, fit.coef_]) / 2, np.r_[-fit.intercept_, fit.intercept_] / 2
    return fit.coef_, fit.intercept_


def logits_at(model, x):
    return logits_of(x, model.weight, model.bias) + model.absent


def objectives(model, x, y):
    """What the probes' docstring says is minimised, (layers, penalties), on the training part."""
    norm = model.penalty_factor * model.weight.square().sum((-2, -1))
    return losses(logits_at(model, x), y).mean(0) + norm / (2 * len(y) * model.penalties)


def problem(n=80, n_layers=2, n_features=6, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, n_layers, n_features))
    X[:, 0] += np.eye(n_classes, n_features)[y]
    return X, y


def trained(path, *, C=(1.0,), rates=(0.1, 1.0), steps=400, validation=False, **arguments):
    data = ActivationDataModule(path, validation=validation, **arguments)
    module = LinearProbes.of(data, C, rates, steps)
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="cpu",
        limit_val_batches=1.0 if validation else 0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", module=r"lightning\\..*")
        trainer.fit(module, datamodule=data)
    return trainer, module, data


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
def test_gradient_vanishes_at_scikit_learns_optimum(n_classes, C):
    """The objective is scikit-learn's, also for two classes."""
    X, y = problem(n_classes=n_classes)
    model = BatchedLinearProbes(2, 6, n_classes, [C]).double()
    with torch.no_grad():
        for layer in range(2):
            coef, intercept = reference(X[:, layer], y, C)
            model.weight[layer, 0] = torch.as_tensor(coef)
            model.bias[layer, 0] = torch.as_tensor(intercept)
    objectives(model, torch.as_tensor(X), torch.as_tensor(y)).sum().backward()
    assert model.weight.grad.abs().max() < 1e-6
    assert model.bias.grad.abs().max() < 1e-6


def test_logits_are_each_layers_own():
    X, _ = problem()
    model = BatchedLinearProbes(2, 6, 3, [0.1, 1.0, 10.0]).double()
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    logits = logits_at(model, torch.as_tensor(X)).detach().numpy()
    W, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    for layer in range(2):
        for k in range(3):
            np.testing.assert_allclose(
                logits[:, layer, k], X[:, layer] @ W[layer, k].T + b[layer, k]
            )


def test_class_without_training_samples_has_probability_zero():
    X, y = problem(n_classes=3)
    model = BatchedLinearProbes(2, 6, 4, [1.0], present=[True, True, True, False]).double()
    value = objectives(model, torch.as_tensor(X), torch.as_tensor(y))
    value.sum().backward()
    assert torch.isfinite(model.weight.grad).all()
    assert (logits_at(model, torch.as_tensor(X)).softmax(-1)[..., 3] == 0).all()
    np.testing.assert_allclose(value.detach(), np.log(3))  # at zero weights, of three classes


@pytest.mark.parametrize("C", [[], [0.0], [1.0, -1.0]])
def test_penalties_that_cannot_be_used(C):
    with pytest.raises(ProbeError, match="C must be above 0"):
        BatchedLinearProbes(1, 2, 2, C)


def excess(module, data, C, number, k):
    """How far a trained fit's objective lies above scikit-learn's optimum, as a share of it."""
    rows = data.training_part
    every = data.standardised_block(0, data.source.n_samples)[rows].double()
    y = torch.as_tensor(data.labels[rows])
    best = BatchedLinearProbes(1, data.n_features, data.n_classes, [C]).double()
    coef, intercept = reference(every[:, number].numpy(), y.numpy(), C)

    def objective(weight, bias):
        with torch.no_grad():
            best.weight[0, 0], best.bias[0, 0] = torch.as_tensor(weight), torch.as_tensor(bias)
            return objectives(best, every[:, number : number + 1], y).item()

    reached = objective(module.weight[number, k].double(), module.bias[number, k].double())
    return reached / objective(coef, intercept) - 1


@pytest.mark.parametrize(("batch_size", "validation"), [(256, False), (16, True)])
def test_training_comes_to_the_optimum_of_the_whole_training_part(planted, batch_size, validation):
    C = (0.01, 1.0)
    _, module, data = trained(planted, C=C, batch_size=batch_size, validation=validation)
    for number in range(3):
        for k, value in enumerate(C):
            assert -1e-6 < excess(module, data, value, number, k) < 1e-4


def test_more_steps_come_closer(planted):
    gaps = []
    for steps in (20, 60, 200):
        _, module, data = trained(planted, steps=steps, batch_size=16, rates=[0.1])
        gaps.append(max(excess(module, data, 1.0, number, 0) for number in range(3)))
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]


def test_streamed_training_comes_to_the_optimum(make_store):
    path = make_store(n_classes=3, groups_per_class=40, per_group=2, signal={1: 3.0})
    _, module, data = trained(path, C=(0.1,), memory_bytes=64 * 3 * 24 * 4, batch_size=64)
    assert not data.in_memory
    for number in range(3):
        assert -1e-6 < excess(module, data, 0.1, number, 0) < 1e-4


def test_two_classes(make_store):
    path = make_store(n_classes=2, groups_per_class=20, signal={0: 2.0}, layers=(0,))
    _, module, data = trained(path)
    assert -1e-6 < excess(module, data, 1.0, 0, 0) < 1e-4


def test_probes_trained_together_are_those_trained_alone(planted):
    _, both, _ = trained(planted, C=(0.1, 1.0), rates=[0.3], steps=60, batch_size=16)
    _, alone, _ = trained(planted, C=(1.0,), rates=[0.3], steps=60, batch_size=16, features=[1])
    torch.testing.assert_close(both.weight[1, 1], alone.weight[0, 0], atol=1e-6, rtol=1e-4)


def test_each_fit_stops_by_itself(planted):
    """The strongest penalty leaves the least to learn."""
    _, module, _ = trained(planted, C=(1e-4, 1.0), batch_size=16, validation=True)
    schedule = module.schedule
    assert (schedule.search_steps[:, 0] < schedule.search_steps[:, 1]).all()
    assert {int(reason) for reason in schedule.search_reason.flatten()} <= {1, 2, 3}
    assert int(schedule.stage) == 2


def test_the_learning_rate_with_the_lowest_objective_is_taken(planted):
    """One is too small to come anywhere in so few steps."""
    _, module, _ = trained(planted, rates=(1e-4, 0.3), steps=60, batch_size=16)
    assert (module.schedule.picked == 1).all()
    assert torch.equal(module.weight, module.model.weight[:, 1:])


def test_a_learning_rate_that_is_far_too_large_is_halved_until_it_serves(planted):
    _, module, data = trained(planted, rates=[300.0], steps=600, batch_size=16)
    assert (module.schedule.rate < 30).all()
    assert torch.isfinite(module.weight).all()
    for number in range(3):
        assert -1e-6 < excess(module, data, 1.0, number, 0) < 1e-2


def test_what_the_schedule_says_is_so(planted):
    """Objective and gradient, which decide when a fit stops, against autograd in float64."""
    _, module, data = trained(planted, steps=40, batch_size=16, rates=[0.1])
    rows, schedule = data.training_part, module.schedule
    x = data.standardised_block(0, data.source.n_samples)[rows].double()
    model = BatchedLinearProbes(3, data.n_features, data.n_classes, [1.0]).double()
    with torch.no_grad():
        model.weight.copy_(module.weight)
        model.bias.copy_(module.bias)
    value = objectives(model, x, torch.as_tensor(data.labels[rows]))[:, 0]
    value.sum().backward()
    torch.testing.assert_close(schedule.objective[:, 0], value.detach(), rtol=1e-6, atol=0)
    norm = torch.hypot(
        model.weight.grad.flatten(1).norm(dim=1), model.bias.grad.flatten(1).norm(dim=1)
    )
    pull = model.weight.detach().flatten(1).norm(dim=1) / len(rows)
    torch.testing.assert_close(schedule.relative[:, 0], norm / pull, rtol=1e-3, atol=0)


def test_scores_are_logged_for_every_layer(planted):
    trainer, module, data = trained(planted, steps=60, validation=True)
    assert 0 <= trainer.callback_metrics["val/resid_post/1/accuracy"] <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (logged,) = trainer.test(module, datamodule=data, verbose=False)
        parts = trainer.predict(module, datamodule=data)
    rows = torch.cat([part[0] for part in parts])
    p = torch.cat([part[1] for part in parts])
    assert p.shape == (len(data.test_rows), 3, 1, 4)
    for number in range(3):
        right = (p[:, number, 0].argmax(-1) == torch.as_tensor(data.labels)[rows]).float().mean()
        assert logged[f"test/resid_post/{number}/accuracy"] == pytest.approx(right.item(), abs=1e-6)
    assert logged["test/resid_post/1/usable_information"] > 0.5


def test_training_is_the_same_for_a_seed(planted):
    first, again = (trained(planted, steps=60, batch_size=16)[1].weight for _ in range(2))
    assert torch.equal(first, again)


def test_checkpoints_of_earlier_releases_fit():
    """Their tensors' names; training that such a checkpoint holds goes on."""
    names = set(LinearProbes(1, 3, 2).state_dict())
    schedule = (
        "anchor_weight anchor_bias slope_weight slope_bias spread objective relative validation "
        "objectives validations reason steps picked search_steps search_reason stage step samples "
        "start_rate rate penalties"
    )
    assert names >= {f"course.{name}" for name in schedule.split()}
    assert names >= {"model.weight", "model.bias", "model.penalties", "model.absent"}
    assert names >= {f"preconditioner.{name}" for name in ("vectors", "values", "tail")}
    assert all(name.startswith(("model.", "course.", "preconditioner.")) for name in names)
