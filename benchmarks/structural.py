# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

r"""Structural and logical image AUROC and pixel average precision of all models on scenes and photographs.

    python benchmarks/structural.py --scenes s41 s42 --photographs photographs \
      --mobilenet mobilenetv2_100.safetensors --efficientnet efficientnet_lite0.safetensors --output results.jsonl

``--scenes`` are data sets in MVTec LOCO's layout, one folder a category; a folder of ``--photographs`` is a set of
parts with the folders ``good``, ``bad`` and, if there are any, ``masks``, of whose good images two thirds train. All
models have the same backbone, weights and images. Scores are raw. The pixels are those of good and structural images.
Seconds to fit are kept for ``--accelerator cpu`` only.

Results are added to ``--output``, and what it has already is not done again; ``--table`` prints a Markdown table of it.
``--models lgfdr --options '{"noise": 0}' --name "no noise"`` makes a row with other options.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from anomalib.data import Batch
from lightning import seed_everything
from scenes import MODELS, draw, shifted
from settings import BACKBONE, LITE, data_of, fit_and_predict
from sklearn.metrics import average_precision_score

from anomalib_logic.metrics.functional import auroc

FIGURES = ("structural", "pixel_ap", "pixel_ap_inside", "logical")
MARGIN = 1 / 16  # of the side of an image, outside of "inside"
EPOCHS = {"glcf": 90}  # LGFDR has its own


def figures(batches: list[Batch]) -> dict[str, float]:
    """Image AUROC of both kinds of anomalies and average precision of the pixels of good and structural images.

    Of photographs that of the pixels without a margin is there, too: what reaches into them there is in no mask.
    """
    paths = [path for batch in batches for path in batch.image_path]
    labels = torch.cat([batch.gt_label for batch in batches]).bool()
    scores = torch.cat([batch.pred_score.flatten() for batch in batches])
    maps = torch.cat([batch.anomaly_map.squeeze(1) for batch in batches])
    logical = torch.tensor(["logical_anomalies" in path for path in paths])  # photographs are in no layout of LOCO
    result = {"structural": float(auroc(scores[~labels], scores[labels & ~logical]))}
    if logical.any():
        result["logical"] = float(auroc(scores[~labels], scores[logical]))
    masks = [batch.gt_mask for batch in batches]
    if all(mask is not None for mask in masks):
        mask = torch.cat(masks).bool()
        kept = ~logical
        if mask[kept & labels].flatten(1).any(dim=1).all():
            result["pixel_ap"] = pixel_ap(mask[kept], maps[kept])
            if not logical.any():
                y, x = (slice(round(MARGIN * n), n - round(MARGIN * n)) for n in maps.shape[1:])
                result["pixel_ap_inside"] = pixel_ap(mask[kept][:, y, x], maps[kept][:, y, x])
    return result


def pixel_ap(mask: torch.Tensor, maps: torch.Tensor) -> float:
    """Average precision of all pixels together."""
    return float(average_precision_score(mask.flatten().numpy(), maps.flatten().numpy()))


def run(args: argparse.Namespace) -> None:
    """Fit and test what is not in the output yet."""
    done = {(r["row"], r["backbone"], r["folder"]) for r in read(args.output)}
    folders = [category for root in args.scenes for category in sorted(root.iterdir()) if (category / "train").is_dir()]
    folders += [one for one in sorted(args.photographs.iterdir()) if one.is_dir()] if args.photographs else []
    weights = {BACKBONE: args.mobilenet, LITE: args.efficientnet}
    for backbone in (name for name, file in weights.items() if file):
        for folder in folders:
            name = f"{folder.parent.name}/{folder.name}"
            if args.only and not any(part in name for part in args.only):
                continue
            for model_name in args.models:
                row = args.name or model_name
                if (row, backbone, name) in done:
                    continue
                seed_everything(1, verbose=False)
                options = json.loads(args.options)
                model = MODELS[model_name](weights[backbone], args.image_size, options, backbone)
                augmentations = shifted(args.image_size, 6) if model_name == "glcf" else None
                loader = {"train_batch_size": 8, "eval_batch_size": 20, "train_augmentations": augmentations}
                trainer = {"accelerator": args.accelerator, "check_val_every_n_epoch": 1000}
                if epochs := options.get("max_epochs") or EPOCHS.get(model_name):
                    trainer["max_epochs"] = epochs
                seconds, batches = fit_and_predict(model, data_of(folder, **loader), **trainer)
                result = {"row": row, "backbone": backbone, "folder": name}
                if args.accelerator == "cpu":
                    result["seconds"] = round(seconds, 1)
                result |= figures(batches)
                line = json.dumps(result)
                with args.output.open("a") as file:
                    file.write(line + "\n")
                print(line, flush=True)
                if args.pictures and "logical" in result:
                    draw(batches, args.pictures / f"{row}_{backbone}_{name.replace('/', '_')}.png")


def read(output: Path) -> list[dict[str, Any]]:
    """Results so far."""
    return [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def table(results: list[dict[str, Any]]) -> str:
    """Markdown table: means over the categories of each data set, "structural / pixel AP / logical"."""
    sets = list(dict.fromkeys(_set(r) for r in results))
    lines = [f"| | backbone | {' | '.join(sets)} | seconds to fit |", f"|{' --- |' * (len(sets) + 3)}"]
    for row, backbone in dict.fromkeys((r["row"], r["backbone"]) for r in results):
        own = [r for r in results if (r["row"], r["backbone"]) == (row, backbone)]
        cells = []
        for one in sets:
            there = [r for r in own if _set(r) == one]
            means = {f: [r[f] for r in there if f in r] for f in FIGURES}
            text = " / ".join(f"{sum(v) / len(v):.3f}" for v in means.values() if v)
            cells.append(f"{text} ({len(there)})" if len(there) > 1 else text)
        longest = max((r["seconds"] for r in own if "seconds" in r), default=None)
        lines.append(f"| {row} | {backbone} | {' | '.join(cells)} | {'' if longest is None else f'{longest:.0f}'} |")
    return "\n".join(lines)


def _set(result: dict[str, Any]) -> str:
    root, _, name = result["folder"].partition("/")
    return root if "logical" in result else name


def main() -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="*", type=Path, default=[], help="data sets in MVTec LOCO's layout")
    parser.add_argument("--photographs", type=Path, help="folder of sets of photographs")
    parser.add_argument("--only", nargs="*", help="parts of names of categories, as in s41/pin_grid")
    parser.add_argument("--mobilenet", type=Path, help=f"weights of timm's {BACKBONE}")
    parser.add_argument("--efficientnet", type=Path, help=f"weights of timm's {LITE}")
    parser.add_argument(
        "--models", nargs="+", default=["lgfdr", "samlad", "patchcore", "padim", "glcf"], choices=MODELS
    )
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--options", default="{}", help="JSON: more arguments of the model")
    parser.add_argument("--name", help="name of the row; that of the model by default")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of maps")
    parser.add_argument("--output", type=Path, default=Path("structural.jsonl"))
    parser.add_argument("--table", action="store_true", help="print the table of --output only")
    args = parser.parse_args()
    if not args.table:
        run(args)
    print(table(read(args.output)))


if __name__ == "__main__":
    main()
