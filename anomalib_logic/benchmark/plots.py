# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Plots of results (matplotlib, the extra ``plots``) and galleries of maps (Anomalib's drawing functions)."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .jobs import DONE, Result
from .report import FIGURES, by_setting, complete_seeds, label, means_of_seeds, of, setting_of, shown_kinds, unique

if TYPE_CHECKING:
    from anomalib.loggers.base import ImageLoggerBase
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

    from .measure import Predictions

TILE = (192, 192)
COLUMNS = 6  # of a gallery, three for each image
GALLERY = 12  # images
BINS = 24
GRID_COLUMNS = 4
COLORS = {"good": "tab:green", "logical": "tab:orange", "structural": "tab:red"}


def draw_plots(results: Sequence[Result], folder: Path, logger: ImageLoggerBase | None = None) -> list[Path]:
    """Draw all plots of a suite as PNG files.

    Args:
        results: Results of the suite.
        folder: Where the files go.
        logger: One of Anomalib's loggers, such as ``anomalib.loggers.AnomalibTensorBoardLogger``, that gets the figures
            as well.

    Returns:
        The files.
    """
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    done = [result for result in results if result["status"] == DONE]
    for name, figure in figures(done):
        files.append(folder / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.png")
        figure.savefig(files[-1], dpi=100)
        if logger is not None:
            logger.add_image(figure, name=name, global_step=0)
    return files


def figures(done: Sequence[Result]) -> Iterator[tuple[str, Figure]]:
    """Names and figures of all plots of a suite."""
    for category in unique(done, lambda r: r["job"]["category"]):
        own = of(done, category=category)
        first = of(own, seed=own[0]["job"]["seed"])
        yield f"scores-{category}", grid(first, draw_scores)
        if any(result["curves"] for result in first):
            yield f"curves-{category}", draw_curves(first)
    if done:
        yield "bars", draw_bars(done)


def grid(results: Sequence[Result], draw: Callable[[Result, Axes], None]) -> Figure:
    """One plot for each result, in rows."""
    from matplotlib.figure import Figure

    columns = min(len(results), GRID_COLUMNS)
    rows = -(-len(results) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, result in zip(places, results, strict=False):
        draw(result, axes)
    for axes in places[len(results) :]:
        axes.set_axis_off()
    return figure


def draw_scores(result: Result, axes: Axes) -> None:
    """Histogram of the raw image scores, one for each kind of images."""
    kinds = {kind: list(scores.values()) for kind, scores in result["scores"].items()}
    colors = [COLORS[kind] for kind in kinds] if all(kind in COLORS for kind in kinds) else None
    axes.hist(list(kinds.values()), BINS, label=list(kinds), color=colors, histtype="stepfilled", alpha=0.6)
    axes.set(title=label(setting_of(result)), xlabel="image score", ylabel="images")
    axes.legend()


def draw_curves(results: Sequence[Result]) -> Figure:
    """Mean sPRO over the false positive rate, one plot for each kind of anomalies and one line for each model."""
    from matplotlib.figure import Figure

    kinds = sorted({kind for result in results for kind in result["curves"]})
    figure = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for result in results:
            if kind in result["curves"]:
                curve = result["curves"][kind]
                axes.plot(curve["fpr"], curve["spro"], label=label(setting_of(result)))
        axes.axvline(0.05, color="grey", linewidth=0.8, linestyle=":")
        axes.set(title=kind, xlabel="false positive rate", ylabel="mean sPRO", xlim=(0, None), ylim=(0, 1))
        axes.legend()
    return figure


def draw_bars(done: Sequence[Result]) -> Figure:
    """Image AUROC and AU-sPRO of each row, by kind: means over categories and seeds; lines span the seeds."""
    from matplotlib.figure import Figure

    kinds = shown_kinds(done)
    titles = [title for title in ("image_auroc", "au_spro") if any(title in r["figures"] for r in done)]
    figure = Figure(figsize=(7 * len(titles), 1 + 0.4 * len(unique(done, setting_of))), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        names = [f"{title}_{kind}" for kind in kinds] or [title]
        labels = kinds or ["all"]
        for place, name in enumerate(names):
            rows, means, errors = bars_of(done, name)
            height = 0.8 / len(names)
            places = [row - 0.4 + height * (place + 0.5) for row in range(len(rows))]
            color = COLORS.get(name.rpartition("_")[2])
            axes.barh(places, means, height, xerr=list(zip(*errors, strict=True)), label=labels[place], color=color)
            axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.set(title=FIGURES[title], xlim=(0, 1))
    if kinds:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    return figure


def bars_of(done: Sequence[Result], name: str) -> tuple[list[str], list[float], list[tuple[float, float]]]:
    """Labels, means and distances to the lowest and highest seed of the rows that have a figure."""
    rows, means, errors = [], [], []
    for setting, every in by_setting(done):
        values = means_of_seeds(every, complete_seeds(done, every), name)
        if values:
            rows.append(label(setting))
            means.append(statistics.fmean(values))
            errors.append((max(means[-1] - min(values), 0.0), max(max(values) - means[-1], 0.0)))
    return rows, means, errors


def draw_gallery(predictions: Predictions, path: Path) -> None:
    """Draw test images at equal distances of each kind of anomalies: image, ground truth, map.

    Green, half of the colours' range, is the highest value of the good test images; blue is their median.

    Args:
        predictions: Images, maps and, if there are any, masks.
        path: File of the picture.
    """
    from anomalib.visualization.image.functional import create_image_grid
    from PIL import Image

    pairs = zip(predictions.maps, predictions.kinds, strict=True)
    good = torch.cat([one.flatten() for one, kind in pairs if kind == "good"])
    low, middle = good.median(), good.max()
    tiles = []
    for i in chosen(predictions.kinds):
        image, heat = image_and_map(predictions.paths[i], predictions.maps[i], low, middle)
        mask = Image.new("RGB", TILE)
        if predictions.masks:
            mask = Image.fromarray(predictions.masks[i].numpy().astype("uint8") * 255).resize(TILE).convert("RGB")
        tiles += [image, mask, heat]
    path.parent.mkdir(parents=True, exist_ok=True)
    create_image_grid(tiles, nrow=COLUMNS).save(path, quality=85, optimize=True)


def image_and_map(
    path: str, anomaly_map: torch.Tensor, low: torch.Tensor, middle: torch.Tensor
) -> tuple[Picture, Picture]:
    """An image, and its map laid over it: blue at ``low``, green at ``middle``."""
    from anomalib.visualization.image.functional import overlay_image, visualize_anomaly_map
    from PIL import Image

    image = Image.open(path).convert("RGB").resize(TILE)
    values = ((anomaly_map - low) / (2 * (middle - low)).clamp_min(1e-12)).clamp(0, 1)
    heat = visualize_anomaly_map(values, colormap=True, normalize=False).resize(TILE)
    return image, overlay_image(image, heat).convert("RGB")


def chosen(kinds: Sequence[str]) -> list[int]:
    """Indices of the images of a gallery: of each kind of anomalies the same number, at equal distances."""
    anomalies = sorted(set(kinds) - {"good"})
    number = max(1, GALLERY // len(anomalies))
    result = []
    for kind in anomalies:
        indices = [i for i, name in enumerate(kinds) if name == kind]
        result += indices[:: max(1, len(indices) // number)][:number]
    return result
