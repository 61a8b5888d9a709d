# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The command ``python -m anomalib_logic.benchmark``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from anomalib_logic._progress import duration

from .jobs import (
    DONE,
    Job,
    Place,
    Result,
    digest_of_text,
    is_configuration,
    is_done,
    read_results,
    seconds_left,
    shard_of,
)
from .report import in_order, page, section, write_csv
from .runner import run_jobs
from .suites import OURS, OWN_BACKBONE, PEERS, SUITES, UNTRAINED, categories_in

DESCRIPTION = """Measure models on data sets and write tables. What has a result is skipped, what failed is tried
again; so the same command goes on where it was stopped. Results of several machines are merged by copying their files
together."""
PACKAGED = "tf_efficientnet_lite0"
WEIGHTS = ("packaged", "timm", "none")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    result = argparse.ArgumentParser(prog="python -m anomalib_logic.benchmark", description=DESCRIPTION)
    suites = "; ".join(f"{name}: {suite.about}" for name, suite in SUITES.items())
    result.add_argument("suite", choices=SUITES, metavar="SUITE", help=suites)
    models = f"{', '.join((*OURS, *PEERS))}, or configuration files (.yaml)"
    result.add_argument("--models", nargs="+", metavar="MODEL", help=f"{models}; the suite's by default")
    result.add_argument("--categories", nargs="+", metavar="NAME", help="the suite's by default")
    result.add_argument("--seeds", nargs="+", type=int, metavar="N", help="the suite's by default")
    result.add_argument("--root", type=Path, help="folder of the data set; ./datasets/... by default")
    result.add_argument("--output", type=Path, default=Path("results/benchmark"), help="folder of the results")
    result.add_argument("--page", type=Path, help="page of results; results.md in the output folder by default")
    result.add_argument("--backbone", default=PACKAGED, help="a model of timm, for all models that take one")
    weights = "packaged (with the package's extra 'weights'), timm (a download), none (random), or a file"
    result.add_argument("--weights", help=f"of the backbone: {weights}; packaged for {PACKAGED}, else timm by default")
    result.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the images; the suite's by default")
    result.add_argument("--epochs", type=int, metavar="N", help="of all models that are trained; their own by default")
    result.add_argument("--limit", type=int, metavar="N", help="use at most so many images of each split, for a trial")
    result.add_argument("--options", default="{}", metavar="JSON", help="more arguments of the models, as an object")
    result.add_argument("--name", help="name of the row in tables, with one model; the model's by default")
    result.add_argument("--device", default="cpu", help="accelerator of Lightning's trainer: cpu, cuda, mps, auto")
    result.add_argument("--shard", metavar="I/N", help="run the I-th of N parts of the jobs only")
    result.add_argument("--pictures", action="store_true", help="draw test images, ground truth and maps of each job")
    result.add_argument("--plots", action="store_true", help="draw plots of all results (needs the extra 'plots')")
    result.add_argument("--report", action="store_true", help="run nothing, only write tables of the results there are")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status: 0, 1 if a job failed, 2 for wrong arguments, 130 if it was interrupted.
    """
    args = parser().parse_args(arguments)
    console = Console()
    try:
        if args.plots:
            require_matplotlib()
        read_results(args.output)  # raises if a file is broken
        jobs = [] if args.report else jobs_of(args)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failed = run(jobs, args, console)
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        return 130
    write_reports(args, console)
    return 1 if failed else 0


def require_matplotlib() -> None:
    """Raise ``ModuleNotFoundError`` before hours of work rather than after them."""
    if find_spec("matplotlib") is None:
        msg = "--plots needs matplotlib: pip install 'anomalib-logic[plots]'"
        raise ModuleNotFoundError(msg)


def jobs_of(args: argparse.Namespace) -> list[Job]:
    """Jobs of the arguments.

    Raises:
        ValueError: If an argument is wrong.
        FileNotFoundError: If a file or folder is missing.
    """
    suite = SUITES[args.suite]
    models = tuple(args.models or suite.models)
    if len(set(map(config_name, models))) < len(models):
        msg = f"two models have the same name in --models {' '.join(models)}; rename a file, or run them one by one"
        raise ValueError(msg)
    if args.name and len(models) > 1:
        msg = f"--name names one model, but there are {len(models)}; pass one with --models"
        raise ValueError(msg)
    for name, least in (("image_size", 1), ("epochs", 1), ("limit", 2)):
        value = getattr(args, name)
        if value is not None and value < least:
            msg = f"--{name.replace('_', '-')} must be at least {least}, got {value}"
            raise ValueError(msg)
    categories = args.categories or suite.categories or categories_in(root_of(args))
    if suite.categories and (unknown := set(categories) - set(suite.categories)):
        msg = f"category {sorted(unknown)[0]} is not in suite {args.suite}, which has {', '.join(suite.categories)}"
        raise ValueError(msg)
    jobs = [
        Job(suite=args.suite, category=category, seed=seed, **model_fields(args, model))
        for seed in (args.seeds if args.seeds is not None else suite.seeds)
        for category in categories
        for model in models
    ]
    if args.shard:
        jobs = shard_of(jobs, *parse_shard(args.shard))
    return jobs


def model_fields(args: argparse.Namespace, model: str) -> dict[str, Any]:
    """What a job says of its model."""
    suite = SUITES[args.suite]
    fields: dict[str, Any] = {
        "row": args.name or model,
        "model": model,
        "backbone": args.backbone,
        "weights": weights_name(weights_of(args)),
        "image_size": args.image_size or suite.image_size,
        "epochs": None if model in UNTRAINED else args.epochs or (suite.epochs or {}).get(model),
        "limit": args.limit,
        "options": json.dumps(options_of(args.options), sort_keys=True),
    }
    if is_configuration(model):
        file = Path(model)
        if not file.is_file():
            msg = f"there is no configuration file {model}"
            raise FileNotFoundError(msg)
        own = {"backbone": "its own", "weights": "", "image_size": 0, "config": digest_of_text(file.read_bytes())}
        return {**fields, "row": args.name or config_name(model), "model": config_name(model), **own}
    if model not in (*OURS, *PEERS):
        msg = f"model must be one of {', '.join((*OURS, *PEERS))} or a configuration file (.yaml), got '{model}'"
        raise ValueError(msg)
    return {**fields, "backbone": "its own", "weights": ""} if model in OWN_BACKBONE else fields


def config_name(file: str) -> str:
    """Name of a configuration file: its folder and its name, as far as they are given."""
    return "/".join(Path(file).with_suffix("").parts[-2:])


def options_of(text: str) -> dict[str, Any]:
    """Read ``--options``."""
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        msg = f"""--options must be a JSON object such as '{{"noise": 0}}', got {text}"""
        raise ValueError(msg)
    return options


def weights_of(args: argparse.Namespace) -> str:
    """Where the backbone's weights come from."""
    return args.weights or ("packaged" if args.backbone == PACKAGED else "timm")


def weights_name(weights: str) -> str:
    """Name of the weights that is the same on all machines."""
    if weights in WEIGHTS:
        return weights
    if not Path(weights).is_file():
        msg = f"--weights must be one of {', '.join(WEIGHTS)} or a file, and there is no file {weights}"
        raise FileNotFoundError(msg)
    return f"file {digest_of_text(Path(weights).read_bytes())}"


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``I/N``."""
    parts = text.split("/")
    if len(parts) == 2 and all(part.isdecimal() for part in parts) and 1 <= int(parts[0]) <= int(parts[1]):
        return int(parts[0]), int(parts[1])
    msg = f"--shard must be I/N with 1 <= I <= N, such as 1/4, got {text}"
    raise ValueError(msg)


def root_of(args: argparse.Namespace) -> Path:
    """Folder of the data.

    Raises:
        ValueError: If the suite needs one and none is given.
    """
    folder = SUITES[args.suite].folder
    if args.root is None and folder is None:
        msg = f"suite {args.suite} needs the folder of your data: --root FOLDER"
        raise ValueError(msg)
    return args.root or Path("datasets") / str(folder)


def run(jobs: Sequence[Job], args: argparse.Namespace, console: Console) -> bool:
    """Run the jobs and show how far it is; returns whether one failed."""
    waiting = [job for job in jobs if not is_done(args.output, job)]
    if not args.report:
        count = f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}"
        before = len(jobs) - len(waiting)
        console.print(f"{count}, {before} of them done before; results in {args.output}", soft_wrap=True)
    if not waiting:
        return False
    results = read_results(args.output)
    files = {config_name(model): model for model in args.models or () if is_configuration(model)}
    failed = []

    def place_of(job: Job) -> Place:
        model = files.get(job.model, job.model)
        return Place(root_of(args), args.output, weights_of(args), model, args.device, args.pictures)

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("jobs", total=len(waiting), left="")

        def after(index: int, job: Job, result: Result) -> None:
            results.append(result)
            failed.extend([job] if result["status"] != DONE else [])
            left = seconds_left(waiting[index + 1 :], results)
            text = "" if left is None or index + 1 == len(waiting) else f"{duration(left)} left"
            progress.update(task, advance=1, left=text)
            console.print(f"{index + 1}/{len(waiting)} {line_of(job, result)}  {text}", soft_wrap=True, markup=False)

        run_jobs(waiting, place_of, after)
    return bool(failed)


def line_of(job: Job, result: Result) -> str:
    """One line about a finished job."""
    name = f"{job.category}, {job.row}, seed {job.seed}"
    if result["status"] != DONE:
        return f"{name}: FAILED, {result['error']}"
    figures = result["figures"]
    shown = {"image_auroc": "AUROC", "au_spro": "AU-sPRO"}
    text = ", ".join(f"{title} {figures[n]:.3f}" for n, title in shown.items() if n in figures)
    return f"{name}: {text}, {result['costs']['job_seconds']:.0f} s"


def write_reports(args: argparse.Namespace, console: Console) -> None:
    """Write the tables of all results in the output folder, and print this suite's."""
    results = in_order(read_results(args.output))
    own = [result for result in results if result["job"]["suite"] == args.suite]
    if not own:
        console.print(f"no results of suite {args.suite} in {args.output}")
        return
    write_csv(own, args.output / f"{args.suite}.csv")
    target = args.page or args.output / "results.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(results, args.output.as_posix()), encoding="utf-8")
    print(section(args.suite, own))
    written = [str(target), str(args.output / f"{args.suite}.csv")]
    if args.plots:
        from .plots import draw_plots

        written += [str(path) for path in draw_plots(own, args.output / "plots" / args.suite)]
    console.print("wrote " + ", ".join(written), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
