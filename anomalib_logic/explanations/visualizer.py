# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's pictures with what our models know beside them: GLCF's branches and SAM-LAD's objects."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from anomalib.data import ImageBatch, ImageItem, InferenceBatch
from anomalib.models import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.utils.path import convert_to_title_case
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import (
    add_text_to_image,
    create_image_grid,
    overlay_image,
    visualize_anomaly_map,
)
from lightning.pytorch import Trainer
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from anomalib_logic._files import complete_file

from .findings import FoundObject
from .run import RunExplainer, picture_path

Panel = Literal["local_map", "global_map", "objects"]
PANELS: tuple[Panel, ...] = get_args(Panel)
COLOURS = {"normal": "#009E73", "changed": "#E69F00", "surplus": "#D55E00", "missing": "#56B4E9"}


class ExplanationVisualizer(ImageVisualizer):
    """Anomalib's visualiser with more panels: what GLCF's branches add to the map, and SAM-LAD's objects.

    Both maps of GLCF have the colours of the anomaly map, which is their sum. Objects of SAM-LAD are green, changed
    ones orange and surplus ones red; missing ones are blue, where the most similar normal image has them. A panel that
    a model cannot give is left out, so that any Anomalib model can have this visualiser. The networks run once more
    for these panels.

    Args:
        panels: Which panels, in their order: ``"local_map"``, ``"global_map"``, ``"objects"``; all by default.
        **kwargs: Arguments of :class:`anomalib.visualization.ImageVisualizer`.

    Raises:
        ValueError: If there is no such panel.

    Example:
        >>> from anomalib_logic import ExplanationVisualizer, Glcf
        >>> model = Glcf(visualizer=ExplanationVisualizer(panels=["global_map"]))  # doctest: +SKIP
    """

    def __init__(self, panels: Sequence[Panel] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.panels = tuple(PANELS if panels is None else panels)
        if not set(self.panels) <= set(PANELS):
            msg = f"panels must be of {PANELS}, got {list(self.panels)}"
            raise ValueError(msg)
        self._explainer: RunExplainer | None = None

    def on_test_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Find out where the model's input lies on the images."""
        wanted = "objects" in self.panels and hasattr(pl_module.model, "explain")
        self._explainer = RunExplainer(trainer, pl_module) if wanted else None

    def on_predict_start(self, trainer: Trainer, pl_module: AnomalibModule) -> None:
        """Find out where the model's input lies on the images."""
        self.on_test_start(trainer, pl_module)

    @torch.no_grad()
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: AnomalibModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the pictures of a batch."""
        if self.output_dir is None:
            self.output_dir = Path(trainer.default_root_dir) / "images"
        maps = self._branch_maps(trainer, pl_module, batch)
        objects = [one.objects for one in self._explainer.explain(batch)] if self._explainer else None
        for i, item in enumerate(batch):
            of_item = {name: values[i] for name, values in maps.items()}
            picture = self._picture(item, of_item, objects[i] if objects else None)
            with complete_file(picture_path(trainer, item.image_path, self.output_dir)) as file:
                picture.save(file)

    def _picture(
        self, item: ImageItem, maps: dict[str, torch.Tensor], objects: list[FoundObject] | None
    ) -> Image.Image:
        usual = cast("Image.Image", self.visualize(item))  # of one item, not of a batch
        with Image.open(item.image_path) as image:
            base = image.convert("RGB").resize(self.field_size)
        panels = [self._with_title(name, picture) for name, picture in self._draw(base, maps, objects)]
        if not panels:
            return usual
        more = create_image_grid(panels, nrow=len(panels))
        whole = Image.new("RGB", (usual.width + more.width, more.height))
        whole.paste(usual, (0, 0))
        whole.paste(more, (usual.width, 0))
        return whole

    def _draw(
        self, base: Image.Image, maps: dict[str, torch.Tensor], objects: list[FoundObject] | None
    ) -> Iterator[tuple[str, Image.Image]]:
        for panel in self.panels:
            if panel in maps:
                yield panel, overlay_image(base, visualize_anomaly_map(maps[panel].clamp(0, 1)))
            elif panel == "objects" and objects is not None:
                yield panel, draw_objects(base, objects)

    def _with_title(self, name: str, picture: Image.Image) -> Image.Image:
        config = dict(self.text_config)
        return add_text_to_image(picture, convert_to_title_case(name), **config) if config.pop("enable") else picture

    def _branch_maps(self, trainer: Trainer, module: AnomalibModule, batch: ImageBatch) -> dict[str, torch.Tensor]:
        """Maps of the branches on the scale of the anomaly map, shapes ``(N, 1, H, W)``; none for other models."""
        branch_maps = getattr(module.model, "branch_maps", None)
        if branch_maps is None or not {"local_map", "global_map"} & set(self.panels):
            return {}
        with trainer.precision_plugin.forward_context():
            maps = branch_maps(batch.image)
        if isinstance(module.post_processor, PostProcessor):
            process = module.post_processor
            maps = {name: process(InferenceBatch(anomaly_map=values)).anomaly_map for name, values in maps.items()}
        return {name: values.float().cpu() for name, values in maps.items()}


def draw_objects(image: Image.Image, objects: Sequence[FoundObject]) -> Image.Image:
    """Draw objects on a picture: all in the colour of their kind, those that break the rule with box and name.

    Args:
        image: The picture, of any size.
        objects: Objects of the image.
    """
    pixels = pil_to_tensor(image)
    shown = [found for found in objects if found.box is not None]
    if not shown:
        return image
    size = (image.height, image.width)
    masks = torch.cat([F.interpolate(found.mask[None, None].float(), size, mode="bilinear")[0] for found in shown])
    colours = [COLOURS[found.kind] for found in shown]
    pixels = draw_segmentation_masks(pixels, masks >= 0.5, alpha=0.4, colors=colours)
    broken = [found for found in shown if found.kind != "normal"]
    if not broken:
        return to_pil_image(pixels)
    height, width = shown[0].mask.shape
    scale = torch.tensor([image.width / width, image.height / height] * 2)
    boxes = torch.tensor([found.box for found in broken]) * scale
    colours = [COLOURS[found.kind] for found in broken]
    picture = to_pil_image(draw_bounding_boxes(pixels, boxes, colors=colours, width=2))
    for found, box in zip(broken, boxes, strict=True):
        position = (int(box[0]) + 2, max(0, int(box[1]) - 12))
        picture = add_text_to_image(picture, found.kind, size=11, position=position, padding=1)
    return picture
