# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Scenes of :class:`~anomalib_logic.data.loco_scenes.LocoScenes`: one module a category, and what they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .canvas import Canvas
from .component_tray import ComponentTray
from .damage import harm
from .pellet_dish import PelletDish
from .scene import Saturation, Scene
from .tablet_blister import TabletBlister
from .vial_rack import VialRack
from .wire_plug import WirePlug

SCENES: dict[str, type[Scene]] = {
    "tablet_blister": TabletBlister,
    "component_tray": ComponentTray,
    "vial_rack": VialRack,
    "wire_plug": WirePlug,
    "pellet_dish": PelletDish,
}


def render(
    category: str, defect: str | None, image_size: int, stream: Sequence[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Render one image.

    Args:
        category: One of ``SCENES``.
        defect: One of the category's defects, or ``None`` for a normal image.
        image_size: Height and width in pixels.
        stream: Numbers that seed the image's chance. The same numbers with another defect give the same scene.

    Returns:
        Image, uint8 RGB, ``(image_size, image_size, 3)``, and its ground-truth channels, bool,
        ``(image_size, image_size)``; none if the image is normal.
    """
    layout, look, chance = (np.random.default_rng([*stream, part]) for part in range(3))
    scene = SCENES[category](layout)
    canvas = Canvas(image_size, look)
    structural = scene.structural.get(defect or "")
    painted = structural is not None and structural.damage is not None
    if defect is not None and not painted:
        scene.spoil(defect, chance)
    scene.draw(canvas)
    if structural is not None:
        harm(canvas, structural, chance)
    return canvas.finish(), canvas.channels


__all__ = ["SCENES", "Saturation", "Scene", "render"]
