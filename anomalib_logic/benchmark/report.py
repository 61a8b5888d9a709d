# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Tables of results: CSV of all jobs, and Markdown with means, deviations and the papers' figures beside."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .jobs import DONE, FAILED, Result
from .suites import OURS, PEERS, SUITES

MEAN = "mean"
MOST_KINDS = 3
PUBLISHED_FILE = Path(__file__).with_name("published.csv")
FIGURES = {
    "image_auroc": "image AUROC",
    "au_spro": "AU-sPRO at 5%",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
}
COSTS = {
    "fit_seconds": "fit, s",
    "image_milliseconds": "an image, ms",
    "memory_megabytes": "peak memory, MB",
    "gpu_megabytes": "GPU memory, MB",
}
HEAD = """# Results

Written by `python -m anomalib_logic.benchmark`; do not edit. Each figure comes from the result files in `{folder}`, one
for each model, category and seed, with raw scores.

* Figures are means over the categories that have them, then over seeds, ± the standard deviation over seeds. Only seeds
  with all categories count; *seeds* says how many these are.
* Scores and maps are raw. Image AUROC and AU-sPRO of data with logical and structural anomalies are those of MVTec LOCO
  AD's protocol. Pixel AUROC and AP are those of all test images together, at the size of the maps.
* Where categories have different kinds of anomalies, as digits have logical ones only, *mean* is over more categories
  than the figure of a kind.
* An image: median time from one image to score and map. Peak memory: of the whole process, with its libraries, the data
  and all maps of the test images. Times are those of the machine as it was, with whatever else it did.
"""


class Setting(NamedTuple):
    """What a row of a table shares: all of a job but category and seed."""

    row: str
    backbone: str
    weights: str
    image_size: int
    epochs: int | None
    limit: int | None
    options: str


class Published(NamedTuple):
    """A figure of a paper.

    Attributes:
        suite: Its data.
        category: Category, or ``"mean"``.
        model: Our name of the model.
        figure: Name of the figure.
        value: From 0 to 1.
        source: Paper and table.
    """

    suite: str
    category: str
    model: str
    figure: str
    value: float
    source: str


def setting_of(result: Result) -> Setting:
    """Setting of a result."""
    return Setting(**{name: result["job"][name] for name in Setting._fields})


def by_setting(done: Sequence[Result]) -> list[tuple[Setting, list[Result]]]:
    """Each setting, in the order of its first result, with its results."""
    groups: dict[Setting, list[Result]] = {}
    for result in done:
        groups.setdefault(setting_of(result), []).append(result)
    return list(groups.items())


def write_csv(results: Sequence[Result], path: Path) -> None:
    """Write one line for each job of a suite, with all that its file has but scores and curves."""
    lines = [
        {
            **result["job"],
            "status": result["status"],
            **result.get("figures", {}),
            **result.get("costs", {}),
            **result.get("environment", {}),
            "error": result.get("error", ""),
        }
        for result in results
    ]
    names = list(dict.fromkeys(name for line in lines for name in line))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(lines)


def page(results: Iterable[Result], folder: str) -> str:
    """Markdown page of all suites.

    Args:
        results: All results.
        folder: Where their files are, as the page says it.
    """
    results = in_order(results)
    suites = [name for name in SUITES if any(result["job"]["suite"] == name for result in results)]
    parts = [HEAD.format(folder=folder)]
    parts += [section(name, [r for r in results if r["job"]["suite"] == name]) for name in suites]
    return "\n".join(parts)


def in_order(results: Iterable[Result]) -> list[Result]:
    """Sort results as tables show them: our models first, categories as in the suite."""
    models = (*OURS, *PEERS)

    def place(result: Result) -> tuple:
        job = result["job"]
        model = models.index(job["model"]) if job["model"] in models else len(models)
        categories = SUITES[job["suite"]].categories
        category = categories.index(job["category"]) if job["category"] in categories else len(categories)
        return model, job["row"], category, job["category"], job["seed"]

    return sorted(results, key=place)


def section(suite: str, results: Sequence[Result]) -> str:
    """Markdown of one suite."""
    done = [result for result in results if result["status"] == DONE]
    parts = [f"## {suite}\n\n{SUITES[suite].about}.\n"]
    if done:
        parts += [settings_lines(done), summary_table(done), category_table(done), published_table(suite, done)]
    parts.append(failure_lines([result for result in results if result["status"] == FAILED]))
    return "\n".join(part for part in parts if part)


def settings_lines(done: Sequence[Result]) -> str:
    """What was run, and where."""
    lines = []
    for category in unique(done, lambda r: r["job"]["category"]):
        counts = unique(of(done, category=category), lambda r: tuple(r["images"].values()))
        numbers = " or ".join(f"{train} / {val} / {test}" for train, val, test in counts)
        lines.append(f"{category} {numbers}")
    text = [f"Images (training / validation / test): {', '.join(lines)}."]
    for value in unique(done, _machine):
        own = [result for result in done if _machine(result) == value]
        rows = {
            source: unique((r for r in own if r["environment"]["source"] == source), lambda r: r["job"]["row"])
            for source in unique(own, lambda r: r["environment"]["source"])
        }
        sources = ", ".join(f"{source} ({', '.join(names)})" for source, names in rows.items())
        versions = ", ".join(f"{n} {value[n]}" for n in ("anomalib", "torch", "lightning", "timm", "python"))
        text.append(
            f"anomalib-logic {value['anomalib_logic']}, {versions}; {value['processor']}, {value['cores']} core(s), "
            f"{value['threads']} thread(s), {value['device']}. Source: {sources}."
        )
    return "\n\n".join(text) + "\n"


def _machine(result: Result) -> dict[str, Any]:
    """Environment without the package's source, which changes more often."""
    return {name: value for name, value in result["environment"].items() if name != "source"}


def summary_table(done: Sequence[Result]) -> str:
    """One row for each setting: figures and costs."""
    columns = figure_columns(done)
    costs = [name for name in COSTS if any(name in result["costs"] for result in done)]
    heads = ["model", "backbone, side", "seeds", *(title for title, _ in columns), *(COSTS[name] for name in costs)]
    rows = []
    for setting, own in by_setting(done):
        seeds = complete_seeds(done, own)
        cells = [label(setting), describe(setting), str(len(seeds))]
        for _, names in columns:
            figures = [over_seeds(own, seeds, name) for name in names]
            cells.append(" / ".join(figures) if any(figures) else "")
        for name in costs:
            values = [result["costs"][name] for result in own if name in result["costs"]]
            cells.append(f"{statistics.fmean(values):.0f}" if values else "")
        rows.append(cells)
    return markdown(heads, rows)


def category_table(done: Sequence[Result]) -> str:
    """Image AUROC of each category, mean over its seeds; nothing for a suite of one category."""
    categories = unique(done, lambda r: r["job"]["category"])
    if len(categories) < 2:
        return ""
    kinds = shown_kinds(done)
    names = [f"image_auroc_{kind}" for kind in kinds] or ["image_auroc"]
    rows = []
    for setting, own in by_setting(done):
        cells = [label(setting), describe(setting)]
        for category in categories:
            there = [result["figures"] for result in of(own, category=category)]
            shown = [number(statistics.fmean(f[n] for f in there)) for n in names if there and n in there[0]]
            cells.append(" / ".join(shown))
        rows.append(cells)
    title = f"Image AUROC by category{': ' + ' / '.join(kinds) if kinds else ''}\n\n"
    return title + markdown(["model", "backbone, side", *categories], rows)


def published_table(suite: str, done: Sequence[Result]) -> str:
    """Published figures of a suite's categories beside ours; nothing where there are none."""
    categories = (*unique(done, lambda r: r["job"]["category"]), MEAN)
    rows = []
    for one in published():
        if one.suite != suite or one.category not in categories:
            continue
        ours = []
        for _, own in by_setting(done):
            model = own[0]["job"]["model"].rpartition("/")[2]  # of a configuration file in a folder, its own name
            if model != one.model or not all(one.figure in result["figures"] for result in own):
                continue
            if one.category == MEAN:
                text = over_seeds(own, complete_seeds(done, own), one.figure)
            else:
                values = [result["figures"][one.figure] for result in of(own, category=one.category)]
                text = number(statistics.fmean(values)) if values else ""
            ours += [text] if text else []
        rows.append([one.model, one.category, one.figure, ", ".join(ours), number(one.value), one.source])
    if not rows:
        return ""
    title = "Published figures; the papers have other backbones, sizes of images and lengths of training\n\n"
    return title + markdown(["model", "category", "figure", "here", "published", "source"], rows)


def failure_lines(failed: Sequence[Result]) -> str:
    """What failed, and why."""
    if not failed:
        return ""
    lines = []
    for row, error in unique(failed, lambda r: (r["job"]["row"], r["error"])):
        jobs = sum((r["job"]["row"], r["error"]) == (row, error) for r in failed)
        lines.append(f"* {row}, {jobs} job{'s' if jobs > 1 else ''}: {error}")
    return "Failed:\n\n" + "\n".join(lines) + "\n"


def figure_columns(done: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Title and names of the figures of each column."""
    kinds = shown_kinds(done)
    columns = []
    for name, title in FIGURES.items():
        names = [f"{name}_{kind}" for kind in kinds]
        names = names if all(any(one in result["figures"] for result in done) for one in names) else []
        if any(name in result["figures"] for result in done):
            whole = MEAN if SUITES[done[0]["job"]["suite"]].mean_over_kinds else "all"
            columns.append((f"{title}, {' / '.join([*kinds, whole])}" if names else title, [*names, name]))
    return columns


def shown_kinds(done: Sequence[Result]) -> list[str]:
    """Kinds of anomalies that have columns of their own: all, if there are several and not more than three."""
    kinds = {kind for result in done for kind in result["scores"] if kind != "good"}
    return sorted(kinds) if 1 < len(kinds) <= MOST_KINDS else []


def complete_seeds(done: Sequence[Result], own: Sequence[Result]) -> list[int]:
    """Seeds for which a setting has all categories that any has."""
    categories = set(unique(done, lambda r: r["job"]["category"]))
    seeds = unique(own, lambda r: r["job"]["seed"])
    return [seed for seed in seeds if {r["job"]["category"] for r in of(own, seed=seed)} == categories]


def means_of_seeds(own: Sequence[Result], seeds: Sequence[int], name: str) -> list[float]:
    """Mean over the categories that have a figure, of each seed for which there is one."""
    having = [result for result in own if name in result["figures"]]
    return [statistics.fmean(r["figures"][name] for r in results) for s in seeds if (results := of(having, seed=s))]


def over_seeds(own: Sequence[Result], seeds: Sequence[int], name: str) -> str:
    """Mean over categories and seeds, with the standard deviation over seeds; empty where no result has the figure."""
    means = means_of_seeds(own, seeds, name)
    if not means:
        return ""
    text = number(statistics.fmean(means))
    return f"{text} ± {number(statistics.stdev(means))}" if len(means) > 1 else text


def published() -> list[Published]:
    """Figures that papers report."""
    with PUBLISHED_FILE.open(encoding="utf-8", newline="") as file:
        lines: list[dict[str, Any]] = list(csv.DictReader(file))
    return [Published(**{**line, "value": float(line["value"]) / 100}) for line in lines]


def label(setting: Setting) -> str:
    """Name of a row."""
    trial = f", {setting.epochs} epoch{'s' if setting.epochs > 1 else ''}" if setting.epochs else ""
    return setting.row + trial + (f", {setting.limit} images at most" if setting.limit else "")


def describe(setting: Setting) -> str:
    """Backbone and side of the images."""
    backbone = setting.backbone if setting.weights in ("packaged", "") else f"{setting.backbone} ({setting.weights})"
    return f"{backbone}, {setting.image_size}"


def number(value: float) -> str:
    """Three digits after the point."""
    return f"{value:.3f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def of(results: Iterable[Result], **job: object) -> list[Result]:
    """Results whose jobs have the given values."""
    return [result for result in results if all(result["job"][name] == value for name, value in job.items())]


def unique(results: Iterable[Result], key: Callable[[Result], object]) -> list:
    """Values of a key, each once, in their order."""
    values: list = []
    for result in results:
        if (value := key(result)) not in values:
            values.append(value)
    return values
