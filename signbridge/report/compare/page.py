"""The page and files of a comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbridge import __version__
from signbridge.errors import ProbeError
from signbridge.report.compare.by_layer import differences_by_layer
from signbridge.report.compare.curves import curves_figure
from signbridge.report.compare.differences import PairedDifference, differences, to_csv
from signbridge.report.compare.runs import Run, layer_words, load_runs, warnings_of, what_differs
from signbridge.report.compare.side_by_side import side_by_side
from signbridge.report.figures import style
from signbridge.report.figures.axes import points
from signbridge.report.figures.fonts import missing_note
from signbridge.report.groups import few_accuracies
from signbridge.report.template import fill_template, plot_words, section
from signbridge.report.text.first_screen import interval_text
from signbridge.report.text.tables import Cell, Row, Table
from signbridge.results.comparisons import p_text
from signbridge.results.features import RESID_POST
from signbridge.runtime.files import refusal, replace_file, try_to_write
from signbridge.runtime.reading import read_bytes
from signbridge.statistics.metrics import COMPARED, measure

if TYPE_CHECKING:
    from signbridge.report.figures.plot import Plot

__all__ = ["write_comparison"]

PAGE = "compare.html"
RECORD = "comparison.json"
TABLE = "differences.csv"
FORMAT = "signbridge-comparison"


def write_comparison(
    paths: Sequence[str | Path],
    output: str | Path | None = None,
    metric: str = "accuracy",
) -> Path:
    """Compare results folders: one curve, paired differences, and what differs between the runs.

    Args:
        paths: Two to eight results folders.
        output: The folder to write; ``results/A-vs-B`` by default. A comparison that is there
            already is written anew.
        metric: ``accuracy`` or ``usable_information``.

    Returns:
        Path of ``compare.html``; beside it ``differences.csv``, ``comparison.json`` and the figures
        with their data.

    Raises:
        ProbeError: Fewer than two folders, one given twice or not a whole results folder, a metric
            that they do not hold, or an output that is no comparison or cannot be written.
    """
    if metric not in COMPARED:
        raise ProbeError(f"compare knows the metrics {' and '.join(COMPARED)}, not {metric!r}.")
    runs = load_runs(paths)
    for run in runs:
        if not run.results.curve(RESID_POST, metric, run.results.split):
            raise ProbeError(f"{run.results.path} holds no {metric} of the layers: leave it out.")
    folder = _folder(runs, output)
    found, notes = differences(runs, metric)
    plots = [curves_figure(runs, metric), side_by_side(runs, metric)]
    by_layer = differences_by_layer(runs, found)
    if by_layer is not None:
        plots.insert(1, by_layer)
    missing = {one for plot in plots for one in (*plot.wide.missing, *plot.narrow.missing)}
    names = [name for run in runs for name in (run.name, *run.results.class_names)]
    notes += filter(None, [missing_note(missing, names)])
    page = fill_template(
        "compare.html.j2",
        title=" against ".join(style.short(run.name, 40) for run in runs),
        headline=_headline(runs, found, metric),
        first=plot_words(plots[0]),
        warnings=[*warnings_of(runs), *notes],
        sections=_sections(runs, plots[1:], found, metric),
    )
    record = {
        "format": FORMAT,
        "version": "1.0",
        "metric": metric,
        "runs": [{"name": run.name, "path": str(run.results.path)} for run in runs],
        "differs": {d.key: list(d.values) for d in what_differs(runs)},
        "warnings": [*warnings_of(runs), *notes],
        "signbridge": __version__,
    }
    path = folder / PAGE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode(), durable=False)
        replace_file(folder / TABLE, to_csv(found).encode(), durable=False)
        for plot in plots:
            plot.save(folder / "figures")
        replace_file(path, page.encode("utf-8", errors="replace"), durable=False)
    except OSError as error:
        raise _not_written(folder, error) from error
    return path


def _folder(runs: Sequence[Run], output: str | Path | None) -> Path:
    if output:
        folder = Path(output)
    else:
        names = [run.name.replace("/", "-") for run in runs]
        more = f"-and-{len(names) - 3}-more" if len(names) > 3 else ""
        folder = runs[0].results.path.parent / f"{'-vs-'.join(names[:3])}{more}"
    try:
        _refuse_other(folder)
        try_to_write(folder / RECORD)
    except OSError as error:
        raise _not_written(folder, error) from error
    return folder


def _refuse_other(folder: Path) -> None:
    """Refuse a folder that holds anything but a comparison, which is written anew."""
    if folder.is_symlink() and not folder.exists():
        raise ProbeError(
            f"{folder} is a link to {folder.readlink()}, which is not there: give --output another "
            "folder."
        )
    if folder.exists() and not folder.is_dir():
        raise ProbeError(f"{folder} is a file: give --output the name of a folder.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    record = folder / RECORD
    if not (record.is_file() and FORMAT.encode() in read_bytes(record)):
        raise ProbeError(
            f"{folder} holds other files and no comparison: give --output another folder."
        )


def _not_written(folder: Path, error: OSError) -> ProbeError:
    return ProbeError(
        f"The comparison cannot be written: {refusal(error, folder)}, or give another --output."
    )


def _amount(value: float, metric: str) -> str:
    if measure(metric).is_share:
        return points(value)
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def _sections(
    runs: Sequence[Run], plots: Sequence[Plot], found: Sequence[PairedDifference], metric: str
) -> list[dict[str, Any]]:
    """The page below its first figure."""
    names = tuple(run.name for run in runs)
    differs = [Row(d.key, cells=tuple(map(Cell, d.values))) for d in what_differs(runs)]
    same = (
        "Nothing in the provenance or the protocol: model, images, prompt, split and seeds agree."
    )
    sections = [
        section("differs", "What differs", Table(("setting", *names), tuple(differs), words=True))
        if differs
        else section("differs", "What differs", same),
        *(section(plot.name, plot.title, plot=plot) for plot in plots),
    ]
    note = f"{_images(found)} Each best layer was chosen on these images, which favours both."
    groups = _by_group(runs)
    for name, title, table in (
        ("best", "Best layer against best layer", _table(runs, found, metric, "best", note)),
        ("baselines", "Baselines, paired", _table(runs, found, metric, "baselines")),
        (
            "groups",
            "Group by group",
            Table(("accuracy at the best layer, %", *names), tuple(groups)),
        ),
    ):
        if table.rows:
            sections.append(section(name, title, table))
    sections += [
        section(f"run-{number}", run.name, _about(run), closed=True)
        for number, run in enumerate(runs)
    ]
    return sections


def _table(
    runs: Sequence[Run],
    found: Sequence[PairedDifference],
    metric: str,
    family: str,
    note: str = "",
) -> Table:
    rows = []
    for d in found:
        if d.family != family or (family == "baselines" and "/" in d.a):
            continue
        mine, other = (
            _feature(feature, next(run for run in runs if run.name == name), runs)
            for name, feature in ((d.run, d.a), (d.other, d.b))
        )
        what = f"{mine} minus {other}" if mine != other else mine
        p, corrected = (p_text(value, "").lstrip(" =") for value in (d.p, d.p_corrected))
        cells = (_amount(d.difference, d.metric), _ends(d), p, corrected)
        rows.append(Row(f"{d.run} minus {d.other}: {what}", cells=tuple(map(Cell, cells))))
    unit = measure(metric).unit_of_differences
    heads = ("paired on the same images", unit, "95 % interval", "p", "corrected p")
    return Table(heads, tuple(rows), note)


def _ends(d: PairedDifference) -> str:
    if not (math.isfinite(d.ci_low) and math.isfinite(d.ci_high)):
        return ""
    return f"{_amount(d.ci_low, d.metric)} to {_amount(d.ci_high, d.metric)}"


def _feature(name: str, run: Run, runs: Sequence[Run]) -> str:
    feature, _, layer = name.partition("/")
    if not layer:
        return style.feature_label(feature)
    if feature == RESID_POST:
        return layer_words(run, int(layer), runs)
    return f"{style.feature_label(feature)} {layer}"


def _headline(runs: Sequence[Run], found: Sequence[PairedDifference], metric: str) -> str:
    """The best layers of the first two runs, or of several."""
    scores = {
        run.name: run.results.score(RESID_POST, run.results.best_layer, metric) for run in runs
    }
    if len(runs) == 2:
        one, two = runs
        pair = next((d for d in found if d.family == "best"), None)
        a, b = scores[one.name], scores[two.name]
        if pair is not None and a is not None and b is not None:
            unit = measure(metric).unit_of_differences
            parts = [f"{_amount(pair.difference, metric)} {unit}", _ends(pair)]
            size = ", ".join(filter(None, (*parts, p_text(pair.p_corrected))))
            words = {
                "above": "is above",
                "below": "is below",
                "open": "cannot be told apart from",
                "": "is set beside",
            }[pair.relation]
            untested = "" if pair.relation else f"; {pair.n_groups} groups permit no test"
            return (
                f"At its best layer {two.name} "
                f"({style.format_value(metric, b.value)}, "
                f"{layer_words(two, two.results.best_layer, runs)}) {words} "
                f"{one.name} ({style.format_value(metric, a.value)}, "
                f"{layer_words(one, one.results.best_layer, runs)}): {size}, paired on the "
                f"same images{untested}."
            )
    highest = []
    for name, s in scores.items():
        if s is not None:
            ends = interval_text(s.ci_low, s.ci_high, metric)
            value = style.format_value(metric, s.value)
            highest.append(f"{name} {value}" + (f" ({ends})" if ends else ""))
    label = measure(metric).label
    return f"Highest held-out {label}: {', '.join(highest)}."


def _by_group(runs: Sequence[Run]) -> list[Row]:
    """Accuracy of each of a few groups at the best layer of each run, by the group's name."""
    found = [few_accuracies(run.results, run.results.best_feature) for run in runs]
    values = {
        name: [style.format_value("accuracy", one.get(name, math.nan)) for one in found]
        for name in dict.fromkeys(name for one in found for name in one)
    }
    return [
        Row(style.printable(name), cells=tuple(Cell(v.removesuffix(style.PER_CENT)) for v in row))
        for name, row in values.items()
    ]


def _images(found: Sequence[PairedDifference]) -> str:
    sizes = {(d.n_images, d.n_groups) for d in found}
    if len(sizes) != 1:
        return ""
    n, groups = sizes.pop()
    return (
        f"{n:,} images in {groups:,} groups are in both runs of a pair." if groups < n
        else f"{n:,} images are in both runs of a pair."
    )  # fmt: skip


def _about(run: Run) -> list[tuple[str, str]]:
    results = run.results
    n_groups = results.store.n_groups
    rows = [
        ("folder", str(results.path)),
        ("images", f"{len(results.predictions.sample_id):,}"),
        ("groups", "" if n_groups is None else f"{n_groups:,}"),
        ("classes", str(len(results.class_names))),
        ("layers", f"{len(results.layers)} of {results.n_layers}"),
        ("split", style.split_label(results.split)),
        ("best layer", str(results.best_layer)),
        ("command", results.summary.command),
    ]
    return [row for row in rows if row[1]]
