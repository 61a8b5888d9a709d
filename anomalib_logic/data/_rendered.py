# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What data modules share that render their images on the spot: one folder in the LOCO layout, written once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from anomalib_logic._progress import with_progress

from .loco_layout import DEFECTS_CONFIG_FILE, GOOD, SPLIT_FOLDERS, DefectConfig, mask_folder
from .mvtec_loco import MVTecLoco

logger = logging.getLogger(__name__)

_INDENT = 4  # of JSON files


@dataclass(frozen=True)
class Picture:
    """One image to render.

    Args:
        path: Its file, below the data set's folder.
        draw: Returns the image, uint8 ``(H, W)`` or RGB ``(H, W, 3)``, and its masks, bool ``(H, W)``, one a channel.
        defect: Name of the defect that the masks mark; ``None`` for a normal image.
    """

    path: Path
    draw: Callable[[], tuple[np.ndarray, Sequence[np.ndarray]]]
    defect: str | None = None


class RenderedData(MVTecLoco):
    """A data set whose arguments say all of its content; the base of those that are rendered.

    A subclass sets ``arguments`` (all that shapes the images) and passes :func:`folder_name` of them as ``category``.
    """

    manifest_file: ClassVar[str]
    arguments: dict[str, Any]

    @abstractmethod
    def _defects(self) -> list[DefectConfig]:
        """Entries of ``defects_config.json``."""

    @abstractmethod
    def _pictures(self) -> list[Picture]:
        """All images, none of them drawn yet."""

    def _check_category(self) -> None:
        """Accept the folder's name, which follows from the arguments."""

    def prepare_data(self) -> None:
        """Write the data set unless it is there and whole.

        Raises:
            OSError: If the folder cannot be written, naming it and the remedy.
            ValueError: If the files that the images are made of are broken or hold too little.
        """
        folder = self.root / self.category
        if self._is_complete(folder):
            return
        pictures = self._pictures()
        try:
            if folder.exists() and not folder.is_dir():
                raise NotADirectoryError("a file has its name")  # noqa: EM101
            self._write(folder, pictures)
        except OSError as error:
            reason = error.strerror or error
            msg = f"folder {folder} cannot be written ({reason}); choose another root, or make room there"
            raise type(error)(msg) from error
        logger.info("wrote %d images to %s", len(pictures), folder)

    def _write(self, folder: Path, pictures: list[Picture]) -> None:
        """Write aside and rename.

        An interrupted write is never taken for the data set, and of two processes that write at once one is late and
        drops its copy.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=self.root) as parent:
            written = Path(parent) / folder.name
            self._write_files(written, pictures)
            self._move_into_place(written, folder)

    def _write_files(self, folder: Path, pictures: list[Picture]) -> None:
        """Write all images and masks, the defect configuration, and last the manifest."""
        folder.mkdir()
        defects = self._defects()
        _write_json(folder / DEFECTS_CONFIG_FILE, [asdict(defect) for defect in defects])
        values = {defect.defect_name: defect.pixel_value for defect in defects}
        what = f"writing {folder.name}"
        bar = (
            tqdm(pictures, desc=what, unit="image", leave=False)
            if sys.stderr.isatty()
            else with_progress(pictures, what)
        )
        for picture in bar:
            _write_picture(folder, picture, values)
        _write_json(folder / self.manifest_file, self._manifest(folder))

    def _is_complete(self, folder: Path) -> bool:
        """Tell whether a folder holds all files that were written for these arguments."""
        try:
            manifest = json.loads((folder / self.manifest_file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return manifest == self._manifest(folder)

    def _manifest(self, folder: Path) -> dict[str, Any]:
        """Describe a folder's content: the arguments and the number of PNG files."""
        return {"arguments": self.arguments, "png_files": sum(1 for _ in folder.rglob("*.png"))}

    def _move_into_place(self, written: Path, folder: Path) -> None:
        """Rename a data set to its final name, unless another process was faster; put an incomplete one aside."""
        if folder.exists() and not self._is_complete(folder):
            with contextlib.suppress(FileNotFoundError):
                folder.rename(written.parent / "incomplete")
        try:
            written.rename(folder)
        except OSError:
            if not self._is_complete(folder):
                raise


def check_numbers(numbers: dict[str, Any], least: dict[str, int]) -> None:
    """Refuse what is no integer, or below its least value, which is 1 where none is given."""
    for name, number in numbers.items():
        lowest = least.get(name, 1)
        if type(number) is not int or number < lowest:
            msg = f"{name} must be an integer of at least {lowest}, got {number!r}"
            raise ValueError(msg)


def folder_name(prefix: str, arguments: dict[str, Any]) -> str:
    """Name a data set's folder after a prefix, its seed and a digest of all arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:8]
    return f"{prefix}_seed{arguments['seed']}_{digest}"


def good_path(split: str, index: int) -> Path:
    """File of a normal image, below the data set's folder."""
    return Path(SPLIT_FOLDERS[split], GOOD, f"{index:03d}.png")


def anomaly_path(kind: str, stem: str) -> Path:
    """File of an anomalous test image, below the data set's folder."""
    return Path(SPLIT_FOLDERS["test"], kind, f"{stem}.png")


def _write_picture(folder: Path, picture: Picture, values: dict[str, int]) -> None:
    """Draw and write one image and, if it has a defect, its masks."""
    image, masks = picture.draw()
    path = folder / picture.path
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).convert("RGB").save(path)
    if picture.defect is not None:
        channels = mask_folder(path)
        channels.mkdir(parents=True)
        for channel, mask in enumerate(masks):
            pixels = mask.astype(np.uint8) * np.uint8(values[picture.defect])
            Image.fromarray(pixels).save(channels / f"{channel:03d}.png")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=_INDENT), encoding="utf-8")
