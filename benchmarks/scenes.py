# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Image AUROC of GLCF, SAM-LAD, PaDiM and PatchCore on data sets in MVTec LOCO's layout, from one run.

    python benchmarks/scenes.py --root datasets/loco_scenes --weights mobilenetv2_100.safetensors

All models have the same backbone and weights and see the same images. Scores are the models' own, without Anomalib's
normalisation (whose clamping to [0, 1] makes ties). Prints a Markdown table, one cell "logical / structural".
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch
from anomalib.data import Batch
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.models.components import AnomalibModule
from anomalib.visualization.image.functional import create_image_grid
from lightning import seed_everything
from PIL import Image
from settings import BACKBONE, arguments_of
from torchvision.transforms.v2 import Compose, RandomCrop, Resize, Transform

from anomalib_logic import Glcf, Lgfdr, MVTecLoco, SamLad
from anomalib_logic.benchmark.models import NARROW, Backbone
from anomalib_logic.benchmark.plots import TILE, image_and_map
from anomalib_logic.data import anomaly_kinds
from anomalib_logic.metrics.protocol import image_auroc
from anomalib_logic.models.components.error_maps import TOP_SHARE
from anomalib_logic.models.components.image_score import ImageScore, summarize
from anomalib_logic.models.sam_lad.torch_model import soft_maximum

GLCF = {
    **NARROW,
    "feature_noise": 0.25,
    "optimizer": "muon",
    "learning_rate": 3e-3,
}
SAM_LAD = {"objects": "cluster", "seed": 0}
QUIET = {"evaluator": False, "visualizer": False, "post_processor": False}


def glcf(weights: Path, image_size: int, options: dict[str, Any], backbone: str = BACKBONE) -> AnomalibModule:
    """GLCF with the benchmark's settings; ``backbone`` is MobileNetV2 or EfficientNet-Lite0, here and below."""
    return Glcf(**{**GLCF, **_ours(weights, image_size, backbone), **options})


def samlad(weights: Path, image_size: int, options: dict[str, Any], backbone: str = BACKBONE) -> AnomalibModule:
    """SAM-LAD with the benchmark's settings."""
    return SamLad(**{**SAM_LAD, **_ours(weights, image_size, backbone), **options})


def lgfdr(weights: Path, image_size: int, options: dict[str, Any], backbone: str = BACKBONE) -> AnomalibModule:
    """LGFDR with its defaults."""
    return Lgfdr(**{**_ours(weights, image_size, backbone), **options})


def _ours(weights: Path, image_size: int, backbone: str) -> dict[str, Any]:
    options = {"backbone_weights": str(weights), "pre_trained": False, "image_size": image_size}
    return {"backbone": backbone, "backbone_args": arguments_of(backbone), **options, **QUIET}


def padim(weights: Path, image_size: int, options: dict[str, Any], backbone: str = BACKBONE) -> AnomalibModule:
    """PaDiM, strides 4 to 16, 60 features."""
    layers = ["blocks.1", "blocks.2", "blocks.4"]
    arguments = {"layers": layers, "pre_trained": False, "n_features": 60}
    model = Padim(backbone, **{**arguments, **_peer(image_size, backbone), **options})
    return _with_backbone(model, weights, backbone)


def patchcore(weights: Path, image_size: int, options: dict[str, Any], backbone: str = BACKBONE) -> AnomalibModule:
    """PatchCore, strides 8 and 16, 2% coreset."""
    arguments = {"layers": ["blocks.2", "blocks.4"], "pre_trained": False, "coreset_sampling_ratio": 0.02}
    model = Patchcore(backbone, **{**arguments, **_peer(image_size, backbone), **options})
    return _with_backbone(model, weights, backbone)


def _peer(image_size: int, backbone: str) -> dict[str, Any]:
    return {"pre_processor": Glcf.configure_pre_processor((image_size, image_size), backbone), **QUIET}


def _with_backbone(model: AnomalibModule, weights: Path, backbone: str) -> AnomalibModule:
    Backbone(backbone, str(weights)).put_into(model.model.feature_extractor, arguments_of(backbone))
    return model


def shifted(image_size: int, shift: int) -> Transform:
    """Training augmentation: shift by up to so many pixels, with reflected borders."""
    size = (image_size, image_size)
    return Compose([Resize(size, antialias=True), RandomCrop(size, padding=shift, padding_mode="reflect")])


MODELS: dict[str, Callable[[Path, int, dict[str, Any], str], AnomalibModule]] = {
    "glcf": glcf,
    "lgfdr": lgfdr,
    "padim": padim,
    "patchcore": patchcore,
    "samlad": samlad,
}


@torch.no_grad()
def sam_lad_results(model: SamLad, data: MVTecLoco, picture: Path | None) -> dict[str, dict[str, float]]:
    """AUROC of SAM-LAD, of it without each of its scores, and of each of them alone with its trust, from one pass."""
    batches, deviations, network = [], [], model.model
    model.eval()
    for batch in data.test_dataloader():
        measured = [
            network.measure(network.compare(network.represent(image)))
            for image in model.pre_processor(batch.image).split(1)
        ]
        deviations.append(torch.cat([network.deviations(m) for m in measured]))
        if picture:
            maps = torch.cat([network.predict(m).anomaly_map for m in measured])
            batch.update(anomaly_map=maps.squeeze(1))
        batches.append(batch)
    if picture:
        draw(batches, picture)
    figures = {"samlad": image_aurocs(batches, [soft_maximum(part) for part in deviations])}
    for i, (name, score) in enumerate(network.scores.items()):
        figures[f"samlad, no {name}"] = image_aurocs(batches, [all_but(part, i) for part in deviations])
        trust = score.trust.item()
        alone = [part[:, i] / max(trust, 1e-6) for part in deviations]
        figures[f"samlad, {name} only"] = {**image_aurocs(batches, alone), "trust": round(trust, 3)}
    return figures


def all_but(deviations: torch.Tensor, score: int) -> torch.Tensor:
    """Image scores of all scores of SAM-LAD but one."""
    others = [i for i in range(deviations.shape[1]) if i != score]
    return soft_maximum(deviations[:, others])


def image_aurocs(batches: list[Batch], scores: list[torch.Tensor]) -> dict[str, float]:
    """Image AUROC of each anomaly kind against the good images, from one tensor of scores a batch."""
    scores = torch.cat([score.flatten() for score in scores])
    kinds = anomaly_kinds([path for batch in batches for path in batch.image_path])
    there = [kind for kind in ("logical", "structural") if f"{kind}_anomalies" in kinds]
    return {"logical": float("nan"), "structural": float("nan")} | {k: image_auroc(kinds, scores, k) for k in there}


def run(name: str, category: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and test one model on one category; several scores of one model are results of one training."""
    seed_everything(args.seed, verbose=False)
    options = json.loads(args.options) if name in ("glcf", "samlad") else {}
    data = MVTecLoco(
        args.root,
        category,
        train_batch_size=args.batch,
        eval_batch_size=20,
        num_workers=0,
        train_augmentations=shifted(args.image_size, args.shift) if name == "glcf" and args.shift else None,
    )
    model = MODELS[name](args.weights, args.image_size, options, args.backbone)
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
            results = sam_lad_results(model, data, args.pictures and args.pictures / f"{category}.png")
        elif name != "glcf":
            batches = engine.predict(model, datamodule=data)
            results[name] = image_aurocs(batches, [batch.pred_score for batch in batches])
        else:
            for statistics in ("training", "validation"):
                model.statistics = statistics
                model.model.anomaly_map_generator.normalization.measured.fill_(False)  # measure again
                batches = engine.predict(model, datamodule=data)
                if args.pictures and statistics == "training":
                    draw(batches, args.pictures / f"{category}.png")
                for image_score in get_args(ImageScore):
                    scores = [summarize(batch.anomaly_map, image_score, TOP_SHARE) for batch in batches]
                    results[f"glcf, {statistics}, {image_score}"] = image_aurocs(batches, scores)
    common = {"category": category, "seconds": round(seconds, 1)}
    return [{"model": row, **common, **figures} for row, figures in results.items()]


def draw(batches: list[Batch], path: Path) -> None:
    """Draw test images at equal distances, four logical and two structural anomalies: image, ground truth, map.

    Green, half of the colours' range, is the highest value of the good test images; blue is their median.
    """
    paths = [path for batch in batches for path in batch.image_path]
    maps = torch.cat([batch.anomaly_map for batch in batches])
    masks = torch.cat([batch.gt_mask for batch in batches])
    kinds = anomaly_kinds(paths)
    good = maps[[kind == "good" for kind in kinds]]
    low, middle = good.median(), good.max()
    tiles = []
    for kind, number in (("logical_anomalies", 4), ("structural_anomalies", 2)):
        indices = [i for i, k in enumerate(kinds) if k == kind]
        for i in indices[:: len(indices) // number][:number]:
            image, heat = image_and_map(paths[i], maps[i], low, middle)
            mask = Image.fromarray(masks[i].numpy().astype("uint8") * 255).resize(TILE)
            tiles += [image, mask.convert("RGB"), heat]
    path.parent.mkdir(parents=True, exist_ok=True)
    create_image_grid(tiles, nrow=6).save(path, optimize=True)


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
    parser.add_argument("--weights", type=Path, required=True, help="weights of the backbone")
    parser.add_argument("--backbone", default=BACKBONE, help="or tf_efficientnet_lite0")
    parser.add_argument("--categories", nargs="+", help="all folders of --root by default")
    parser.add_argument("--models", nargs="+", default=["glcf", "padim", "patchcore", "samlad"], choices=MODELS)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=90, help="of GLCF")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shift", type=int, default=6, help="of GLCF's training images, in pixels; 0 switches it off")
    parser.add_argument("--precision", default="32-true", help="of GLCF's training")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", default="{}", help="JSON: more arguments of Glcf or SamLad")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of some maps of GLCF and SAM-LAD")
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
