# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Speed of exported models beside torch and beside Anomalib's models, from one run on one machine.

    python benchmarks/export_speed.py
    python benchmarks/export_speed.py --device cuda --providers CUDAExecutionProvider --batches 1 8 32

prints, for each model and runtime, milliseconds an image at batch 1, images a second in batches, and the ratio to torch
eager. Weights are random, which does not change the time; PatchCore's bank has as many features as 10% of 80 images
give, SAM-LAD's has 80 images. Then "segment everything": our graph beside SamAutomaticMaskGenerator with the same grid;
and the share of SAM-LAD's time that is not segmentation. Medians over --repeats runs after one that is not counted.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import InferenceBatch
from anomalib.models import AnomalibModule, EfficientAd, Patchcore, ReverseDistillation
from lightning import seed_everything
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from settings import BACKBONE
from torch import nn

from anomalib_logic import Glcf, Lgfdr, SamLad
from anomalib_logic.benchmark.models import NARROW
from anomalib_logic.export import OnnxRunner, OpenVINORunner, VerifiedExport
from anomalib_logic.export.quantization import layers_to_quantize
from anomalib_logic.models.sam_lad.segment_anything import SegmentAnything

BANK_IMAGES = 80
PIXEL_MEAN, PIXEL_STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def glcf_swin(args: argparse.Namespace) -> AnomalibModule:
    """GLCF as in the paper."""
    return Glcf(pre_trained=False, image_size=args.image_size)


def glcf_mobilenet(args: argparse.Namespace) -> AnomalibModule:
    """GLCF with MobileNetV2 and narrow decoders."""
    return Glcf(BACKBONE, pre_trained=False, image_size=args.image_size, **NARROW)


def lgfdr(args: argparse.Namespace) -> AnomalibModule:
    """LGFDR with MobileNetV2."""
    return Lgfdr(BACKBONE, pre_trained=False, image_size=args.image_size)


def samlad(args: argparse.Namespace, objects: str) -> AnomalibModule:
    """SAM-LAD with a bank of random images."""
    model = SamLad(
        BACKBONE,
        pre_trained=False,
        objects=objects,
        upsample=4,
        image_size=args.image_size,
        sam_size=args.sam_size,
        sam_points=args.sam_points,
    ).eval()
    network = model.model
    encoder = network.encoder
    if objects != "cluster":  # random weights predict no certain mask
        encoder.objects.iou_threshold, encoder.objects.stability_threshold = -1e3, 0.0
    images = torch.rand(2, 3, args.image_size, args.image_size)
    with torch.no_grad():
        features = encoder.features(images)
        encoder.standardization.update(features)
        network.fit_encoder(images, features)
        template = network.represent(images[:1])
        noise = {n: t * (1 + 0.1 * torch.rand_like(t)) if t.is_floating_point() else t for n, t in template.items()}
        network.fit([noise] * BANK_IMAGES, BANK_IMAGES)
    return model


def patchcore(args: argparse.Namespace) -> AnomalibModule:
    """PatchCore with Anomalib's defaults."""
    model = Patchcore(pre_trained=False, pre_processor=Glcf.configure_pre_processor((args.image_size,) * 2))
    features = BANK_IMAGES * (args.image_size // 8) ** 2 // 10
    model.model.memory_bank = torch.randn(features, 1536)
    return model


def patchcore_mobilenet(args: argparse.Namespace, share: float) -> AnomalibModule:
    """PatchCore with SAM-LAD's backbone and size, and a share of the features of as many images."""
    pre_processor = Glcf.configure_pre_processor((args.image_size,) * 2, BACKBONE)
    model = Patchcore(BACKBONE, ["blocks.2", "blocks.4"], pre_trained=False, pre_processor=pre_processor)
    probe = torch.rand(1, 3, args.image_size, args.image_size)
    with torch.no_grad():
        features = model.model.train()(probe)
    model.model.memory_bank = torch.randn(round(share * BANK_IMAGES * len(features)), features.shape[1])
    return model.eval()


MODELS: dict[str, Callable[[argparse.Namespace], AnomalibModule]] = {
    "glcf_swin": glcf_swin,
    "glcf_mobilenet": glcf_mobilenet,
    "lgfdr": lgfdr,
    "samlad_cluster": lambda args: samlad(args, "cluster"),
    "samlad_vit_b": lambda args: samlad(args, "sam_vit_b"),
    "patchcore": patchcore,
    "patchcore_mobilenet": lambda args: patchcore_mobilenet(args, 0.1),
    "patchcore_mobilenet_2%": lambda args: patchcore_mobilenet(args, 0.02),
    "efficientad_s": lambda args: EfficientAd(
        pre_processor=EfficientAd.configure_pre_processor((max(256, args.image_size),) * 2)  # it takes no less
    ),
    "reverse_distillation": lambda args: ReverseDistillation(
        pre_trained=False, pre_processor=Glcf.configure_pre_processor((args.image_size,) * 2)
    ),
}


def seconds(run: Callable[[], Any], repeats: int, device: str = "cpu") -> float:
    """Median time of a call after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def torch_runs(model: AnomalibModule, args: argparse.Namespace):
    """Torch eager and compiled, as functions of a batch on the device."""

    def with_autocast(network: nn.Module) -> Callable[[torch.Tensor], InferenceBatch]:
        def run(images: torch.Tensor) -> InferenceBatch:
            with torch.inference_mode(), torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
                return network(images)

        return run

    precision = " bf16" if args.device == "cuda" else ""
    model = model.eval().to(args.device)
    yield f"torch eager{precision}", with_autocast(model)
    if "compile" not in args.without:
        torch._dynamo.reset()
        yield f"torch.compile{precision}", with_autocast(torch.compile(model, dynamic=False))


def quantized(file: Path, model: AnomalibModule, images: np.ndarray) -> Path:
    """An int8 file of the same layers as ``int8_ptq``, calibrated with random images, which does for measuring time."""
    import nncf
    import openvino

    converted = openvino.Core().read_model(file)
    _, kept = layers_to_quantize(converted, model)
    result = nncf.quantize(
        converted, nncf.Dataset([images]), subset_size=1, ignored_scope=nncf.IgnoredScope(names=kept, validate=False)
    )
    path = file.with_name("int8.xml")
    openvino.save_model(result, path, compress_to_fp16=False)
    return path


def exported_runs(model: AnomalibModule, folder: Path, args: argparse.Namespace):
    """Runtimes, as functions of a batch of arrays."""
    ours = {"verify": False} if isinstance(model, VerifiedExport) else {}
    model = model.cpu()
    size = (args.image_size, args.image_size)
    fixed = {"dynamic_shapes": ({},)} if len(args.batches) == 1 else {}  # PatchCore cannot be exported otherwise
    onnx = model.to_onnx(folder, input_size=size, **fixed, **ours)
    for provider in args.providers:
        yield f"ONNX Runtime, {provider.removesuffix('ExecutionProvider')}", OnnxRunner(onnx, provider)
    if "openvino" in args.without:
        return
    import openvino

    file = folder / "model.xml"
    openvino.save_model(openvino.convert_model(onnx), file, compress_to_fp16=False)
    for precision in ("f32", "bf16"):
        yield f"OpenVINO {precision}", OpenVINORunner(file, "CPU", precision, {"PERFORMANCE_HINT": "LATENCY"})
    if ours and "int8" not in args.without:
        file = quantized(file, model, np.random.default_rng(0).random((1, 3, *size), dtype=np.float32))
        yield "OpenVINO int8 (rest bf16)", OpenVINORunner(file, "CPU", "bf16", {"PERFORMANCE_HINT": "LATENCY"})


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


def measure(name: str, args: argparse.Namespace) -> None:
    """Print one model's rows."""
    seed_everything(0, verbose=False)
    model = MODELS[name](args).eval()
    for limit, value in {"min": 0.0, "max": 1.0}.items():  # what a validation would have set
        for kind in ("image", "pixel"):
            getattr(model.post_processor, f"{kind}_{limit}").fill_(value)
            getattr(model.post_processor, f"_{kind}_threshold").fill_(0.5)
    baseline: list[float] = []
    arrays = [
        np.random.default_rng(0).random((batch, 3, args.image_size, args.image_size), dtype=np.float32)
        for batch in args.batches
    ]

    def row(runtime: str, run: Callable[[Any], Any], batches: list[Any], device: str = "cpu") -> None:
        try:
            times = [seconds(lambda b=b: run(b), args.repeats, device) / len(b) for b in batches]
        except Exception as error:
            print(f"| {name} | {runtime} | failed: {_first_line(error)} |", flush=True)
            return
        baseline[:] = baseline or times
        cells = [f"{1000 * times[0]:.1f} ms", *(f"{1 / t:.2f} / s" for t in times[1:])]
        ratios = " ".join(f"{base / t:.2f}" for base, t in zip(baseline, times, strict=True))
        print(f"| {name} | {runtime} | {' | '.join(cells)} | {ratios} |", flush=True)

    on_device = [torch.from_numpy(array).to(args.device) for array in arrays]
    for runtime, run in torch_runs(model, args):
        row(runtime, run, on_device, args.device)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for runtime, run in exported_runs(model, Path(folder), args):
                row(runtime, run, arrays)
        except Exception as error:  # a model of Anomalib's that cannot be exported is a result, too
            print(f"| {name} | export | failed: {_first_line(error)} |", flush=True)


class Everything(nn.Module):
    """Segment everything as a graph of its own: images normalised for Segment Anything in, masks and scores out."""

    def __init__(self, objects: SegmentAnything) -> None:
        super().__init__()
        self.objects = objects

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the objects of images."""
        found = self.objects(images, images)
        return found.masks, found.scores


def segment_everything(args: argparse.Namespace) -> None:
    """Print times of our graph, in torch and OpenVINO, and of the package's generator with the same grid."""
    seed_everything(0, verbose=False)
    grid = {"size": args.sam_size, "points": args.sam_points}
    objects = SegmentAnything("vit_b", pre_trained=False, **grid).to(args.device)
    picture = np.random.default_rng(0).integers(0, 255, (args.image_size, args.image_size, 3), dtype=np.uint8)
    sam = Sam(objects.image_encoder, objects.prompt_encoder, objects.mask_decoder, PIXEL_MEAN, PIXEL_STD)
    generator = SamAutomaticMaskGenerator(sam.to(args.device).eval(), points_per_side=args.sam_points)
    with torch.inference_mode():
        theirs = seconds(lambda: generator.generate(picture), args.repeats, args.device)
        print(f"| segment everything | SamAutomaticMaskGenerator | {theirs:.2f} s | 1.00 |", flush=True)
        normalised = (torch.from_numpy(picture).float() - torch.tensor(PIXEL_MEAN)) / torch.tensor(PIXEL_STD)
        images = normalised.permute(2, 0, 1)[None].to(args.device)
        ours = seconds(lambda: objects(images, images), args.repeats, args.device)
        print(f"| segment everything | torch eager | {ours:.2f} s | {theirs / ours:.2f} |", flush=True)
    if "openvino" in args.without:
        return
    import openvino

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "everything.onnx"
        torch.onnx.export(Everything(objects.cpu()), (images.cpu(),), path, dynamo=True, opset_version=18)
        core = openvino.Core()
        for precision in ("f32", "bf16"):
            compiled = core.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": precision})
            spent = seconds(lambda c=compiled: c(images.cpu().numpy()), args.repeats)
            print(f"| segment everything | OpenVINO {precision} | {spent:.2f} s | {theirs / spent:.2f} |", flush=True)


def share_outside_segmentation(args: argparse.Namespace) -> None:
    """Print how much of SAM-LAD's time in torch is not segmentation."""
    for objects in ("cluster", "sam_vit_b"):
        seed_everything(0, verbose=False)
        network = samlad(args, objects).model.to(args.device)
        images = torch.rand(1, 3, args.image_size, args.image_size, device=args.device)
        with torch.inference_mode():
            encoder = network.encoder
            features, pixels = encoder.maps(images).fine, encoder.normalize_for_objects(images)
            whole = seconds(lambda n=network, i=images: n(i), args.repeats, args.device)
            part = seconds(lambda e=encoder, i=pixels, f=features: e.objects(i, f), args.repeats, args.device)
        print(
            f"| samlad, {objects} | {1000 * whole:.1f} ms, {1 - part / whole:.0%} of it not segmentation |", flush=True
        )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of torch; on cuda in bf16")
    parser.add_argument("--providers", nargs="+", default=["CPUExecutionProvider"], help="of ONNX Runtime")
    parser.add_argument("--without", nargs="+", default=[], choices=["compile", "openvino", "int8", "segmentation"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--sam-size", type=int, default=1024)
    parser.add_argument("--sam-points", type=int, default=32)
    args = parser.parse_args()
    head = [f"batch {batch}" for batch in args.batches]
    print(f"{torch.get_num_threads()} threads\n\n| model | runtime | {' | '.join(head)} | x torch eager |")
    print(f"|{' --- |' * (len(head) + 3)}")
    for name in args.models:
        measure(name, args)
    if "segmentation" not in args.without:
        print("\n| | | time | x SamAutomaticMaskGenerator |\n| --- | --- | --- | --- |")
        segment_everything(args)
        print("\n| | time |\n| --- | --- |")
        share_outside_segmentation(args)


if __name__ == "__main__":
    main()
