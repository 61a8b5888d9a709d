# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD as an Anomalib model."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT

from anomalib_logic.models.components.data_config import Normalization, normalization_of
from anomalib_logic.models.components.defaults import ModelDefaults
from anomalib_logic.models.components.image_score import ImageScore
from anomalib_logic.models.components.patch_features import coarsest_stride
from anomalib_logic.models.components.training import normal_batches

from .bank import Template
from .descriptor import Descriptor
from .explanation import Explanation
from .fitting import CHUNK
from .scoring import Alignment
from .torch_model import EMPTY_UPSAMPLERS, ObjectKind, SamLadModel, Selection

logger = logging.getLogger(__name__)

NOT_NORMALIZED = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
LEAST_SIDE = 384  # pixels; at 224 small parts have too few positions
SAMPLE = 60  # images whose features are clustered, at most
SAMPLE_BYTES = 500_000_000  # and the memory that their features may take


def default_image_size(backbone: str, backbone_args: Mapping[str, Any] | None = None) -> int:
    """Side of the images where none is given: the first multiple of a backbone's stride from ``LEAST_SIDE`` on.

    Args:
        backbone: timm's name of the backbone.
        backbone_args: Keyword arguments for ``timm.create_model``.
    """
    stride = coarsest_stride(backbone, backbone_args)
    return -(-LEAST_SIDE // stride) * stride


class SamLad(ModelDefaults, MemoryBankMixin, AnomalibModule):
    """SAM-LAD: segment anything meets logical anomaly detection.

    Peng et al., "SAM-LAD: Segment Anything Model Meets Zero-Shot Logic Anomaly Detection", 2024,
    https://arxiv.org/abs/2406.00625. Nothing is trained: the normal images fill a bank. A query's objects are matched
    with those of its nearest normals, and each object is compared with its partners; objects without partner, on
    either side, are logical anomalies.

    Args:
        backbone: timm vision transformer, or model with feature maps at strides 4, 8 and 16.
        pre_trained: Download and use published weights: timm's of the backbone and, without ``sam_checkpoint``, those
            of Segment Anything. If false, they are random where no file is given.
        backbone_weights: Local ``.safetensors`` or ``.pth`` file with the backbone's weights, instead of a download; or
            ``"packaged"``: those of an installed package (``tf_efficientnet_lite0``, extra ``weights``).
        objects: ``"sam_vit_h"``, ``"sam_vit_l"``, ``"sam_vit_b"`` or ``"mobile_sam"`` (Segment Anything; the last is
            smaller), or ``"cluster"``: segments of clustered features, which need no further network (ours).
        sam_checkpoint: Local file with the weights of Segment Anything; by default Anomalib's cache or a download, if
            ``pre_trained``.
        upsample: Factor by which features are up-sampled from the grid of patches (stride 16 for a pyramid): 1, 2, 4,
            8, 16 or 32; 8 in the paper.
        upsampler_weights: Checkpoint of FeatUp's up-sampler for this backbone, or the name of a published one,
            ``"featup_dinov2"`` or ``"featup_dinov2_no_norm"``; bilinear up-sampling by default.
        k: Number of nearest normals that a query is compared with; 2 in the paper.
        image_size: Height and width, or one number for both, in pixels: multiples of the backbone's patch size or of
            16; by default the first such multiple from 384 on (384, or 392 for patches of 14 pixels), 224 in the paper.
            A ``pre_processor`` that resizes to a fixed size has precedence.
        backbone_args: More keyword arguments for ``timm.create_model``.
        max_objects: Most objects of an image; of more, the best are kept.
        area_range: Least and largest object as shares of the image; calibrated on the normals by default (ours).
        clusters: Number of clusters for ``objects="cluster"``; chosen on the normals by default.
        sam_size: Side of Segment Anything's input in pixels, a multiple of 16.
        sam_points: Prompt points along one side of the image.
        selection: Compare with the ``"nearest"`` k normals, or with one of them that is chosen at ``"random"``
            (equation 2): that of the highest of random numbers, which the bank draws for its images when it is filled.
        coreset: Share of the normals that the bank keeps, chosen by greedy k-center. Below 1 thresholds are rather too
            high, for they come from the images that are kept, which lie far apart.
        half_precision_bank: Keep the bank's features in half precision.
        descriptor: ``"gap"``, ``"gmp"``, ``"dcga"`` or ``"dcga_literal"``, see :class:`.descriptor.ObjectDescriptor`.
        geometry: Weight of objects' place and size when matching (ours); 0 for the paper's reading.
        align: What a position of an object is compared with: the same position of the image (``"none"``, the paper),
            the same position in the partners' own frames (``"box"``, ours), or the nearest feature anywhere in the
            partners (``"nearest"``, ours). ``"combined"`` (ours) adds to the latter the nearest feature anywhere in the
            references, and coarser features anywhere and in the same place of all normals.
        eps: Regularisation of the Gaussians' covariance (equation 11); for ``"box"`` and ``"none"``.
        scene_size: Height and width of the grid on which whole images are compared.
        object_size: Height and width of the grid on which objects are compared.
        score_missing: Count objects of the references that the query lacks (ours).
        lite: Measure unmatched objects only (equation 16).
        composition: Add a score of how much there is of what, see :class:`.composition.Composition` (ours).
        image_score: Mean of the ``"top"`` 0.5% of the map, its ``"max"`` or its standard deviation ``"std"``.
        sigma: Standard deviation of the anomaly map's Gaussian filter in pixels.
        seed: Seed of all random choices: of the clusterings, the bank and the calibration.
        pre_processor: Pre-processor instance, ``True`` for the default (resize, the backbone's normalisation) or
            ``False``: images come resized and normalised with ImageNet's statistics.
        post_processor: Post-processor instance, ``True`` for the default or ``False``.
        evaluator: Evaluator instance, ``True`` for the default (with the figures of MVTec LOCO AD on data in its
            layout) or ``False``.
        visualizer: Visualiser instance, ``True`` for the default or ``False``.

    Raises:
        ValueError: If an argument is out of range; the message names it, its value and the remedy.
        RuntimeError: If published weights cannot be downloaded or are not the published ones.
        FileNotFoundError: If a file of weights does not exist.

    Example:
        >>> from anomalib.engine import Engine
        >>> from anomalib_logic import DigitAnatomy, SamLad
        >>> Engine().train(SamLad(objects="cluster"), datamodule=DigitAnatomy())  # doctest: +SKIP
    """

    WITHOUT_FILES: ClassVar[dict[str, Any]] = {**ModelDefaults.WITHOUT_FILES, "sam_checkpoint": None}
    IMAGES_AT_A_TIME: ClassVar[int] = CHUNK

    def __init__(
        self,
        backbone: str = "vit_small_patch14_dinov2",
        pre_trained: bool = True,
        backbone_weights: str | None = None,
        objects: ObjectKind = "sam_vit_h",
        sam_checkpoint: str | None = None,
        upsample: int = 4,
        upsampler_weights: str | None = None,
        k: int = 10,
        image_size: int | Sequence[int] | None = None,
        backbone_args: dict[str, Any] | None = None,
        max_objects: int = 20,
        area_range: Sequence[float] | None = None,
        clusters: int | None = None,
        sam_size: int = 1024,
        sam_points: int = 32,
        selection: Selection = "nearest",
        coreset: float = 1.0,
        half_precision_bank: bool = True,
        descriptor: Descriptor = "gap",
        geometry: float = 0.3,
        align: Alignment = "combined",
        eps: float = 0.01,
        scene_size: int = 48,
        object_size: int = 16,
        score_missing: bool = True,
        lite: bool = False,
        composition: bool = True,
        image_score: ImageScore = "max",
        sigma: float = 4.0,
        seed: int = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if image_size is None:
            image_size = default_image_size(backbone, backbone_args)
        super().__init__(image_size, backbone, backbone_args, pre_processor, post_processor, evaluator, visualizer)
        self.seed = seed
        normalization = normalization_of(self.pre_processor)
        if normalization is None and self.pre_processor is not None:
            normalization = NOT_NORMALIZED
        self.model = SamLadModel(
            image_size=self.image_size,
            backbone=backbone,
            pre_trained=pre_trained,
            backbone_weights=backbone_weights,
            backbone_args=backbone_args,
            objects=objects,
            sam_checkpoint=sam_checkpoint,
            sam_size=sam_size,
            sam_points=sam_points,
            clusters=clusters,
            max_objects=max_objects,
            area_range=area_range,
            upsample=upsample,
            upsampler_weights=upsampler_weights,
            k=k,
            selection=selection,
            coreset=coreset,
            half_precision_bank=half_precision_bank,
            descriptor=descriptor,
            geometry=geometry,
            align=align,
            eps=eps,
            scene_size=scene_size,
            object_size=object_size,
            score_missing=score_missing,
            lite=lite,
            composition=composition,
            image_score=image_score,
            sigma=sigma,
            **({} if normalization is None else normalization._asdict()),
        )
        if self.model.upsampler is not None:  # the checkpoint brings its weights
            self.hparams["upsampler_weights"] = EMPTY_UPSAMPLERS[self.model.upsampler.norm is not None]
        self._said: set[str] = set()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One epoch without any optimisation; the bank is that of one process."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1}

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is trained."""

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Do nothing: :meth:`fit` goes over the normal images by itself, in order."""
        del batch, batch_idx
        return torch.zeros((), device=self.device, requires_grad=True)

    def on_fit_start(self) -> None:
        """Fill the bank anew, unless this fit goes on from a checkpoint."""
        super().on_fit_start()
        if self.trainer.ckpt_path is None:
            self._is_fitted.fill_(False)
            # A trainer that has reached max_epochs would end a second fit before its first epoch.
            self.trainer.fit_loop.epoch_progress.reset()

    def on_train_end(self) -> None:
        """Forget the comparisons that the thresholds did not take."""
        super().on_train_end()
        self.model.forget_comparisons()

    def on_validation_start(self) -> None:
        """Fill the bank before the first validation of a fit; any other one needs a bank."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_start()
        self.model.check_filled()

    def on_test_start(self) -> None:
        """Refuse an empty bank."""
        self.model.check_filled()
        super().on_test_start()

    def on_predict_start(self) -> None:
        """Refuse an empty bank."""
        self.model.check_filled()
        super().on_predict_start()

    def to_torch(self, *args: Any, **kwargs: Any) -> Path:
        """Refuse an empty bank, then export, see :meth:`.VerifiedExport.to_torch`."""
        self.model.check_filled()
        return super().to_torch(*args, **kwargs)

    def to_onnx(self, *args: Any, **kwargs: Any) -> Path:
        """Refuse an empty bank, then export, see :meth:`.VerifiedExport.to_onnx`; OpenVINO's export comes here."""
        self.model.check_filled()
        return super().to_onnx(*args, **kwargs)

    def fit(self) -> None:
        """Measure the features' statistics, cluster those of a sample, and fill the bank with all normal images."""
        self.model.eval()
        with torch.no_grad():
            self.model.fit_objects(*self._measure_features(), self.seed)
            templates = [self.model.represent(image) for image in self._normal_images("filling the bank")]
            self.model.fit(templates, self.seed)
        bank = self.model.bank
        logger.info("the bank has %d images of %.0f bytes each", len(bank), bank.bytes_per_image)

    def _normal_images(self, what: str) -> Iterator[torch.Tensor]:
        """Go over the normal training images one by one: neither result nor memory depend on the size of batches."""
        for batch in normal_batches(self, what=what):
            yield from batch.image.split(CHUNK)

    def _measure_features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Learn how features vary over the normals.

        Returns:
            Images and standardised features of the first normals, as many as ``SAMPLE`` and ``SAMPLE_BYTES`` allow.
        """
        model, images, maps = self.model, [], []
        model.standardization.reset()
        for image in self._normal_images("measuring features"):
            features = model.features(image)
            model.standardization.update(features)
            if len(maps) < model.sample_size(SAMPLE, SAMPLE_BYTES):
                images.append(image)
                maps.append(features)
        if not images:
            msg = "the bank is empty: there was no normal training image; give the data module some"
            raise ValueError(msg)
        model.standardization.finalize()
        return torch.cat(images), torch.cat([model.enlarge(m, i) for m, i in zip(maps, images, strict=True)])

    def infer_part(self, images: torch.Tensor) -> InferenceBatch:
        """Predict images, and say once what they lack."""
        query, compared = self.model.look_up(images)
        self.say_what_was_found(query)
        return self.model.score(query, compared)

    def held_out_predictions(self) -> Iterator[InferenceBatch]:
        """Predict normal images of the bank as compared with all others, one at a time."""
        return self.model.held_out_predictions()

    def fitted_predictions(self) -> Iterator[InferenceBatch]:
        """Predict nothing: an image of the bank that is compared with itself has no distance."""
        return iter(())

    def explain(self, images: torch.Tensor) -> list[Explanation]:
        """Say which objects images have, which partners they were matched with, and what is missing.

        Args:
            images: Images with values in [0, 1] and any size, shape ``(N, 3, H, W)``.

        Returns:
            One explanation an image; its ``draw`` makes a picture.
        """
        if self.pre_processor is not None:
            images = self.pre_processor(images)
        return self.eval().model.explain(images.to(self.device))

    def say_what_was_found(self, query: Template) -> None:
        """Warn, once, of images without any object and of images with too many."""
        slots = query.valid.shape[1]
        if not query.valid.any(dim=1).all():
            self._say_once("no object was found in an image: such images are compared as a whole")
        if (query.found > slots).any():
            self._say_once(f"more objects were found than max_objects={slots}: the best are kept")

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)
