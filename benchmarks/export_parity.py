# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""How exported models differ from torch: model x format x device that was really run x batch 1 and 4.

    python benchmarks/export_parity.py --root SCENES --category pin_grid --weights mobilenetv2_100.safetensors

trains the models on a category in MVTec LOCO's layout, exports them through Anomalib's engine, and prints a table in
Markdown. In single precision a difference beyond the tolerance stops it. Compressed files and bf16 (--compressed) are
measured, with the image AUROC of the test images beside. Swin-T and Segment Anything have random weights unless files
are given; then Segment Anything's thresholds of quality are off, for random weights predict no certain mask.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from lightning import seed_everything
from settings import BACKBONE, BACKBONE_ARGS

from anomalib_logic import Glcf, Lgfdr, MVTecLoco, SamLad
from anomalib_logic.benchmark.models import NARROW
from anomalib_logic.export import EngineRunner, OnnxRunner, OpenVINORunner, Runner, TorchRunner, verify
from anomalib_logic.export.images import splits_of, spread
from anomalib_logic.export.verification import FULL_PRECISION, file_size, image_auroc
from anomalib_logic.models.components.trained_model import TrainedModel

BATCHES = (1, 4)
MOBILENET = {"backbone": BACKBONE, "backbone_args": BACKBONE_ARGS, "pre_trained": False}
COMPRESSED = ("fp16", "int8", "int8_ptq")


def glcf_mobilenet(args: argparse.Namespace) -> AnomalibModule:
    """GLCF with MobileNetV2."""
    return Glcf(**MOBILENET, **NARROW, backbone_weights=args.weights, image_size=args.image_size)


def glcf_swin(args: argparse.Namespace) -> AnomalibModule:
    """GLCF as in the paper."""
    return Glcf(pre_trained=False, backbone_weights=args.swin_weights, image_size=args.image_size)


def lgfdr(args: argparse.Namespace) -> AnomalibModule:
    """LGFDR with MobileNetV2."""
    return Lgfdr(**MOBILENET, backbone_weights=args.weights, image_size=args.image_size)


def samlad_cluster(args: argparse.Namespace) -> AnomalibModule:
    """SAM-LAD with clustered segments."""
    return SamLad(
        **MOBILENET, backbone_weights=args.weights, objects="cluster", upsample=4, k=10, image_size=args.image_size
    )


def samlad_vit_b(args: argparse.Namespace) -> AnomalibModule:
    """SAM-LAD with Segment Anything."""
    model = SamLad(
        **MOBILENET,
        backbone_weights=args.weights,
        objects="sam_vit_b",
        sam_checkpoint=args.sam_checkpoint,
        sam_size=args.sam_size,
        sam_points=args.sam_points,
        upsample=4,
        image_size=args.image_size,
    )
    if args.sam_checkpoint is None:
        model.model.encoder.objects.iou_threshold, model.model.encoder.objects.stability_threshold = -1e3, 0.0
    return model


MODELS: dict[str, Callable[[argparse.Namespace], AnomalibModule]] = {
    "glcf_mobilenet": glcf_mobilenet,
    "glcf_swin": glcf_swin,
    "lgfdr": lgfdr,
    "samlad_cluster": samlad_cluster,
    "samlad_vit_b": samlad_vit_b,
}


def single_precision(engine: Engine, model: AnomalibModule, root: Path, args: argparse.Namespace):
    """Each format and device: its name, its file and its runner."""
    switch = {"onnx_kwargs": {"verify": False}}  # every row is verified below, with more images
    torch_file = model.to_torch(root, verify=False)
    yield "torch", torch_file, TorchRunner(torch_file, "cpu")
    onnx = engine.export(model, "onnx", root, **switch)
    for provider in args.providers:
        yield "ONNX Runtime", onnx, OnnxRunner(onnx, provider)
    openvino = engine.export(model, "openvino", root, **switch)
    for device in args.devices:
        yield "OpenVINO f32", openvino, OpenVINORunner(openvino, device, "f32")


def rounded(engine: Engine, model: AnomalibModule, data: MVTecLoco, root: Path):
    """Each coarser format on the CPU: its name, its file and its runner."""
    full = root / "weights/openvino/model.xml"
    yield "OpenVINO bf16", full, OpenVINORunner(full, "CPU", "bf16")
    for kind in COMPRESSED:
        file = engine.export(
            model,
            "openvino",
            root,
            model_file_name=kind,
            compression_type=kind,
            datamodule=data,
            onnx_kwargs={"verify": False},
        )
        yield f"OpenVINO {kind}", file, OpenVINORunner(file, "CPU", "f32")


def rows_of(name: str, args: argparse.Namespace) -> list[str]:
    """Train, export and compare one model."""
    seed_everything(args.seed, verbose=False)
    data = MVTecLoco(args.root, args.category, train_batch_size=8, eval_batch_size=8, num_workers=0)
    model = MODELS[name](args)
    trainer = {"max_epochs": args.epochs} if isinstance(model, TrainedModel) else {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(default_root_dir=folder, accelerator="cpu", enable_progress_bar=False, logger=False, **trainer)
        engine.fit(model, datamodule=data)
        images = list(spread(splits_of(data, "test"), args.images))
        reference = EngineRunner(model.cpu())

        def compare(kind: str, file: Path, runner: Runner, exact: bool) -> None:
            found = verify(reference, runner, images, FULL_PRECISION if exact else None, BATCHES)
            cells = [f"{row.score:.1e} / {row.anomaly_map:.1e}" for row in found]
            auroc = "same"
            if not exact:
                result = image_auroc([reference, runner], data)
                auroc = " to ".join(f"{value:.4f}" for value in result[0]) if result else "no labels"
            size = f"{file_size(file) / 1e6:.1f} MB"
            rows.append(f"| {' | '.join([name, kind, runner.device, *cells, size, auroc])} |")
            print(rows[-1], flush=True)

        for kind, file, runner in single_precision(engine, model, Path(folder), args):
            compare(kind, file, runner, exact=True)
        if args.compressed:
            for kind, file, runner in rounded(engine, model, data, Path(folder)):
                compare(kind, file, runner, exact=False)
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="data set, one folder a category")
    parser.add_argument("--category", required=True)
    parser.add_argument("--weights", required=True, help="weights of timm's mobilenetv2_100")
    parser.add_argument("--swin-weights", help="weights of timm's swin_tiny_patch4_window7_224; random by default")
    parser.add_argument("--sam-checkpoint", help="weights of Segment Anything's ViT-B; random by default")
    parser.add_argument("--sam-size", type=int, default=1024)
    parser.add_argument("--sam-points", type=int, default=32)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--providers", nargs="+", default=["CPUExecutionProvider"], help="of ONNX Runtime")
    parser.add_argument("--devices", nargs="+", default=["CPU"], help="of OpenVINO")
    parser.add_argument("--images", type=int, default=8, help="test images that are compared")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10, help="of GLCF and LGFDR")
    parser.add_argument("--compressed", action="store_true", help="also bf16, fp16 and int8, with AUROC")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = [row for name in args.models for row in rows_of(name, args)]
    print("\nLargest difference of score / of map:\n")
    print(f"| model | format | device | {' | '.join(f'batch {b}' for b in BATCHES)} | file | image AUROC |")
    print(f"|{' --- |' * 7}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
