# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

r"""What limits SAM-LAD on a data set: image AUROC of each of its scores, and of their maps if the place were known.

    python benchmarks/limits.py --weights mobilenetv2_100.safetensors --seeds 0 1 2
    python benchmarks/limits.py --backbone tf_efficientnet_lite0 --weights efficientnet_lite0.safetensors \
      --parts parts/screw --image-size 384

Without ``--parts``, data are digits in the wrong order (DigitAnatomy), whose cells are at the same place in all images.
There, "cell known" is the AUROC of the highest value of a score's map in the cells that are wrong, beside the same ones
of good images: all other places could not raise a false alarm. What it lacks of 1 is not seen by the features; what is
between it and "alone" is lost by looking everywhere. ``--parts`` is a folder of good and bad parts.

Prints a Markdown table, means over the seeds. "all but it" is the fused score without this one.
"""

import argparse
from pathlib import Path

import torch
from anomalib.data import AnomalibDataModule
from lightning import seed_everything
from scenes import all_but, samlad
from settings import BACKBONE, fit_and_predict, parts_of
from torch.nn import functional as F

from anomalib_logic.data import DigitAnatomy
from anomalib_logic.metrics.functional import auroc
from anomalib_logic.models.sam_lad.torch_model import soft_maximum

CELLS = 3  # rows and columns of digits
Figures = dict[str, dict[str, float]]


def figures(data: AnomalibDataModule, args: argparse.Namespace, seed: int) -> Figures:
    """Fit, and measure each score on the test images."""
    seed_everything(seed, verbose=False)
    lightning_model = samlad(args.weights, args.image_size, {}, args.backbone)
    fit_and_predict(lightning_model, data)
    model = lightning_model.model.eval()
    deviations, cells, labels, wrong = [], [], [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            images = lightning_model.pre_processor(batch.image)
            measured = model.measure(model.compare(model.represent(images)))
            deviations.append(model.deviations(measured))
            maps = torch.stack([score.draw(measured[name]) for name, score in model.scores.items()], dim=1)
            cells.append(F.adaptive_max_pool2d(maps, CELLS).flatten(2))
            labels.append(batch.gt_label.bool())
            if not args.parts:
                masks = batch.gt_mask.float().view(len(images), 1, *batch.gt_mask.shape[-2:])
                wrong.append(F.adaptive_max_pool2d(masks, CELLS).flatten(1) > 0)
    values, bad = torch.cat(deviations), torch.cat(labels)
    results = {"all": {"alone": _auroc(soft_maximum(values), bad)}}
    for i, (name, score) in enumerate(model.scores.items()):
        results[name] = {
            "trust": float(score.trust),
            "alone": _auroc(values[:, i], bad),
            "all but it": _auroc(all_but(values, i), bad),
        }
        if wrong:
            results[name]["cell known"] = share_of_lower(torch.cat(cells)[:, i], torch.cat(wrong), bad)
    return results


def share_of_lower(cells: torch.Tensor, wrong: torch.Tensor, bad: torch.Tensor) -> float:
    """Mean over anomalous images of the share of good images that are lower in the same cells; equal ones count half.

    Args:
        cells: Highest value of each cell, shape ``(N, 9)``.
        wrong: Which cells are wrong, shape ``(N, 9)``.
        bad: Which images are anomalous, shape ``(N,)``.
    """
    shares = []
    for image, places in zip(cells[bad], wrong[bad], strict=True):
        highest, of_good = image[places].max(), cells[~bad][:, places].amax(dim=1)
        shares.append((of_good < highest).float().mean() + (of_good == highest).float().mean() / 2)
    return float(torch.stack(shares).mean())


def _auroc(values: torch.Tensor, bad: torch.Tensor) -> float:
    return float(auroc(values[~bad], values[bad]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default=BACKBONE, help="or tf_efficientnet_lite0")
    parser.add_argument("--parts", type=Path, help="folder with the folders good and bad, in place of digits")
    parser.add_argument("--root", type=Path, default=Path("datasets/DigitAnatomy"), help="where digits are written")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the digits, or of choices in training")
    parser.add_argument("--image-size", type=int, default=256)
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        data = parts_of(args.parts, split=0) if args.parts else DigitAnatomy(args.root, seed=seed)
        runs.append(figures(data, args, seed))
    columns = ("trust", "alone", "all but it", *(() if args.parts else ("cell known",)))
    print(f"| score | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name in runs[0]:
        means = {c: sum(run[name][c] for run in runs) / len(runs) for c in columns if c in runs[0][name]}
        print(f"| {name} | {' | '.join(f'{means[c]:.3f}' if c in means else '' for c in columns)} |")


if __name__ == "__main__":
    main()
