"""Tasks, methods and seeds side by side, and one honest table.

Each run is a process of its own with one thread. Finished runs whose settings and data match are taken as they are.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossmodal import drawing, methods, parsers, plans, run
from crossmodal.errors import UserError
from crossmodal.files import finite, write_json, write_text
from crossmodal.jobs import Cluster, Job, Machine, execute
from crossmodal.naming import by_protocol
from crossmodal.plans import YARDSTICK, Entry, Plan
from crossmodal.report import comparison_pictures, grid, published, ranking, statistics, tables
from crossmodal.training import outcomes, sharding

CLUSTER = "--cluster."


def main(argv: list[str] | None = None) -> int:
    """Command line: see `--help`. Every other option goes to the runs, as `train.py` takes it."""
    arguments, rest = parsers.compare().parse_known_args(argv)
    if sharding.started() > 1:
        raise UserError(
            "a comparison starts processes of its own (--jobs): start it without torchrun or another launcher"
        )
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"jobs: expected a positive number, got {arguments.jobs}")
    parameters, rest = _cluster_parameters(rest)
    if parameters and not arguments.cluster:
        raise UserError(f"cluster.{next(iter(parameters))}: expected --cluster slurm or local as well")
    plan = plans.read(arguments.plan, arguments.tasks, arguments.methods, arguments.seeds, rest)
    jobs, unsuited = assemble(plan, arguments.runs_dir)
    hashes = functools.cache(lambda *row: _hashes(jobs, row))
    waiting = [job for job in jobs if job.prepare(arguments.overwrite, functools.partial(hashes, *_row(job)))]
    if arguments.cluster:
        place = Cluster(arguments.cluster, parameters, arguments.runs_dir.absolute() / "submitit")
    else:
        place = Machine()
    for job in jobs:
        if job not in waiting:
            print(f"{job.name}: finished before, taken as it is", flush=True)
    if plan.all_methods:
        said = ", ".join(dict.fromkeys(job.method for job in jobs))
        print(f"{len(jobs)} runs, {len(waiting)} of them to be done, of all methods that suit: {said}", flush=True)
    many = len(waiting) if arguments.cluster == "slurm" else parsers.cpu_cores()
    execute(waiting, place, arguments.jobs or many)
    report(plan, jobs, unsuited, arguments.runs_dir, arguments.published)
    failed = [job for job in jobs if job.failure]
    for job in failed:
        print(f"{job.name} failed: {job.failure} ({job.beside('.log')})", file=sys.stderr)
    return 1 if failed else 0


def _cluster_parameters(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What `--cluster.KEY VALUE` gives, and the other words."""
    parameters, others, rest = {}, [], iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        if not name.startswith(CLUSTER):
            others.append(word)
            continue
        value = value if given else next(rest, "--")
        if value.startswith("--"):
            raise UserError(f"{name.removeprefix('--')}: expected a value, got none")
        parameters[name.removeprefix(CLUSTER)] = yaml.safe_load(value)
    return parameters, others


def assemble(plan: Plan, runs_dir: Path) -> tuple[list[Job], dict[tuple[str, str], str]]:
    """The runs of a plan, with those of the yardstick, in the order in which they are started; and by (task, method), why some
    have none.

    Raises:
        UserError: names, settings or data that cannot be used; two entries that are the same run.
    """
    jobs, unsuited = [], {}
    for task in plan.tasks:
        own = {method.label: plan.jobs(task, method, runs_dir) for method in plan.methods}
        first = next(iter(own.values()))[0].config
        run.check_names(first)
        data = run.load_task(first)
        if first.data:
            print(data.description, flush=True)
        yardstick = Entry(YARDSTICK, YARDSTICK)
        if all(method.name != YARDSTICK for method in plan.methods):
            own[YARDSTICK] = [] if methods.reason_against(YARDSTICK, data) else plan.jobs(task, yardstick, runs_dir)
        for method in plan.methods:
            reason = methods.reason_against(method.name, data)
            if plan.all_methods and data.is_table and methods.get(method.name).slides:
                reason = "neighbouring values belong together there, and the columns of a table are in no order"
            if reason:
                unsuited[task.label, method.label] = reason
                own[method.label] = []
        jobs += [job for found in own.values() for job in found]
    for path, count in Counter(job.folder.path for job in jobs).items():
        if count > 1:
            same = [f"{job.task}, {job.method}" for job in jobs if job.folder.path == path]
            raise UserError(f"{plan.where}{' and '.join(same)} are the same run; leave one out")
    return jobs, unsuited


def _row(job: Job) -> tuple[str, str, str]:
    return job.task, job.method, job.point


def _hashes(jobs: list[Job], row: tuple[str, str, str]) -> dict[str, str]:
    config = next(job.config for job in jobs if _row(job) == row)
    built, _, objective = run.build(config)
    return run.data_hashes(built, objective)


def tune(jobs: list[Job]) -> tuple[list[Job], list[dict[str, Any]]]:
    """Of each grid the runs of the point that is best on validation, in the mean over the seeds, beside all runs without a grid;
    and what was chosen from.

    Points with failed runs are not chosen where others have none; of equal ones the first is. A NaN is the worst.
    """
    points: dict[tuple[str, str], dict[str, list[Job]]] = {}
    for job in jobs:
        points.setdefault((job.task, job.method), {}).setdefault(job.point, []).append(job)
    kept, chosen = [], []
    for (task, method), found in points.items():
        whole = {point: runs for point, runs in found.items() if not any(job.failure for job in runs)}
        if len(found) == 1 or not whole:
            kept += next(iter(found.values()))
            continue
        means, sign = {}, 1.0
        for point, runs in whole.items():
            results = [job.folder.read_results() for job in runs]
            sign = 1.0 if results[0]["higher_is_better"] else -1.0
            values = [result["validation"] for result in results]
            means[point] = float("nan") if None in values else float(np.mean(values))
        best = max(means, key=lambda point: -np.inf if np.isnan(means[point]) else sign * means[point])
        kept += whole[best]
        chosen.append({"task": task, "method": method, "chosen": best, "validation": means})
    return kept, chosen


def report(
    plan: Plan, jobs: list[Job], unsuited: dict[tuple[str, str], str], folder: Path, all_published: bool
) -> None:
    """Prints the table, and writes it, all numbers and pictures."""
    every, (jobs, chosen) = jobs, tune(jobs)
    done: dict[str, list[tuple[Job, dict[str, Any]]]] = {}
    for job in jobs:
        if not job.failure:
            results = job.folder.read_results() | {"seeded": methods.get(job.config.method).seeded}
            if job.method != job.config.method:  # a name of the user's own
                results["called"] = job.method
            done.setdefault(job.task, []).append((job, results | {"method": job.method}))
    if not done:
        return
    rows = dict.fromkeys([*(method.label for method in plan.methods), *(job.method for job in jobs)])
    failed = Counter((job.task, job.method) for job in jobs if job.failure)
    found = grid.Grid(
        {task: tables.summarise([results for _, results in runs]) for task, runs in done.items()},
        list(rows),
        dict(failed),
        unsuited,
    )
    for task, row in found.fewer():
        row["others"] = on_fewer(row["method"], done[task])
    details = [tables.render(table) for table in found.tasks.values()]
    if len(plan.tasks) == 1:
        text = "".join([*details, *(f"{line}\n" for line in found.gaps())])
        whole = text
    else:
        text = grid.markdown(found)
        whole = "\n".join([text, *details])
    if chosen:
        text, whole = (f"{part}\n{tables.tuning(chosen)}" for part in (text, whole))
    ranked, unranked = rank(done) if plan.all_methods or jobs[0].config.data else ({}, [])
    for added in (*(ranking.render(task, found_) for task, found_ in ranked.items()), "".join(unranked)):
        text, whole = (f"{part}\n{added}" if added else part for part in (text, whole))
    alike = [
        label
        for label, table in found.tasks.items()
        if not table["miniature"] and table["protocol"] in published.PROTOCOLS
    ]
    elsewhere = published.markdown(None if all_published else [task.name for task in plan.tasks if task.label in alike])
    elsewhere = elsewhere and f"\n{elsewhere}"
    for suffix, content in (
        (".md", whole + elsewhere),
        (".tex", grid.latex(found)),
        (".csv", grid.comma_separated(found)),
    ):
        write_text(folder / f"{plan.title}{suffix}", content)
    runs = [
        {
            "task": job.task,
            "method": job.method,
            "point": job.point,
            "seed": job.config.seed,
            "folder": str(job.folder.path),
            "failure": job.failure,
        }
        for job in every
    ]
    write_json(
        folder / f"{plan.title}.json",
        {
            "tasks": found.tasks,
            "average_ranks": found.ranks,
            "tests": found.tests,
            "gaps": found.gaps(),
            "ranking": finite(ranked),
            "tuning": finite(chosen),
            "runs": runs,
        },
    )
    with drawing.style():
        drawn = {f"{plan.title}{name}.png": figure for name, figure in draw(found, done).items()}
        drawing.save_all(drawn, folder)
    print(f"\n{text}{elsewhere}\n{folder / plan.title}.png; pictures of each run: {folder}/*/*.png")


def on_fewer(method: str, runs: list[tuple[Job, dict[str, Any]]]) -> dict[str, float]:
    """Mean errors of the other methods on the test samples of this one, by what they are called; of runs that keep what came of
    these samples."""
    found: dict[str, list[outcomes.Outcomes]] = {}
    for job, results in runs:
        with contextlib.suppress(UserError):
            one = outcomes.load(job.folder.outcomes)
            found.setdefault(results["method"], []).append(one)
    if method not in found or found[method][0].metric == outcomes.SCORE:
        return {}
    measured = found[method][0]
    called = {results["method"]: results.get("called", results["method"]) for _, results in runs}
    errors = {}
    for name, ones in found.items():
        if name != method and all(
            one.metric == measured.metric and set(measured.rows) <= set(one.rows) for one in ones
        ):
            some = [one.some(np.flatnonzero(np.isin(one.rows, measured.rows))) for one in ones]
            errors[called[name]] = float(
                np.mean([one.measure.as_error(one.measure.figure(one.numbers))[1] for one in some])
            )
    return errors


def rank(done: dict[str, list[tuple[Job, dict[str, Any]]]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By task, its methods ranked by what came of each test sample (see `ranking.rank`); and sentences on runs that are not among
    them."""
    ranked, said = {}, []
    for task, runs in done.items():
        found: dict[str, list[outcomes.Outcomes]] = {}
        called = {job.method: results.get("called", job.method) for job, results in runs}
        for job, _ in runs:
            try:
                found.setdefault(job.method, []).append(outcomes.load(job.folder.outcomes))
            except UserError as error:
                said.append(f"Not ranked: {job.name}: {error}.\n")
        found = {method: ones for method, ones in found.items() if ones}
        forms = {(one.metric, len(one)) for ones in found.values() for one in ones}
        if len(forms) == 1 and len(found) > 1:
            ranked[task] = ranking.rank(found) | {"called": called}
        elif len(forms) > 1:
            said.append(f"Not ranked: runs of {task} have other test samples or another metric than one another.\n")
    return ranked, said


def draw(found: grid.Grid, done: dict[str, list[tuple[Job, dict[str, Any]]]]) -> dict[str, Any]:
    """Pictures of a comparison, by what is added to its name; those of several tasks where there are enough."""
    drawn = {"": comparison_pictures.comparison(found.tasks)}
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for task, runs in done.items():
        for job, _ in runs:
            history = job.folder.read_metrics() if job.folder.metrics.is_file() else []
            if history:
                values = drawing.column(history, "validation")
                curves.setdefault(task, {}).setdefault(job.method, []).append(values)
    if curves:
        drawn["-curves"] = comparison_pictures.learning_curves(
            {by_protocol(task, found.tasks[task]["protocol"]): by_method for task, by_method in curves.items()},
            [found.tasks[task]["metric"] for task in curves],
        )
    ranked, means = found.means()
    if found.ranks:
        names = [found.label(name) for name in ranked]
        drawn["-profiles"] = comparison_pictures.profiles(names, means)
        if len(means) >= statistics.FEWEST_TASKS:
            drawn["-ranks"] = comparison_pictures.critical_difference(names, means)
    return drawn
