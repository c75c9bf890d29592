"""The main job: ``signbridge run`` on the bundled sample, from a cold start, in its stages.

    python benchmarks/main_job.py --repeats 3
    python benchmarks/main_job.py --program OTHER/bin/signbridge     # another install beside it

Every repeat is a process of its own in an empty folder, so that imports and compilation count. Its
stages are timed from inside: *before* (imports, images), *extraction*, *probes* (every split and
the refit), *controls* (what a sweep measures besides), *scores* (intervals, comparisons, files),
*report*. The unit is what the job cannot do without: the bare forward passes of the same images,
and the exact fits of every layer on the five folds that score, one thread each, in a process that
has imported all of it before. Processor seconds are those of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from counts import count

STAGES = ("before", "extraction", "probes", "controls", "scores", "report")
BATCH = 16


def timed_run(arguments: list[str]) -> dict[str, float]:
    """Seconds of each stage of ``signbridge run`` in this process, which has just started."""
    began = time.perf_counter()
    starts = {"before": began}

    def begins(stage: str) -> None:
        starts.setdefault(stage, time.perf_counter())

    from signbridge.cli import commands
    from signbridge.cli.main import main
    from signbridge.probes.controls.registry import MEASUREMENTS
    from signbridge.runtime.progress import SweepProgress

    kinds = [kind.name.replace("_", " ") for kind in MEASUREMENTS if kind.name]
    extract, train, report = commands._extract, commands._train_probes, commands.report

    def stage(name: str, function: Any) -> Any:
        def timed(*given: Any, **named: Any) -> Any:
            begins(name)
            return function(*given, **named)

        return timed

    commands._extract = stage("extraction", extract)
    commands._train_probes = stage("probes", train)
    commands.report = stage("report", report)
    say = SweepProgress.__call__

    def said(self: SweepProgress, what: str, done: int, total: int) -> None:
        if what == "scores and intervals":
            begins("scores")
        elif what.partition(",")[0] in kinds:
            begins("controls")
        say(self, what, done, total)

    SweepProgress.__call__ = said  # type: ignore[method-assign]
    status = main(["run", *arguments])
    if status:
        raise SystemExit(status)
    ends = [*sorted(starts.values())[1:], time.perf_counter()]
    return {
        name: end - start
        for (name, start), end in zip(
            sorted(starts.items(), key=lambda item: item[1]), ends, strict=True
        )
    }


def unit(store: str) -> dict[str, float]:
    """Seconds of the bare forward passes, and of the exact fits of every layer of a store."""
    import torch
    from ways import Setting, Workbench

    from signbridge.images import open_images
    from signbridge.probes.config import SweepConfig
    from signbridge.probes.dataset.features import FeatureSource, select_features
    from signbridge.probes.dataset.plan import make_plan
    from signbridge.probes.engines import ExactEngine
    from signbridge.store import open_store

    torch.set_num_threads(1)
    bench = Workbench(Setting("tiny", len(open_images("sample")), BATCH))

    def forward() -> None:
        for batch in bench.inputs:
            bench.model(**batch)

    with torch.no_grad(), open_store(store) as opened:
        plan = make_plan(SweepConfig(store), opened)
        source = FeatureSource(opened, select_features(opened, baselines=False))

        def fit() -> None:
            n_classes = len(opened.class_names)
            for _ in ExactEngine().held_out(source, plan.labels, n_classes, plan.main.folds, [1.0]):
                pass

        found = {}
        for name, work in (("forward", forward), ("fits", fit)):
            work()  # what is set up at first use is not its work
            began = time.perf_counter()
            work()
            found[name] = time.perf_counter() - began
    return found


def in_a_process(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Seconds by the clock and of processors, and the last line that a command prints."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before = used.ru_utime + used.ru_stime
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, used.ru_utime + used.ru_stime - before, done.stdout.strip().splitlines()[-1]


def main(arguments: list[str] | None = None) -> None:
    """Time the job, and print what it took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=count, default=1)
    parser.add_argument("--program", help="another install's signbridge, run in turns with this")
    parser.add_argument("--options", default="", help="of run, such as '--layers [0,7]'")
    parser.add_argument("--stages", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--unit", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    options = given.options.split()
    if given.stages:
        print(json.dumps(timed_run(options)))
        return
    if given.unit:
        print(json.dumps(unit(given.unit)))
        return
    script = [sys.executable, str(Path(__file__).resolve())]
    walls: list[float] = []
    processors: list[float] = []
    others: list[tuple[float, float]] = []
    stages: list[dict[str, float]] = []
    units: list[dict[str, float]] = []
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            child = [*script, "--stages", f"--options={given.options}"]
            wall, used, line = in_a_process(child, folder)
            walls.append(wall)
            processors.append(used)
            stages.append(json.loads(line))
            store = next(folder.rglob("*.h5"))
            units.append(json.loads(in_a_process([*script, "--unit", str(store)], folder)[2]))
        if given.program:
            with tempfile.TemporaryDirectory() as name:
                other = [str(Path(given.program).absolute()), "run", *options]
                others.append(in_a_process(other, Path(name))[:2])
    total, one = statistics.median(walls), statistics.median(sum(u.values()) for u in units)
    print(f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    print("| stage | seconds | share |\n| --- | ---: | ---: |")
    for name in STAGES:
        seconds = statistics.median(stage[name] for stage in stages)
        print(f"| {name} | {seconds:.1f} | {100 * seconds / total:.0f} % |")
    used = statistics.median(processors)
    print(f"| all, from the process's start | {total:.1f} ({used:.1f} of processors) | |")
    parts = ", ".join(f"{k} {statistics.median(u[k] for u in units):.2f} s" for k in units[0])
    print(f"unit: {parts}; the job takes {total / one:.1f} units")
    if others:
        wall, used = (statistics.median(values) for values in zip(*others, strict=True))
        print(
            f"{given.program}: {wall:.1f} s ({used:.1f} of processors), {wall / one:.1f} units; "
            f"the job takes {total / wall:.2f} of that"
        )


if __name__ == "__main__":
    main()
