# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What thresholds from normal images are worth: F1 beside the best of any threshold, and false alarms on new images.

    python benchmarks/thresholds.py --root datasets/loco_scenes --weights mobilenetv2_100.safetensors
    python benchmarks/thresholds.py --root parts --weights FILE --backbone tf_efficientnet_lite0

A folder of ``--root`` is a category in MVTec LOCO's layout, or has the folders ``good`` and ``bad``: then two thirds of
the good images train. Prints a Markdown table; predictions are those of ``engine.predict``.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from anomalib.models.components import AnomalibModule
from lightning import seed_everything
from settings import BACKBONE, arguments_of, data_of, fit_and_predict

from anomalib_logic import CalibratedPostProcessor
from anomalib_logic.benchmark.models import MODELS, Backbone
from anomalib_logic.metrics.functional import auroc

COLUMNS = ("F1 / best", "F1 ratio", "false alarms", "AUROC predicted / raw", "pixel F1")


def f1(positive: torch.Tensor, truth: torch.Tensor) -> float:
    """F1 score of booleans."""
    both = (positive & truth).sum()
    return float(2 * both / (positive.sum() + truth.sum()).clamp_min(1))


def best_f1(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Best F1 score of any threshold."""
    return max(f1(scores >= threshold, truth) for threshold in scores.unique())


def model_of(args: argparse.Namespace) -> AnomalibModule:
    """The model with the benchmarks' settings."""
    options = {"post_processor": CalibratedPostProcessor(args.rate), "backbone_args": arguments_of(args.backbone)}
    return MODELS[args.model].make(Backbone(args.backbone, args.weights), args.image_size, options)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Fit and predict one category."""
    seed_everything(1, verbose=False)
    model = model_of(args)
    _, batches = fit_and_predict(model, data_of(folder, eval_batch_size=8), max_epochs=args.epochs)
    raw = []
    with torch.no_grad():
        for batch in batches:
            raw.append(model.infer(batch.image).pred_score.flatten())
    scores, labels, predicted = (
        torch.cat([getattr(batch, name) for batch in batches]) for name in ("pred_score", "gt_label", "pred_label")
    )
    truth, found = labels.bool().flatten(), predicted.bool().flatten()
    result = {
        "f1": f1(found, truth),
        "best": best_f1(scores.flatten(), truth),
        "alarms": float(found[~truth].float().mean()),
        "good": int((~truth).sum()),
        "auroc": float(auroc(scores.flatten()[~truth], scores.flatten()[truth])),
        "raw": float(auroc(torch.cat(raw)[~truth], torch.cat(raw)[truth])),
    }
    if all(batch.gt_mask is not None for batch in batches):
        masks, marked = (
            torch.cat([getattr(batch, name) for batch in batches]).bool() for name in ("gt_mask", "pred_mask")
        )
        result["pixel_f1"] = f1(marked.squeeze(), masks)
    return result


def main() -> None:
    """Measure all categories."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder of categories")
    parser.add_argument("--categories", nargs="+", help="all folders of --root by default")
    parser.add_argument("--weights", required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default=BACKBONE)
    parser.add_argument("--model", choices=("sam_lad", "glcf"), default="sam_lad")
    parser.add_argument("--image-size", type=int, default=384)
    parser.add_argument("--epochs", type=int, default=1, help="of GLCF")
    parser.add_argument("--rate", type=float, default=0.05, help="false alarm rate that is asked for")
    args = parser.parse_args()
    names = args.categories or sorted(p.name for p in args.root.iterdir() if p.is_dir() and not p.name.startswith("."))
    print(f"| {args.model}, {args.backbone}, rate {args.rate:g} | {' | '.join(COLUMNS)} |\n|{' --- |' * 6}", flush=True)
    rows = []
    for name in names:
        row = measure(args.root / name, args)
        rows.append(row)
        pixels = f"{row['pixel_f1']:.3f}" if "pixel_f1" in row else ""
        print(
            f"| {name} | {row['f1']:.3f} / {row['best']:.3f} | {row['f1'] / row['best']:.3f} | "
            f"{row['alarms']:.3f} of {row['good']} | {row['auroc']:.4f} / {row['raw']:.4f} | {pixels} |",
            flush=True,
        )
    ratios = [row["f1"] / row["best"] for row in rows]
    alarms = sum(row["alarms"] * row["good"] for row in rows) / sum(row["good"] for row in rows)
    print(f"| mean | | {sum(ratios) / len(ratios):.3f} | {alarms:.3f} | | |")


if __name__ == "__main__":
    main()
