# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What a test run's callbacks need to know of its data and of their place among the callbacks."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


def image_paths_of(data: Any) -> list[str] | None:
    """Return the paths of a data set's images.

    Args:
        data: Anomalib data set, or anything else.

    Returns:
        Paths; ``None`` if the data set does not list its images.
    """
    samples = getattr(data, "samples", None)
    return None if samples is None or "image_path" not in samples else [str(path) for path in samples["image_path"]]


def test_datasets(trainer: Trainer) -> list[Any]:
    """Return a test run's data sets; ``None`` for one that is not known (yet)."""
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is not None:
        return [getattr(datamodule, "test_data", None)]
    return datasets_of(getattr(trainer, "test_dataloaders", None))


def datasets_of(loaders: Any) -> list[Any]:
    """Return the data sets of one or several data loaders; ``None`` for one that is not known."""
    return [getattr(loader, "dataset", None) for loader in (loaders if isinstance(loaders, list) else [loaders])]


def test_image_paths(trainer: Trainer) -> list[str] | None:
    """Return the paths of a test run's images, or ``None`` if they are not known (yet)."""
    paths = [image_paths_of(dataset) for dataset in test_datasets(trainer)]
    known = [part for part in paths if part is not None]
    return [path for part in known for path in part] if len(known) == len(paths) else None


def run_before_post_processor(trainer: Trainer, module: LightningModule, callback: Callback) -> None:
    """Move a callback before the model's post-processor, which clamps a batch's maps and scores in place.

    Args:
        trainer: Trainer that is being set up. It gets a new list of callbacks, since it walks through the present one.
        module: Module with, perhaps, a post-processor.
        callback: The callback, whether or not the trainer has it already.
    """
    others = [other for other in trainer.callbacks if other is not callback]
    post_processor = getattr(module, "post_processor", None)
    place = next((i for i, other in enumerate(others) if other is post_processor), len(others))
    trainer.callbacks = [*others[:place], callback, *others[place:]]
