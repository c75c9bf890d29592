from __future__ import annotations

import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from signbridge.errors import ProbeError
from signbridge.probes import ActivationDataModule, LinearProbes
from signbridge.probes.engines import SgdEngine
from signbridge.probes.features import Feature, FeatureSource
from signbridge.probes.torch_model import BatchedLinearProbes
from signbridge.store import open_store


def reference(X, y, C):
    """scikit-learn at its optimum: coefficients and intercepts, one row for each class."""
    fit = LogisticRegression(C=C, tol=1e-10, max_iter=20000).fit(X, y)
    if len(fit.classes_) == 2:
        return np.vstack([-fit.coef_, fit.coef_]) / 2, np.r_[-fit.intercept_, fit.intercept_] / 2
    return fit.coef_, fit.intercept_


def problem(n=80, n_layers=2, n_features=6, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n, n_layers, n_features))
    X[:, 0] += np.eye(n_classes, n_features)[y]
    return X, y


def trained(path, *, C=(1.0,), steps=600, validation=False, **arguments):
    data = ActivationDataModule(path, validation=validation, **arguments)
    module = LinearProbes(
        data.n_layers,
        data.n_features,
        data.n_classes,
        data.n_train,
        C,
        max_steps=steps,
        layer_names=[feature.name for feature in data.features],
        present=data.present,
    )
    trainer = pl.Trainer(
        max_steps=steps,
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
    model.objective(torch.as_tensor(X), torch.as_tensor(y), len(y)).sum().backward()
    assert model.weight.grad.abs().max() < 1e-6
    assert model.bias.grad.abs().max() < 1e-6


def test_logits_are_each_layers_own():
    X, _ = problem()
    model = BatchedLinearProbes(2, 6, 3, [0.1, 1.0, 10.0]).double()
    torch.nn.init.normal_(model.weight)
    torch.nn.init.normal_(model.bias)
    logits = model(torch.as_tensor(X)).detach().numpy()
    W, b = model.weight.detach().numpy(), model.bias.detach().numpy()
    for layer in range(2):
        for k in range(3):
            np.testing.assert_allclose(
                logits[:, layer, k], X[:, layer] @ W[layer, k].T + b[layer, k]
            )


def test_class_without_training_samples_has_probability_zero():
    X, y = problem(n_classes=3)
    model = BatchedLinearProbes(2, 6, 4, [1.0], present=[True, True, True, False]).double()
    value = model.objective(torch.as_tensor(X), torch.as_tensor(y), len(y))
    value.sum().backward()
    assert torch.isfinite(model.weight.grad).all()
    assert (model(torch.as_tensor(X)).softmax(-1)[..., 3] == 0).all()
    np.testing.assert_allclose(value.detach(), np.log(3))  # at zero weights, of three classes


@pytest.mark.parametrize("C", [[], [0.0], [1.0, -1.0]])
def test_penalties_that_cannot_be_used(C):
    with pytest.raises(ProbeError, match="C must be above 0"):
        BatchedLinearProbes(1, 2, 2, C)


def excess(module, data, C, number, k):
    """How far a trained fit's objective lies above scikit-learn's optimum, as a share of it."""
    every = data.standardised_block(0, data.source.n_samples)[data.train_rows].double()
    y = torch.as_tensor(data.labels[data.train_rows])
    best = BatchedLinearProbes(1, data.n_features, data.n_classes, [C]).double()
    coef, intercept = reference(every[:, number].numpy(), y.numpy(), C)
    with torch.no_grad():
        best.weight[0, 0] = torch.as_tensor(coef)
        best.bias[0, 0] = torch.as_tensor(intercept)
        optimum = best.objective(every[:, number : number + 1], y, len(y)).item()
        reached = module.model.double().objective(every, y, len(y))[number, k].item()
    return reached / optimum - 1


@pytest.mark.parametrize("batch_size", [256, 32])
def test_training_approaches_the_optimum(planted, batch_size):
    C = (0.01, 1.0)
    _, module, data = trained(planted, C=C, batch_size=batch_size)
    bound = 1e-5 if batch_size == 256 else 1e-3
    for number in range(3):
        for k, value in enumerate(C):
            assert -1e-6 < excess(module, data, value, number, k) < bound


def test_streamed_training_approaches_the_optimum(make_store):
    path = make_store(n_classes=3, groups_per_class=40, per_group=2, signal={1: 3.0})
    _, module, data = trained(path, C=(0.1,), memory_bytes=64 * 3 * 24 * 4, batch_size=64)
    assert not data.in_memory
    for number in range(3):
        assert -1e-6 < excess(module, data, 0.1, number, 0) < 1e-3


def test_probes_trained_together_are_those_trained_alone(planted):
    _, both, _ = trained(planted, C=(0.1, 1.0), steps=100)
    _, alone, _ = trained(planted, C=(1.0,), steps=100, features=[1])
    torch.testing.assert_close(
        both.model.weight[1, 1], alone.model.weight[0, 0], atol=2e-5, rtol=1e-3
    )


def test_scores_are_logged_for_every_layer(planted):
    trainer, module, data = trained(planted, steps=200, validation=True)
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
    first, again = (trained(planted, steps=60, batch_size=16)[1].model.weight for _ in range(2))
    assert torch.equal(first, again)


def test_engine_reports_a_fit_that_is_far_from_its_optimum(planted):
    store = open_store(planted)
    source = FeatureSource(store, [Feature("resid_post", 1)])
    fold = (np.arange(60), np.arange(60, 80))
    few, many = (
        next(SgdEngine(max_steps=steps).held_out(source, store.labels, 4, [fold], [1.0]))
        for steps in (3, 600)
    )
    assert not few.converged.any()
    assert many.converged.all()
    assert many.relative_tolerance.max() < few.relative_tolerance.min() / 10
