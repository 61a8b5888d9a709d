# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image AUROC of GLCF, SAM-LAD, PaDiM and PatchCore on data sets in MVTec LOCO's layout, from one run.

    python tests/benchmarks/scenes.py --root datasets/loco_scenes --weights mobilenetv2_100.safetensors

All models have the same backbone and weights and see the same images. Scores are the models' own, without Anomalib's
normalisation (whose clamping to [0, 1] makes ties). Prints a Markdown table, one cell "logical / structural".
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.models.components import AnomalibModule
from lightning import seed_everything
from torchmetrics.functional.classification import binary_auroc

from anomalib_logic import Glcf, MVTecLoco, SamLad
from anomalib_logic.data import anomaly_kinds
from anomalib_logic.models.components.pyramid import load_weights
from anomalib_logic.models.glcf.anomaly_map import IMAGE_SCORES, summarize

GLCF = {
    "backbone": "mobilenetv2_100",
    "depth": 2,
    "decoder_depths": (1, 1, 1, 1),
    "learning_rate": 4e-3,
}
SAM_LAD = {"backbone": "mobilenetv2_100", "objects": "cluster", "upsample": 4, "k": 10}
PARTS = ("objects", "scene", "place", "count", "composition")  # columns of SAM-LAD's image scores
QUIET = {"evaluator": False, "visualizer": False, "post_processor": False}


def glcf(weights: Path, image_size: int, options: dict[str, Any]) -> AnomalibModule:
    """GLCF with the benchmark's settings."""
    return Glcf(**{**GLCF, "backbone_weights": str(weights), "image_size": image_size, **QUIET, **options})


def samlad(weights: Path, image_size: int, options: dict[str, Any]) -> AnomalibModule:
    """SAM-LAD with the benchmark's settings."""
    arguments = {"backbone_weights": str(weights), "pre_trained": False, "image_size": image_size}
    return SamLad(**{**SAM_LAD, **arguments, **QUIET, **options})


def padim(weights: Path, image_size: int, options: dict[str, Any]) -> AnomalibModule:
    """PaDiM, strides 4 to 16, 60 features."""
    layers = ["blocks.1", "blocks.2", "blocks.4"]
    model = Padim("mobilenetv2_100", layers=layers, pre_trained=False, n_features=60, **_peer(image_size), **options)
    load_weights(model.model.feature_extractor.feature_extractor, weights)
    return model


def patchcore(weights: Path, image_size: int, options: dict[str, Any]) -> AnomalibModule:
    """PatchCore, strides 8 and 16, 2% coreset."""
    arguments = {"layers": ["blocks.2", "blocks.4"], "pre_trained": False, "coreset_sampling_ratio": 0.02}
    model = Patchcore("mobilenetv2_100", **arguments, **_peer(image_size), **options)
    load_weights(model.model.feature_extractor.feature_extractor, weights)
    return model


def _peer(image_size: int) -> dict[str, Any]:
    return {"pre_processor": Glcf.configure_pre_processor((image_size, image_size)), **QUIET}


MODELS: dict[str, Callable[[Path, int, dict[str, Any]], AnomalibModule]] = {
    "glcf": glcf,
    "padim": padim,
    "patchcore": patchcore,
    "samlad": samlad,
}


@torch.no_grad()
def sam_lad_results(model: SamLad, data: MVTecLoco) -> dict[str, dict[str, float]]:
    """AUROC of SAM-LAD with and without composition, and of each part of its score, from one pass."""
    batches, parts = [], []
    model.eval()
    for batch in data.test_dataloader():
        query, compared = model.model.look_up(model.pre_processor(batch.image))
        parts.append(model.model.scores(model.model.distance_maps(query, compared), compared))
        batches.append(batch)
    deviations = [(part - model.model.score_mean) / model.model.score_std for part in parts]
    figures = {"samlad": image_aurocs(batches, [model.model.fuse(part) for part in parts])}
    without = [deviation[:, :4].clamp_min(-3).sum(dim=1) for deviation in deviations]
    figures["samlad, no composition"] = image_aurocs(batches, without)
    for i, name in enumerate(PARTS):
        figures[f"samlad, {name} only"] = image_aurocs(batches, [part[:, i] for part in parts])
    return figures


def image_aurocs(batches: list[Batch], scores: list[torch.Tensor]) -> dict[str, float]:
    """Image AUROC of each anomaly kind against the good images, from one tensor of scores a batch."""
    scores = torch.cat([score.flatten() for score in scores])
    kinds = anomaly_kinds([path for batch in batches for path in batch.image_path])
    good = scores[[kind == "good" for kind in kinds]]
    figures = {}
    for kind in ("logical_anomalies", "structural_anomalies"):
        bad = scores[[k == kind for k in kinds]]
        if not len(bad):
            figures[kind.removesuffix("_anomalies")] = float("nan")
            continue
        labels = torch.cat([torch.zeros(len(good)), torch.ones(len(bad))]).long()
        # Ranks, because the metric squashes values outside [0, 1] by a sigmoid, which makes ties of large scores.
        ranks = torch.cat([good, bad]).double().unique(return_inverse=True)[1].double()
        figures[kind.removesuffix("_anomalies")] = binary_auroc(ranks / ranks.max(), labels).item()
    return figures


def run(name: str, category: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and test one model on one category; several scores of one model are results of one training."""
    seed_everything(args.seed, verbose=False)
    options = json.loads(args.options) if name in ("glcf", "samlad") else {}
    data = MVTecLoco(args.root, category, train_batch_size=args.batch, eval_batch_size=20, num_workers=0)
    model = MODELS[name](args.weights, args.image_size, options)
    trainer = {"accelerator": args.accelerator, "enable_progress_bar": False}
    if name == "glcf":
        trainer |= {"max_epochs": args.epochs, "check_val_every_n_epoch": args.epochs, "precision": args.precision}
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, **trainer)
        start = time.perf_counter()
        engine.fit(model, datamodule=data)
        seconds = time.perf_counter() - start
        results = {}
        if name == "samlad":
            results = sam_lad_results(model, data)
        elif name != "glcf":
            batches = engine.predict(model, datamodule=data)
            results[name] = image_aurocs(batches, [batch.pred_score for batch in batches])
        else:
            for statistics in ("training", "validation"):
                model.statistics = statistics
                model.model.anomaly_map_generator.normalization.measured.fill_(False)  # measure again
                batches = engine.predict(model, datamodule=data)
                for image_score in IMAGE_SCORES:
                    scores = [summarize(batch.anomaly_map[:, None], image_score) for batch in batches]
                    results[f"glcf, {statistics}, {image_score}"] = image_aurocs(batches, scores)
    common = {"category": category, "seconds": round(seconds, 1)}
    return [{"model": row, **common, **figures} for row, figures in results.items()]


def table(results: list[dict[str, Any]], categories: list[str]) -> str:
    """Markdown table of logical / structural AUROC, with means and the longest training time."""
    lines = [f"| | {' | '.join(categories)} | mean | seconds to fit |", f"|{' --- |' * (len(categories) + 3)}"]
    for name in dict.fromkeys(result["model"] for result in results):
        rows = [result for result in results if result["model"] == name]
        cells = [f"{row['logical']:.3f} / {row['structural']:.3f}" for row in rows]
        means = [sum(row[kind] for row in rows) / len(rows) for kind in ("logical", "structural")]
        longest = max(row["seconds"] for row in rows)
        lines.append(f"| {name} | {' | '.join(cells)} | {means[0]:.3f} / {means[1]:.3f} | {longest:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run all models on all categories."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="data set, one folder a category")
    parser.add_argument("--weights", type=Path, required=True, help="weights of timm's mobilenetv2_100")
    parser.add_argument("--categories", nargs="+", help="all folders of --root by default")
    parser.add_argument("--models", nargs="+", default=["glcf", "padim", "patchcore", "samlad"], choices=MODELS)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=120, help="of GLCF")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--precision", default="bf16-mixed", help="of GLCF's training")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", default="{}", help="JSON: more arguments of Glcf or SamLad")
    parser.add_argument("--output", type=Path, help="JSON lines file that results are added to")
    args = parser.parse_args()
    categories = args.categories or sorted(p.name for p in args.root.iterdir() if (p / "train").is_dir())
    results = []
    for name in args.models:
        for category in categories:
            for result in run(name, category, args):
                results.append(result)
                line = json.dumps({**result, "options": args.options, "epochs": args.epochs})
                print(line, flush=True)
                if args.output:
                    with args.output.open("a") as file:
                        file.write(line + "\n")
    print(table(results, categories))


if __name__ == "__main__":
    main()
