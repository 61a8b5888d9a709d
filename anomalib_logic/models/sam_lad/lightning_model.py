# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""SAM-LAD as an Anomalib model."""

import hashlib
import logging
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from typing_extensions import Unpack

from anomalib_logic.models.components.checkpoint_options import SOURCE
from anomalib_logic.models.components.data_config import Normalization, normalization_of
from anomalib_logic.models.components.defaults import ModelDefaults
from anomalib_logic.models.components.options import names_of, take_groups
from anomalib_logic.models.components.patch_features import coarsest_stride
from anomalib_logic.models.components.training import normal_batches

from .bank import Template, at_equal_distances, greedy_k_center
from .encoder import EMPTY_UPSAMPLERS
from .explanation import Explanation
from .options import SamLadBank, SamLadMatching, SamLadScoring, SamLadSegmentation
from .torch_model import SamLadModel

logger = logging.getLogger(__name__)

Options = names_of(SamLadSegmentation, SamLadMatching, SamLadBank, SamLadScoring)
CHUNK = 1  # images at a time while fitting and testing: neither result nor memory depend on the size of batches
NOT_NORMALIZED = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
FORMAT = 2  # of checkpoints; the next one where a field has another meaning under the same name
LEAST_SIDE = 384  # pixels; at 224 small parts have too few positions
SAMPLE = 60  # images whose features are clustered, and whose windows have the principal components, at most
SAMPLE_BYTES = 500_000_000  # and the memory that their features may take
CHANGED = 12  # of these images, at most, that are changed to measure how far scores can be trusted


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
    with those of its nearest normal images, and each object is compared with its partners; objects without partner, on
    either side, are logical anomalies.

    Args:
        backbone: timm vision transformer, or model with feature maps at strides 4, 8 and 16.
        pre_trained: Download and use published weights: timm's of the backbone and, without ``sam_checkpoint``, those
            of Segment Anything. If false, they are random where no file is given.
        backbone_weights: Local ``.safetensors`` or ``.pth`` file with the backbone's weights, instead of a download; or
            ``"packaged"``: those of an installed package (``tf_efficientnet_lite0``, extra ``weights``).
        upsampler_weights: Checkpoint of FeatUp's up-sampler for this backbone, or the name of a published one,
            ``"featup_dinov2"`` or ``"featup_dinov2_no_norm"``; bilinear up-sampling by default.
        sam_checkpoint: Local file with the weights of Segment Anything; by default Anomalib's cache or a download, if
            ``pre_trained``.
        image_size: Height and width, or one number for both, in pixels: multiples of the backbone's patch size or of
            16; by default the first such multiple from 384 on (384, or 392 for patches of 14 pixels), 224 in the paper.
            A ``pre_processor`` that resizes to a fixed size has precedence.
        backbone_args: More keyword arguments for ``timm.create_model``.
        segmentation: How objects are found, see :class:`.options.SamLadSegmentation`.
        matching: How they are described and matched, see :class:`.options.SamLadMatching`.
        bank: What is kept of normal images and compared with, see :class:`.options.SamLadBank`.
        scoring: Scores, anomaly map and image score, see :class:`.options.SamLadScoring`.
        seed: Seed of all random choices: of the clusterings, the bank and the calibration, and of weights that no file
            has; by default that of ``seed_everything``, or 0.
        pre_processor: Pre-processor instance, ``True`` for the default (resize, the backbone's normalisation) or
            ``False``: images come resized and normalised with ImageNet's statistics.
        post_processor: Post-processor instance, ``True`` for the default or ``False``.
        evaluator: Evaluator instance, ``True`` for the default (with the figures of MVTec LOCO AD on data in its
            layout) or ``False``.
        visualizer: Visualiser instance, ``True`` for the default or ``False``.
        **options: Single fields of the four groups, which count.

    Raises:
        TypeError: If there is no such option; the message names it, and those that there are.
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
        upsampler_weights: str | None = None,
        sam_checkpoint: str | None = None,
        image_size: int | Sequence[int] | None = None,
        backbone_args: dict[str, Any] | None = None,
        segmentation: SamLadSegmentation = SamLadSegmentation(),  # noqa: B008
        matching: SamLadMatching = SamLadMatching(),  # noqa: B008
        bank: SamLadBank = SamLadBank(),  # noqa: B008
        scoring: SamLadScoring = SamLadScoring(),  # noqa: B008
        seed: int | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
        **options: Unpack[Options],  # type: ignore[misc, valid-type]
    ) -> None:
        segmentation, matching, bank, scoring = take_groups(
            "SamLad",
            options,
            (SamLadSegmentation, segmentation),
            (SamLadMatching, matching),
            (SamLadBank, bank),
            (SamLadScoring, scoring),
        )
        options.clear()  # Lightning stores what is in this frame, and they are in their groups now
        size = default_image_size(backbone, backbone_args) if image_size is None else image_size
        super().__init__(size, backbone, backbone_args, seed, pre_processor, post_processor, evaluator, visualizer)
        normalization = normalization_of(self.pre_processor)
        if normalization is None and self.pre_processor is not None:
            normalization = NOT_NORMALIZED
        with self.initial_weights():
            self.model = SamLadModel(
                self.image_size,
                segmentation,
                matching,
                bank,
                scoring,
                backbone=backbone,
                pre_trained=pre_trained,
                backbone_weights=backbone_weights,
                backbone_args=backbone_args,
                upsampler_weights=upsampler_weights,
                sam_checkpoint=sam_checkpoint,
                **({} if normalization is None else normalization._asdict()),
            )
        if self.model.encoder.upsampler is not None:  # the checkpoint brings its weights
            self.hparams["upsampler_weights"] = EMPTY_UPSAMPLERS[self.model.encoder.upsampler.norm is not None]
        self._warned: set[str] = set()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """One epoch without any optimisation; the bank is that of one process."""
        return {"max_epochs": 1, "num_sanity_val_steps": 0, "devices": 1, "num_nodes": 1, "strategy": "auto"}

    def settings_without_effect(self) -> dict[str, str]:
        """Settings for training, of which the bank takes none."""
        trainer = self.trainer
        names = ("train_augmentations", "val_augmentations")
        of_training, of_others = (getattr(getattr(trainer, "datamodule", None), name, None) for name in names)
        given = {
            "train_augmentations": of_training is not None and of_training is not of_others,
            "limit_train_batches": not trainer.overfit_batches
            and (isinstance(trainer.limit_train_batches, int) or trainer.limit_train_batches < 1),
            "overfit_batches": bool(trainer.overfit_batches),
            "max_steps": trainer.max_steps != -1,
            "accumulate_grad_batches": trainer.accumulate_grad_batches != 1,
            "gradient_clip_val": bool(trainer.gradient_clip_val),
        }
        reason = "has no effect: SamLad trains nothing, and its bank takes every normal training image as it is"
        return {name: reason for name, is_given in given.items() if is_given}

    @staticmethod
    def configure_optimizers() -> None:
        """Nothing is trained."""

    def training_step(self, batch: Batch, batch_idx: int) -> STEP_OUTPUT:
        """Do nothing: :meth:`fit` goes over the normal images by itself, in order."""
        del batch, batch_idx
        return torch.zeros((), device=self.device, requires_grad=True)

    def on_fit_start(self) -> None:
        """Fill the bank anew, unless this fit goes on from a checkpoint.

        Raises:
            RuntimeError: If there are several processes.
        """
        super().on_fit_start()
        if self.trainer.world_size > 1:
            msg = f"SamLad's bank is filled by one process, not by {self.trainer.world_size}: fit it with devices=1"
            raise RuntimeError(msg)
        if self.trainer.ckpt_path is None:
            self._is_fitted.fill_(False)
            # A trainer that has reached max_epochs would end a second fit before its first epoch.
            self.trainer.fit_loop.epoch_progress.reset()

    def on_train_end(self) -> None:
        """Free what only the fit and its thresholds need."""
        super().on_train_end()
        self.model.free_fit_data()

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say how the fields of the checkpoint are to be understood."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[SOURCE]["format"] = FORMAT

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the checkpoint's options, and refuse checkpoints of versions that had other fields."""
        super().on_load_checkpoint(checkpoint)
        fields, there = (
            {name for name in names if name.startswith("model.scores.")}
            for names in (self.state_dict(), checkpoint["state_dict"])
        )
        if fields != there or checkpoint.get(SOURCE, {"format": FORMAT}).get("format") != FORMAT:
            msg = "the checkpoint is of a version of SamLad that had other fields: fit the model again"
            raise ValueError(msg)

    def fit(self) -> None:
        """Measure the features' statistics, cluster those of a sample, and fill the bank with the normal images."""
        self.model.eval()
        with torch.no_grad():
            different, sample = self._fit_encoder()
            kept, left_out = self._choose(different)
            places = {image: place for place, image in enumerate(kept)}
            some = [sample[i] for i in at_equal_distances(len(sample), CHANGED).tolist()]
            changed = [(image, places.get(i)) for i, image in some]
            templates = map(self.model.represent, self._normal_images("filling the bank", kept))
            self.model.fit(templates, len(kept), left_out, changed, self.seed)
        bank = self.model.bank
        logger.info("the bank has %d images of %.0f bytes each in the mean", len(bank), bank.bytes_per_image)

    def _normal_images(self, what: str, chosen: Iterable[int] | None = None) -> Iterator[torch.Tensor]:
        """Go over the normal training images one by one, or over those of the chosen indices."""
        images = (image for batch in normal_batches(self, what=what) for image in batch.image.split(CHUNK))
        wanted = None if chosen is None else set(chosen)
        return (image for i, image in enumerate(images) if wanted is None or i in wanted)

    def _fit_encoder(self) -> tuple[list[int], list[tuple[int, torch.Tensor]]]:
        """Learn how features vary over the normal images, and cluster the features of some of them, drawn at random.

        Exact copies of an image count once: compared with all others, it would seem to have no distance to them.

        Returns:
            Indices of the normal images without copies; and the images that were drawn, with their indices.
        """
        encoder, generator = self.model.encoder, torch.Generator().manual_seed(self.seed)
        drawn: list[tuple[int, torch.Tensor, list[torch.Tensor]]] = []
        indices: dict[bytes, int] = {}  # of the first of equal images
        number = 0
        encoder.standardization.reset()
        size = 4 * sum(encoder.backbone.channels) * encoder.grid[0] * encoder.grid[1]
        most = min(SAMPLE, -(-SAMPLE_BYTES // size))
        for number, image in enumerate(self._normal_images("measuring features"), start=1):
            digest = hashlib.sha256(image.float().cpu().numpy().tobytes()).digest()
            if digest in indices:
                continue
            indices[digest] = number - 1
            maps = encoder.features(image)
            encoder.standardization.update(maps)
            place = len(drawn)
            if place == most:  # every image so far has the same chance to be among those that are drawn
                place = int(torch.randint(len(indices), (), generator=generator))
            drawn[place : place + 1] = [(number - 1, image, maps)] if place < most else []
        if not indices:
            msg = "the bank is empty: there was no normal training image; give the data module some"
            raise ValueError(msg)
        copies = number - len(indices)
        if copies:
            logger.warning("%d of %d normal images are exact copies of others and are left out", copies, number)
        drawn.sort(key=operator.itemgetter(0))
        maps = [torch.cat(scale) for scale in zip(*(maps for _, _, maps in drawn), strict=True)]
        self.model.fit_encoder(torch.cat([image for _, image, _ in drawn]), maps, self.seed)
        return list(indices.values()), [(i, image[0]) for i, image, _ in drawn]

    def _choose(self, different: list[int]) -> tuple[list[int], Template | None]:
        """Choose which normal images the bank keeps, before it keeps any.

        Args:
            different: Indices of the normal images without copies.

        Returns:
            Indices of those that are kept, and outlines of all others.
        """
        share, number = self.model.options.coreset, len(different)
        if share == 1.0 or number == 1:
            return different, None
        outlines = [self.model.outline(image) for image in self._normal_images("choosing the coreset", different)]
        everything = {name: torch.cat([outline[name] for outline in outlines]) for name in outlines[0]}
        kept = greedy_k_center(everything["key"], max(1, int(share * number))).sort().values.tolist()
        left = sorted(set(range(number)) - set(kept))
        return [different[i] for i in kept], {n: values[left] for n, values in everything.items()} if left else None

    def infer_part(self, images: torch.Tensor) -> InferenceBatch:
        """Predict images, and say once what they lack."""
        compared = self.model.compare(self.model.represent(images))
        self.warn_of_objects(compared.query)
        return self.model.predict(self.model.measure(compared))

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

    def warn_of_objects(self, query: Template) -> None:
        """Warn, once, of images without any object and of images with too many."""
        slots = query["valid"].shape[1]
        if not query["valid"].any(dim=1).all():
            self._warn_once("no object was found in an image: such images are compared as a whole")
        if (query["found"] > slots).any():
            self._warn_once(f"more objects were found than max_objects={slots}: the best are kept")

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            logger.warning(message)
