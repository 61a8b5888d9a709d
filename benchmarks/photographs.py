# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

r"""Image AUROC of SAM-LAD, PatchCore and PaDiM on folders of photographs, several splits and backbones, from one run.

    python benchmarks/photographs.py --root photographs --mobilenet mobilenetv2_100.safetensors \
      --efficientnet efficientnet_lite0.safetensors

A folder of ``--root`` is a set of parts with the folders ``good`` and ``bad``. In each split two thirds of the good
images train, and all others are tested. All models have the same backbone, weights and images; scores are raw. Prints a
Markdown table, one cell "mean (lowest to highest)" of the splits. ``--pictures FOLDER`` draws maps of SAM-LAD.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import AnomalibModule
from anomalib.visualization.image.functional import create_image_grid
from lightning import seed_everything
from scenes import MODELS, image_and_map
from settings import BACKBONE, LITE, fit_and_predict, parts_of

from anomalib_logic.metrics.functional import auroc

RUNS = (("samlad", 384), ("patchcore", 384), ("patchcore", 224), ("padim", 384), ("padim", 224))


def predict(model: AnomalibModule, folder: Path, split: int) -> dict[str, Any]:
    """Scores, labels, maps and paths of the images that do not train, and seconds to fit."""
    seed_everything(split, verbose=False)
    seconds, batches = fit_and_predict(model, parts_of(folder, split))
    fields = {
        name: torch.cat([getattr(b, name).flatten(0, -1 if name != "anomaly_map" else -3) for b in batches])
        for name in ("pred_score", "gt_label", "anomaly_map")
    }
    return {**fields, "paths": [path for b in batches for path in b.image_path], "seconds": seconds}


def draw(result: dict[str, Any], path: Path) -> None:
    """Bad images at equal distances and two good ones: image, map. Green is the highest value of the good images."""
    maps, bad = result["anomaly_map"], result["gt_label"].bool()
    low, middle = maps[~bad].median(), maps[~bad].max()
    tiles = []
    wrong, right = bad.nonzero().flatten().tolist(), (~bad).nonzero().flatten().tolist()
    for i in wrong[:: max(1, len(wrong) // 7)][:7] + right[:: max(1, len(right) // 2)][:2]:
        tiles += image_and_map(result["paths"][i], maps[i], low, middle)
    path.parent.mkdir(parents=True, exist_ok=True)
    create_image_grid(tiles, nrow=6).save(path, quality=85, optimize=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of sets of photographs")
    parser.add_argument("--sets", nargs="+", help="all folders of --root by default")
    parser.add_argument("--mobilenet", type=Path, help="weights of timm's mobilenetv2_100")
    parser.add_argument("--efficientnet", type=Path, help=f"weights of timm's {LITE}")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="folder for maps of SAM-LAD, first split")
    args = parser.parse_args()
    sets = args.sets or sorted(path.name for path in args.root.iterdir() if (path / "good").is_dir())
    print(f"| | {' | '.join(sets)} | seconds to fit |\n|{' --- |' * (len(sets) + 2)}", flush=True)
    for backbone, weights in ((BACKBONE, args.mobilenet), (LITE, args.efficientnet)):
        for name, image_size in RUNS if weights else ():
            cells, longest = [], 0.0
            for one in sets:
                figures = []
                for split in range(args.splits):
                    result = predict(MODELS[name](weights, image_size, {}, backbone), args.root / one, split)
                    bad = result["gt_label"].bool()
                    figures.append(float(auroc(result["pred_score"][~bad], result["pred_score"][bad])))
                    longest = max(longest, result["seconds"])
                    if args.pictures and name == "samlad" and split == 0:
                        draw(result, args.pictures / f"{one}_{backbone}.jpg")
                cells.append(f"{sum(figures) / len(figures):.3f} ({min(figures):.3f} to {max(figures):.3f})")
            print(f"| {name}, {image_size}, {backbone} | {' | '.join(cells)} | {longest:.0f} |", flush=True)


if __name__ == "__main__":
    main()
