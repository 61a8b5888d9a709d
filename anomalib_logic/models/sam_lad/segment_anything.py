# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Objects from Segment Anything (https://arxiv.org/abs/2304.02643), prompted with a fixed grid of points.

Everything that depends on the grid alone is computed once, and filters and suppression of duplicates work on a fixed
number of proposals, so that "segment everything" is one graph of tensor operations.
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import timm
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.utils.amg import build_point_grid
from torch import nn
from torch.nn import functional as F

from anomalib_logic.models.components.frozen import Frozen
from anomalib_logic.models.components.upsampling import resize
from anomalib_logic.models.components.weights import published_weights, read_state_dict, shorten, watch_loading

from .objects import Objects, calibrate_areas

logger = logging.getLogger(__name__)

ENCODERS = {
    "vit_h": {"embed_dim": 1280, "depth": 32, "num_heads": 16, "global_attn_indexes": (7, 15, 23, 31)},
    "vit_l": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "global_attn_indexes": (5, 11, 17, 23)},
    "vit_b": {"embed_dim": 768, "depth": 12, "num_heads": 12, "global_attn_indexes": (2, 5, 8, 11)},
}
PATCH = 16
WIDTH = 256  # channels of image embeddings and prompts
SUPPRESSION_STEPS = 16


class MobileEncoder(nn.Module):
    """MobileSAM's image encoder (https://arxiv.org/abs/2306.14289): timm's TinyViT-5M with its last stride at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.network = timm.create_model("tiny_vit_5m_224", num_classes=0)
        self.network.head = nn.Identity()
        self.network.stages[-1].downsample.conv2.conv.stride = (1, 1)
        self.neck = nn.Sequential(
            nn.Conv2d(self.network.num_features, WIDTH, 1, bias=False),
            LayerNorm2d(WIDTH),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            LayerNorm2d(WIDTH),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images: ``(N, 3, S, S)`` to ``(N, 256, S / 16, S / 16)``."""
        return self.neck(self.network.stages(self.network.patch_embed(images)))


class SegmentAnything(Frozen):
    """All objects of an image by Segment Anything's networks.

    The proposals are those of ``SamAutomaticMaskGenerator`` with the same grid and thresholds; duplicates are found by
    the overlap of masks instead of boxes.

    Args:
        model_type: ``"vit_h"``, ``"vit_l"``, ``"vit_b"`` or ``"mobile_sam"``.
        checkpoint: File of weights as published. By default Anomalib's cache of weights, or a download.
        pre_trained: Find or download weights when ``checkpoint`` is ``None``; else they stay random, to be loaded.
        size: Side of the networks' square input in pixels, a multiple of 16.
        points: Points along one side of the image.
        slots: Most objects of an image, K.
        area_range: Least and largest object as shares of the image; calibrated by default.
        iou_threshold: Least predicted IoU of a proposal.
        stability_threshold: Least stability of a proposal.
        duplicate_threshold: IoU of two masks from which on the worse is dropped.
        candidates: Best proposals that are looked at for duplicates, at least ``slots``.
        points_per_batch: Points that are decoded at a time.

    Raises:
        ValueError: If ``size`` is not a multiple of 16, points are too few for the slots, or the checkpoint is another
            one's.
        RuntimeError: If the checkpoint cannot be downloaded or is not the published one.
        FileNotFoundError: If ``checkpoint`` is not a file.
    """

    def __init__(
        self,
        model_type: str = "vit_h",
        checkpoint: str | Path | None = None,
        pre_trained: bool = True,
        size: int = 1024,
        points: int = 32,
        slots: int = 20,
        area_range: Sequence[float] | None = None,
        iou_threshold: float = 0.88,
        stability_threshold: float = 0.95,
        duplicate_threshold: float = 0.7,
        candidates: int = 256,
        points_per_batch: int = 64,
    ) -> None:
        super().__init__()
        if size % PATCH or size <= 0:
            msg = f"sam_size must be a multiple of {PATCH}, got {size}"
            raise ValueError(msg)
        if 3 * points**2 < slots:
            msg = (
                f"sam_points={points} give {3 * points**2} proposals, fewer than max_objects={slots}: raise sam_points"
            )
            raise ValueError(msg)
        self.model_type = model_type
        self.size = size
        self.slots = slots
        self.area_range = area_range
        self.iou_threshold = iou_threshold
        self.stability_threshold = stability_threshold
        self.duplicate_threshold = duplicate_threshold
        self.candidates = max(candidates, slots)
        self.points_per_batch = points_per_batch
        side = size // PATCH
        self.image_encoder = MobileEncoder() if model_type == "mobile_sam" else _create_encoder(model_type, size)
        self.prompt_encoder = PromptEncoder(WIDTH, (side, side), (size, size), mask_in_chans=16)
        transformer = TwoWayTransformer(depth=2, embedding_dim=WIDTH, num_heads=8, mlp_dim=2048)
        self.mask_decoder = MaskDecoder(transformer_dim=WIDTH, transformer=transformer)
        watch_loading(self)
        if checkpoint is None and pre_trained:
            checkpoint = published_weights(model_type if model_type == "mobile_sam" else f"sam_{model_type}")
        if checkpoint is not None:
            self.load_checkpoint(checkpoint)
        self.register_buffer("grid", torch.from_numpy(build_point_grid(points)).float())
        self.register_buffer("areas", torch.tensor([0.0, 1.0]))
        self.freeze()

    def load_checkpoint(self, path: str | Path) -> None:
        """Load weights as published, positional embeddings resampled to this input size.

        Args:
            path: Checkpoint of Segment Anything or MobileSAM.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is a checkpoint of another model.
        """
        source = read_state_dict(path, "sam_checkpoint")
        if self.model_type == "mobile_sam":
            source = {_timm_name(name): value for name, value in source.items()}
        wanted = {k: v for k, v in self.state_dict().items() if k.split(".")[0] not in ("grid", "areas")}
        state = {name: _resample(name, source[name], value) for name, value in wanted.items() if name in source}
        missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
        wrong = [name for name, value in state.items() if value.shape != wanted[name].shape]
        if missing or wrong:
            msg = (
                f"sam_checkpoint file {path} is not one of '{self.model_type}': it lacks or has other shapes of "
                f"{shorten(missing + wrong, most=4)}; choose objects to fit the checkpoint"
            )
            raise ValueError(msg)
        self.load_state_dict(state, strict=False)

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> Objects:
        """Find the objects of images.

        Args:
            images: Images normalised by ImageNet's statistics (Segment Anything's are the same), ``(N, 3, H, W)``.
            features: Features whose size the masks shall have, shape ``(N, C, h, w)``.

        Returns:
            Objects; their score is the predicted IoU.
        """
        masks, scores = self._distinct(images, features.shape[2:])
        areas = masks.mean(dim=(2, 3))
        accepted = (scores > 0) & (areas >= self.areas[0]) & (areas <= self.areas[1])
        scores, order = (scores * accepted).topk(self.slots, dim=1)
        masks = masks.gather(1, order[..., None, None].expand(-1, -1, *masks.shape[2:]))
        valid = scores > 0
        return Objects(masks * valid[..., None, None], scores, valid, accepted.sum(dim=1))

    @torch.no_grad()
    def fit(self, images: torch.Tensor, features: torch.Tensor, seed: int = 0) -> None:
        """Calibrate the areas on a sample of the normal images, unless they are given.

        Args:
            images: Shape ``(Z, 3, H, W)``; the first 16 are used.
            features: Shape ``(Z, C, h, w)``.
            seed: Not used.
        """
        del seed
        if not self.loaded:
            logger.warning(
                "Segment Anything has random weights: pass sam_checkpoint=FILE or pre_trained=True to segment objects"
            )
        if self.area_range is not None:
            self.areas.copy_(torch.tensor(self.area_range))
            return
        found = [self._distinct(image, features.shape[2:]) for image in images[:16].split(1)]
        least, largest, _ = calibrate_areas(
            torch.cat([masks.mean(dim=(2, 3)) * (scores > 0) for masks, scores in found])
        )
        self.areas.copy_(torch.tensor([least, largest]))

    def proposals(self, images: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode all points of the grid, before any filter.

        Args:
            images: Normalised images, shape ``(N, 3, H, W)``.
            size: Height and width of the masks.

        Returns:
            Masks, shape ``(N, P, h, w)``, predicted IoUs and stabilities at the images' size, shape ``(N, P)``; three
            proposals a point.
        """
        height, width = images.shape[2:]
        scale = self.size / max(height, width)
        inner = (round(height * scale), round(width * scale))
        resized = F.interpolate(images, inner, mode="bilinear", align_corners=False)
        embeddings = self.image_encoder(F.pad(resized, (0, self.size - inner[1], 0, self.size - inner[0])))
        points = self.grid * self.grid.new_tensor([inner[1], inner[0]])
        masks, ious, stabilities = [], [], []
        for part in points.split(self.points_per_batch):
            logits, iou = self._decode(embeddings, part)
            logits = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
            logits = logits[..., : inner[0], : inner[1]]
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            certain, possible = ((logits > offset).float().sum(dim=(2, 3)) for offset in (1.0, -1.0))
            masks.append((resize((logits > 0).float(), (size[0], size[1])) > 0.5).float())
            ious.append(iou)
            stabilities.append(certain / possible.clamp_min(1))
        return torch.cat(masks, dim=1), torch.cat(ious, dim=1), torch.cat(stabilities, dim=1)

    def _decode(self, embeddings: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks' logits ``(N, 3 p, S / 4, S / 4)`` and predicted IoUs ``(N, 3 p)`` of p points on every image."""
        decoder, encoder = self.mask_decoder, self.prompt_encoder
        number, prompts = embeddings.shape[0], points.shape[0]
        # A point, and the padding that stands for "no box", as the prompt encoder embeds them.
        place = encoder.pe_layer._pe_encoding((points + 0.5) / self.size) + encoder.point_embeddings[1].weight
        padding = encoder.not_a_point_embed.weight.expand(prompts, -1)
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(prompts, -1, -1)
        tokens = torch.cat([outputs, place.unsqueeze(1), padding.unsqueeze(1)], dim=1)
        tokens = tokens.unsqueeze(0).expand(number, -1, -1, -1).flatten(0, 1)
        source = embeddings + encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        source = source.unsqueeze(1).expand(-1, prompts, -1, -1, -1).flatten(0, 1)
        hidden, source = decoder.transformer(source, encoder.get_dense_pe(), tokens)
        source = source.transpose(1, 2).unflatten(2, embeddings.shape[2:])
        upscaled = decoder.output_upscaling(source)
        # The first mask token is for single masks and is left out.
        heads = [decoder.output_hypernetworks_mlps[i](hidden[:, 1 + i]) for i in range(1, decoder.num_mask_tokens)]
        logits = torch.einsum("bmc,bchw->bmhw", torch.stack(heads, dim=1), upscaled)
        ious = decoder.iou_prediction_head(hidden[:, 0])[:, 1:]
        return logits.unflatten(0, (number, prompts)).flatten(1, 2), ious.reshape(number, -1)

    def _distinct(self, images: torch.Tensor, size: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The best proposals, best first, with score 0 where they fail a filter or are duplicates."""
        masks, ious, stabilities = self.proposals(images, size)
        kept = (ious > self.iou_threshold) & (stabilities >= self.stability_threshold)
        scores, order = (ious * kept).clamp_min(0).topk(min(self.candidates, ious.shape[1]), dim=1)
        masks = masks.gather(1, order[..., None, None].expand(-1, -1, *masks.shape[2:]))
        return masks, scores * suppress_duplicates(masks, scores > 0, self.duplicate_threshold)


def suppress_duplicates(masks: torch.Tensor, valid: torch.Tensor, threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression of masks in a fixed number of tensor operations.

    Each step drops what overlaps with a better mask that is kept so far. That settles the n-th link of a chain of
    overlaps in n steps, so it is the greedy result unless a chain is longer than ``SUPPRESSION_STEPS``.

    Args:
        masks: The best first, shape ``(N, P, H, W)``.
        valid: Which count, shape ``(N, P)``.
        threshold: IoU from which on the worse is dropped.

    Returns:
        Which are kept, shape ``(N, P)``.
    """
    flat = masks.flatten(2)
    common = flat @ flat.transpose(1, 2)
    areas = flat.sum(dim=2)
    union = areas.unsqueeze(1) + areas.unsqueeze(2) - common
    better = torch.ones_like(common[0]).triu(diagonal=1)  # rows are better than columns
    overlap = (common > threshold * union).float() * better * valid.unsqueeze(2).float()
    kept = valid
    for _ in range(SUPPRESSION_STEPS):
        kept = valid & ~((overlap * kept.unsqueeze(2).float()).amax(dim=1) > 0)
    return kept


def _create_encoder(model_type: str, size: int) -> ImageEncoderViT:
    return ImageEncoderViT(
        img_size=size,
        patch_size=PATCH,
        mlp_ratio=4,
        out_chans=WIDTH,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=14,
        **ENCODERS[model_type],
    )


def _resample(name: str, value: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Fit positional embeddings of another input size; leave everything else as it is."""
    if name.endswith("pos_embed") and value.shape[-1] == wanted.shape[-1]:
        resized = F.interpolate(value.permute(0, 3, 1, 2), wanted.shape[1:3], mode="bicubic", align_corners=False)
        return resized.permute(0, 2, 3, 1)
    if re.search(r"rel_pos_[hw]$", name) and value.shape[1] == wanted.shape[1]:
        return F.interpolate(value.T.unsqueeze(0), wanted.shape[0], mode="linear")[0].T
    return value


def _timm_name(name: str) -> str:
    """Name in :class:`MobileEncoder` of an entry of MobileSAM's checkpoint."""
    if not name.startswith("image_encoder.") or name.startswith("image_encoder.neck."):
        return name
    name = re.sub(r"\.c\.", ".conv.", name.removeprefix("image_encoder."))
    name = re.sub(r"patch_embed\.seq\.([02])\.", lambda m: f"patch_embed.conv{int(m[1]) // 2 + 1}.", name)
    name = re.sub(r"layers\.(\d)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    return "image_encoder.network." + re.sub(r"layers\.(\d)\.", r"stages.\1.", name)
