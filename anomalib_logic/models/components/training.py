# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What trained models share: the length of training and passes over the normal images."""

import copy
import logging
import math
from collections.abc import Iterator, Sized

import lightning.pytorch as pl
from anomalib.data import AnomalibDataModule, AnomalibDataset, Batch
from anomalib.data.utils import LabelName
from torch.utils.data import DataLoader, Dataset, Subset

from anomalib_logic._progress import ProgressLines

logger = logging.getLogger(__name__)

LIGHTNING_MAX_EPOCHS = 1000  # what Lightning trains for when no length is given


def apply_default_max_epochs(trainer: pl.Trainer, max_epochs: int, least_steps: int = 0) -> None:
    """Train for the model's number of epochs where the trainer was given no length.

    Lightning stands for "not given" with 1000 epochs, so exactly 1000 is told apart only by the model's argument.

    Args:
        trainer: Trainer that is about to fit.
        max_epochs: The model's own number of epochs.
        least_steps: Number of steps that more epochs make up where there are few images, in a data module of Anomalib.
    """
    if trainer.max_epochs == LIGHTNING_MAX_EPOCHS and trainer.max_steps == -1 and max_epochs != LIGHTNING_MAX_EPOCHS:
        datamodule = getattr(trainer, "datamodule", None)
        if least_steps and isinstance(datamodule, AnomalibDataModule):
            steps = max(1, math.ceil(len(datamodule.train_data) / datamodule.train_batch_size / trainer.world_size))
            max_epochs = max(max_epochs, math.ceil(least_steps / steps))
        trainer.fit_loop.max_epochs = max_epochs
        logger.info("the trainer sets no length: training for the model's %d epochs", max_epochs)


def training_ends(trainer: pl.Trainer) -> bool:
    """Whether this is the last epoch, as far as that is known."""
    return (
        trainer.should_stop
        or (trainer.max_epochs or -1) in range(trainer.current_epoch + 2)
        or trainer.max_steps in range(trainer.global_step + 1)
    )


def validation_may_be_last(trainer: pl.Trainer) -> bool:
    """Whether the weights of now may be the final ones: training ends, or a callback watches a metric."""
    return training_ends(trainer) or any(getattr(callback, "monitor", None) for callback in trainer.callbacks)


def normal_batches(
    module: pl.LightningModule, split: str = "training", what: str = "measuring statistics"
) -> Iterator[Batch]:
    """Go once over the normal images of a split as the model sees images at inference.

    Each process yields its share of the images, every image once over all processes, in order and without training
    augmentations. Batches are on the module's device and pre-processed, under the trainer's precision.

    Args:
        module: Module with a trainer and, usually, a ``pre_processor`` callback.
        split: ``"training"`` or ``"validation"``. Where the validation images hold no normal one, training images
            stand in for them, which the log says.
        what: What is done with the images; the log says every few seconds how far it is.

    Yields:
        Batches with at least one image.
    """
    for batch in _batches(module, _normal_loader(module.trainer, split), what):
        if batch.gt_label is not None and bool(batch.gt_label.any()):
            batch.image = batch.image[~batch.gt_label.bool()]
        if len(batch.image):
            yield batch


def validation_batches(module: pl.LightningModule) -> Iterator[Batch]:
    """Go once over all validation images, as :func:`normal_batches` does over the normal ones; nothing without any.

    Args:
        module: Module with a trainer.
    """
    trainer = module.trainer
    dataset = getattr(getattr(trainer, "datamodule", None), "val_data", None)
    reference = trainer.train_dataloader
    what = "measuring thresholds on validation images"
    if isinstance(dataset, AnomalibDataset) and len(dataset) and isinstance(reference, DataLoader):
        yield from _batches(module, _share(trainer, dataset, reference), what)
    elif trainer.val_dataloaders is not None:
        loaders = trainer.val_dataloaders
        for loader in loaders if isinstance(loaders, list) else [loaders]:
            yield from _batches(module, loader, what)


def _batches(module: pl.LightningModule, loader: DataLoader, what: str) -> Iterator[Batch]:
    """Batches on the module's device and pre-processed, under the trainer's precision."""
    trainer = module.trainer
    pre_processor = getattr(module, "pre_processor", None)
    dataset = getattr(loader, "dataset", None)
    lines = (
        ProgressLines(what, len(dataset) if isinstance(dataset, Sized) else None) if trainer.is_global_zero else None
    )
    done = 0
    for i, batch in enumerate(loader):
        on_device = trainer.strategy.batch_to_device(batch)
        done += len(on_device.image)
        if pre_processor is not None and hasattr(pre_processor, "on_predict_batch_start"):
            pre_processor.on_predict_batch_start(trainer, module, on_device, i)
        if hasattr(module, "check_size"):
            module.check_size(on_device.image)
        with trainer.strategy.precision_plugin.val_step_context():
            yield on_device
        if lines is not None:
            lines.update(done)


def _normal_loader(trainer: pl.Trainer, split: str) -> DataLoader:
    """Loader over this process's share of a split's images, unshuffled."""
    loader = trainer.train_dataloader
    if loader is None:
        trainer.datamodule.setup()
        loader = trainer.datamodule.train_dataloader()
    if not isinstance(loader, DataLoader):
        return loader
    held_out = _held_out(trainer) if split == "validation" else None
    dataset = _without_augmentations(loader.dataset, trainer) if held_out is None else held_out
    return _share(trainer, dataset, loader)


def _share(trainer: pl.Trainer, dataset: Dataset, loader: DataLoader) -> DataLoader:
    """Loader over this process's share of a data set, with the settings of another loader."""
    share = Subset(dataset, range(trainer.global_rank, len(dataset), trainer.world_size))  # type: ignore[arg-type]
    return DataLoader(
        share,
        batch_size=loader.batch_size or 8,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        persistent_workers=False,
    )


def _held_out(trainer: pl.Trainer) -> AnomalibDataset | None:
    """The validation images, if there are normal ones among them."""
    dataset = getattr(getattr(trainer, "datamodule", None), "val_data", None)
    if isinstance(dataset, AnomalibDataset) and bool((dataset.samples.label_index == LabelName.NORMAL).any()):
        return dataset
    logger.warning("there are no normal validation images: statistics are measured over the training images")
    return None


def _without_augmentations(dataset: Dataset, trainer: pl.Trainer) -> Dataset:
    """The training images with the transforms of the evaluation images."""
    datamodule = getattr(trainer, "datamodule", None)
    reference = getattr(datamodule, "val_data", None) or getattr(datamodule, "test_data", None)
    if not isinstance(dataset, AnomalibDataset) or not isinstance(reference, AnomalibDataset):
        return dataset
    unchanged = copy.copy(dataset)
    unchanged.augmentations = reference.augmentations
    return unchanged
