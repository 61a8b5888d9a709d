# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Constructor arguments of SAM-LAD, in groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from anomalib_logic.models.components.arguments import check_least
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.options import OptionGroup
from anomalib_logic.models.components.upsampling import check_factor

ObjectKind = Literal["sam_vit_h", "sam_vit_l", "sam_vit_b", "mobile_sam", "cluster"]
Descriptor = Literal["gap", "gmp", "dcga_literal", "dcga"]
Selection = Literal["nearest", "random"]
Alignment = Literal["combined", "nearest", "box", "none"]


@dataclass(frozen=True)
class SamLadSegmentation(OptionGroup):
    """How objects are found.

    Args:
        objects: ``"sam_vit_h"``, ``"sam_vit_l"``, ``"sam_vit_b"`` or ``"mobile_sam"`` (Segment Anything; the last is
            smaller), or ``"cluster"``: segments of clustered features, which need no further network (ours).
        max_objects: Most objects of an image; of more, the best are kept.
        area_range: Least and largest object as shares of the image; calibrated on normal images by default (ours).
        clusters: Number of clusters for ``objects="cluster"``; chosen on normal images by default.
        sam_size: Side of Segment Anything's input in pixels, a multiple of 16.
        sam_points: Prompt points along one side of the image.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"max_objects": 1, "sam_points": 1}

    objects: ObjectKind = "sam_vit_h"
    max_objects: int = 20
    area_range: Sequence[float] | None = None
    clusters: int | None = None
    sam_size: int = 1024
    sam_points: int = 32

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.clusters is not None:
            check_least("clusters", self.clusters, 2)
        area = self.area_range
        if area is not None and (len(area) != 2 or not 0 <= area[0] < area[1] <= 1):
            msg = f"area_range must be two shares of the image, the smaller first (0 <= a < b <= 1), got {area}"
            raise ValueError(msg)


@dataclass(frozen=True)
class SamLadMatching(OptionGroup):
    """How objects are described and matched.

    Args:
        descriptor: ``"gap"``, ``"gmp"``, ``"dcga"`` or ``"dcga_literal"``, see :class:`.descriptor.ObjectDescriptor`.
        geometry: Weight of objects' place and size when matching (ours); 0 for the paper's reading.
        score_missing: Count objects of the references that the query lacks (ours).
    """

    LEAST: ClassVar[Mapping[str, float]] = {"geometry": 0}

    descriptor: Descriptor = "gap"
    geometry: float = 0.3
    score_missing: bool = True


@dataclass(frozen=True)
class SamLadBank(OptionGroup):
    """What is kept of normal images, and which of them a query is compared with.

    Args:
        k: Number of nearest normal images that a query is compared with; 2 in the paper.
        selection: Compare with the ``"nearest"`` k, or with one of them that is chosen at ``"random"`` (equation 2):
            that of the highest of random numbers, which the bank draws for its images when it is filled.
        coreset: Share of the normal images that the bank keeps, chosen by greedy k-center. Below 1 thresholds are
            rather too high, for they come from the images that are kept, which lie far apart.
        half_precision_bank: Keep features in half precision.
        upsample: Factor by which features are up-sampled from the grid of patches (stride 16 for a pyramid): 1, 2, 4,
            8, 16 or 32; 8 in the paper.
        scene_size: Height and width of the grid on which whole images are compared.
        object_size: Height and width of the grid on which objects are compared; ``None``: 8 with clusters as objects,
            and with a transformer's patches that no up-sampler refines, otherwise 16.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"k": 1, "scene_size": 1, "object_size": 1}

    k: int = 10
    selection: Selection = "nearest"
    coreset: float = 1.0
    half_precision_bank: bool = True
    upsample: int = 4
    scene_size: int = 48
    object_size: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_factor(self.upsample)
        if not 0 < self.coreset <= 1:
            msg = f"coreset must be above 0 and at most 1, got {self.coreset}"
            raise ValueError(msg)


@dataclass(frozen=True)
class SamLadScoring(OptionGroup):
    """Scores, anomaly map and image score.

    Args:
        align: What a position of an object is compared with: the same position of the image (``"none"``, the paper),
            the same position in the partners' own frames (``"box"``, ours), or the nearest feature anywhere in the
            partners (``"nearest"``, ours). ``"combined"`` (ours) adds to the latter the nearest feature (fine, coarse)
            anywhere in normal images, and windows of coarse ones in about the same place.
        eps: Regularisation of the Gaussians' covariance (equation 11); for ``"box"`` and ``"none"``.
        lite: Measure unmatched objects only (equation 16); the scores ``details``, ``anywhere`` and ``place`` are left
            out, those of counts and amounts are not.
        composition: Add scores of how much there is of what, in the image and in its quarters, see
            :mod:`.scores.composition` (ours).
        image_score: What is taken of the maps of scores that have no value of their own: the mean of the ``"top"``
            0.5%, the ``"max"`` or the standard deviation ``"std"``.
        sigma: Standard deviation of the anomaly map's Gaussian filter in pixels.
    """

    LEAST: ClassVar[Mapping[str, float]] = {"sigma": 0}

    align: Alignment = "combined"
    eps: float = 0.01
    lite: bool = False
    composition: bool = True
    image_score: ImageScore = "max"
    sigma: float = 4.0

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        if self.eps <= 0:
            msg = f"eps must be above 0, got {self.eps}"
            raise ValueError(msg)
