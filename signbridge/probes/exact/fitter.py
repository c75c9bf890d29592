"""Cut a call's fits into batches that fit into memory, solve them, and collect the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from signbridge.errors import ProbeError
from signbridge.probes.exact.design import BatchedDesign, Design, SharedDesign
from signbridge.probes.exact.inputs import Layers
from signbridge.probes.exact.jobs import Job, RotatedJob, Settings, StreamedLayer, is_rotated
from signbridge.probes.exact.newton import Problem, minimise

# On a CPU more fits side by side than its cache holds are slower than the same in turn.
_CACHE_BYTES = 2 << 20
_ROUNDING = 2e-13  # share of the gradient's scale at zero that float64 rounding leaves


class Fitter:
    """One call's input and its results, each with the axes (layer, fold, labels, penalty).

    Args:
        layers: the features.
        codes: (label vectors, samples) class indices.
        weight: (label vectors, folds, samples) weights.
        classes: number of classes.
        settings: what the user chose.
        solved: called with the share of the fits that has been solved since the last call.
    """

    def __init__(
        self,
        layers: Layers,
        codes: Tensor,
        weight: Tensor,
        classes: int,
        settings: Settings,
        solved: Callable[[float], None] | None = None,
    ) -> None:
        self.solved = solved
        self.layers = layers
        self.settings = settings
        self.codes = codes.to(layers.device)
        self.weight = weight.to(layers.device)
        self.classes = classes
        P, F, N = weight.shape
        D = layers.features
        grid = (len(layers), F, P, len(settings.C))
        self.coef = self._zeros(*grid, classes, D) if settings.coef else None
        self.intercept = self._zeros(*grid, classes) if settings.coef else None
        self.decision = self._zeros(*grid, N, classes) if settings.decision else None
        self.mean = self._zeros(*grid[:2], D) if settings.standardise else None
        self.deviation = self._zeros(*grid[:2], D) if settings.standardise else None
        self.gradient_norm = torch.zeros(grid, dtype=torch.float64)
        self.penalty_norm = torch.zeros(grid, dtype=torch.float64)
        self.n_iter = torch.zeros(grid, dtype=torch.int64)
        self.converged = torch.zeros(grid, dtype=torch.bool)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self.layers.device)

    def run(self) -> None:
        """Solve everything."""
        P, F, _ = self.weight.shape
        every = torch.arange(P, device=self.layers.device)
        room = self._room()
        if self._streamed():
            together = min(F, room)
            for layer in range(len(self.layers)):
                X = self.layers[layer]
                stream = StreamedLayer(X, layer, self.weight.mean(0), self.settings)
                for start in range(0, F, together):
                    folds = range(start, min(start + together, F))
                    jobs = self._noted(stream.jobs(folds))
                    for labels in every.split(max(1, room // together)):
                        self._collect(
                            jobs, labels, *self._solve(jobs, labels, stream), {layer: X}, stream
                        )
                del stream  # the next layer's features must not lie beside these
            return
        if P > 1:
            for layer in range(len(self.layers)):
                X = self.layers[layer]
                for fold in range(F):
                    jobs = [self._job(X, layer, fold)]
                    for labels in every.split(room):
                        self._collect(jobs, labels, *self._solve(jobs, labels), {layer: X})
                    del jobs
            return
        for pairs in self._pairs():
            jobs, loaded = [], {}
            for layer, fold in pairs:
                if layer not in loaded:
                    loaded = {layer: self.layers[layer]}
                jobs.append(self._job(loaded[layer], layer, fold))
            self._collect(jobs, every, *self._solve(jobs, every), loaded)

    # -- cutting --------------------------------------------------------------------------------

    def _largest(self) -> int:
        largest = (self.weight.sum(0) > 0).sum(1).max()
        return int(largest)

    def _streamed(self) -> bool:
        return not is_rotated(self._largest(), self.layers.features, self._fits)

    @property
    def _fits(self) -> int:
        return len(self.codes) * len(self.settings.C)

    def _room(self) -> int:
        """Fits that the memory limit allows side by side."""
        n, r = self._largest(), self.layers.features
        streamed = self._streamed()
        if streamed:
            n = int((self.weight > 0).any(0).any(0).sum())
        else:
            r = min(n, r)
        own = 0
        if not streamed and len(self.codes) == 1:
            # Basis, design, design in float32, what is kept of both when fits have ended; and the
            # coordinates of all samples.
            own = 4 * n * r + (self.weight.shape[2] * r if self.settings.decision else 0)
        per_fit = 8 * (own + self.classes * ((14 + len(self.settings.C)) * (r + 1) + 8 * n))
        room = self.settings.memory_limit // per_fit
        if self.layers.device.type == "cpu":
            # What the directions are computed from: the design, and eight arrays of a fit.
            design = n * r if len(self.codes) == 1 and not streamed else 0
            room = min(room, _CACHE_BYTES // (4 * (design + self.classes * (5 * r + 3 * n))))
        return max(1, room)

    def _pairs(self) -> Iterator[list[tuple[int, int]]]:
        folds = self.weight.shape[1]
        pairs = [(layer, fold) for layer in range(len(self.layers)) for fold in range(folds)]
        room = self._room()
        for start in range(0, len(pairs), room):
            yield pairs[start : start + room]

    def _job(self, X: Tensor, layer: int, fold: int) -> Job:
        weight = self.weight[:, fold].mean(0)
        return self._noted([RotatedJob(X, layer, fold, weight, self.settings)])[0]

    def _noted(self, jobs: list[Job]) -> list[Job]:
        """Note how the jobs are standardised."""
        for job in jobs:
            if self.mean is not None and self.deviation is not None and job.scaling is not None:
                self.mean[job.layer, job.fold] = job.scaling.mean
                self.deviation[job.layer, job.fold] = job.scaling.deviation
        return jobs

    # -- solving --------------------------------------------------------------------------------

    def _folds(self, jobs: list[Job], labels: Tensor) -> Tensor:
        """The fold of each fit."""
        folds = torch.tensor([job.fold for job in jobs], device=self.layers.device)
        return folds.repeat_interleave(len(labels))

    def _designs(
        self, jobs: list[Job], labels: Tensor, stream: StreamedLayer | None
    ) -> tuple[Design, Design, Tensor]:
        """The data in float64 and float32, and the spectrum (jobs, r + 1)."""
        r = max(job.rank for job in jobs) + 1
        spectrum = self._zeros(len(jobs), r)
        for j, job in enumerate(jobs):
            spectrum[j, : job.rank] = job.spectrum
        spectrum[:, -1] = 1
        if stream is not None:
            return *stream.designs(self._folds(jobs, labels)), spectrum
        Z = self._zeros(len(jobs), max(len(job.rows) for job in jobs), r)
        for j, job in enumerate(jobs):
            assert job.basis is not None
            Z[j, : len(job.rows), : job.rank] = job.basis.Z
        if self.settings.fit_intercept:
            Z[..., -1] = 1
        if len(jobs) == 1:
            first, row = Z[0], spectrum[0]
            narrow = SharedDesign(first.float(), row.float())
            return SharedDesign(first, row), narrow, spectrum
        return BatchedDesign(Z, spectrum), BatchedDesign(Z.float(), spectrum.float()), spectrum

    def _targets(self, jobs: list[Job], labels: Tensor) -> tuple[Tensor, Tensor]:
        """Class indices and weights (fits, n), padded with samples of weight zero."""
        n = max(len(job.rows) for job in jobs)
        weight = self._zeros(len(jobs), len(labels), n)
        y = torch.zeros_like(weight, dtype=torch.int64)
        for j, job in enumerate(jobs):
            y[j, :, : len(job.rows)] = self.codes[labels][:, job.rows]
            weight[j, :, : len(job.rows)] = self.weight[labels, job.fold][:, job.rows]
        return y.flatten(0, 1), weight.flatten(0, 1)

    def _of_fits(self, values: list[float], labels: Tensor) -> Tensor:
        """One value a job as one a fit."""
        each = torch.tensor(values, dtype=torch.float64, device=self.layers.device)
        return each.repeat_interleave(len(labels))

    def _solve(
        self, jobs: list[Job], labels: Tensor, stream: StreamedLayer | None = None
    ) -> tuple[Tensor, Tensor]:
        """Solve the path of penalties, from strong to weak, each from the one before.

        Args:
            jobs: several with one label vector, one with several, or what one stream serves; fits
                run job by job.
            labels: indices of the label vectors.
            stream: the layer of jobs that are streamed.

        Returns:
            The classes that each fit has, (fits, classes), and the parameters (fits, penalties,
            classes, r + 1), penalties as in the settings.
        """
        wide, narrow, spectrum = self._designs(jobs, labels, stream)
        y, weight = self._targets(jobs, labels)
        total = weight.sum(1)
        weight = weight / total[:, None]
        present = self._zeros(len(y), self.classes).scatter_add_(1, y, weight) > 0
        number = present.sum(1)
        if bool((number < 2).any()):
            fold = jobs[int((number < 2).nonzero()[0, 0]) // len(labels)].fold
            raise ProbeError(
                f"Fold {fold} has training samples of one class only: use fewer folds or classes "
                "with more samples."
            )
        absent = None
        if not bool(present.all()):
            absent = torch.where(present, 0.0, -torch.inf)[:, :, None].to(weight)
        unit = self._of_fits([job.unit for job in jobs], labels)
        # The intercept's part of the gradient is in no unit: it counts as that of small features.
        share = self._of_fits([min(1.0, job.size or 1.0) / job.unit for job in jobs], labels)
        # The gradient's scale at zero, the root of E ||z||^2, frees the floors of units.
        size = spectrum[:, :-1].sum(1).sqrt().repeat_interleave(len(labels))
        scale = torch.hypot(size, share)
        plain = self._of_fits([float(job.size == 0) for job in jobs], labels)
        # scikit-learn's binary objective has one row w = W1 - W0, so ||w||^2 = 2 ||W||^2.
        binary = torch.where(number == 2, 2, 1)
        grid = [(job.layer, job.fold, p) for job in jobs for p in labels.tolist()]
        index = tuple(torch.tensor(axis) for axis in zip(*grid, strict=True))
        V = self._zeros(len(y), self.classes, spectrum.shape[1])
        path = self._zeros(len(y), len(self.settings.C), *V.shape[1:])
        for c in torch.tensor(self.settings.C).argsort().tolist():
            penalty = binary / (self.settings.C[c] * total) / unit / unit
            if not bool(torch.isfinite(penalty).all()):
                raise ProbeError(
                    f"C is {self.settings.C[c]:g}, and its penalty of these features and weights "
                    "is beyond float64: choose a larger C, or multiply the features by a constant."
                )
            alike = bool((share == 1).all())
            problem = Problem(y, weight, penalty, None if alike else share, plain, absent)
            solution = minimise(
                wide,
                narrow,
                problem,
                V,
                tol=self.settings.tol,
                floor=_ROUNDING * scale,
                max_iter=self.settings.max_iter,
            )
            V = path[:, c] = solution.V
            at = (*index, torch.tensor(c))
            self.gradient_norm[at] = (unit * solution.gradient_norm).cpu()
            self.penalty_norm[at] = (unit * solution.penalty_norm).cpu()
            self.n_iter[at] = solution.n_iter.cpu()
            self.converged[at] = solution.converged.cpu()
        return present, path

    # -- collecting -----------------------------------------------------------------------------

    def _collect(
        self,
        jobs: list[Job],
        labels: Tensor,
        present: Tensor,
        path: Tensor,
        loaded: dict[int, Tensor],
        stream: StreamedLayer | None = None,
    ) -> None:
        """Take the solutions back to features and to all samples."""
        count = len(labels)
        streamed = torch.empty(0)
        if stream is not None and self.decision is not None:
            streamed = stream.logits(path.flatten(1, 2), self._folds(jobs, labels))
        for j, job in enumerate(jobs):
            part = slice(j * count, (j + 1) * count)
            there = present[part, None, :]
            V = path[part]
            shape = V.shape[:3]  # (labels, penalties, classes)
            inner = V[..., : job.rank].flatten(0, 2)
            # A common shift of the intercepts is free: centre them over the classes present.
            shift = (V[..., -1] * there).sum(-1) / there.sum(-1)
            offset = torch.where(there, V[..., -1] - shift[..., None], -torch.inf)
            X = torch.empty(0)
            if self.coef is not None:
                if job.layer not in loaded:
                    loaded.clear()
                    loaded[job.layer] = self.layers[job.layer]
                X = loaded[job.layer]
            if self.decision is not None:
                logits = streamed[part] if job.Z_all is None else inner @ job.Z_all.mT
                logits = logits.reshape(*shape, -1).add_(offset[..., None])
                self.decision[job.layer, job.fold, labels] = logits.mT
            if self.coef is not None and self.intercept is not None:
                W = job.to_features(inner, X)
                self.intercept[job.layer, job.fold, labels] = offset - (W @ job.centre).unflatten(
                    0, shape
                )
                self.coef[job.layer, job.fold, labels] = W.unflatten(0, shape)
        if self.solved is not None:
            self.solved(len(present) / (len(self.layers) * self.weight.shape[:2].numel()))
