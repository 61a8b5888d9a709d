# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""What is said of an image as JSON, and in a sentence; ``schema.json`` says what each key means."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .findings import Box, FoundObject, ReasonOfImage, Region

SCHEMA = "anomalib-logic/explanation"
VERSION = 1
MOST_REGIONS = 50
KINDS = ("missing", "surplus", "changed", "normal")

Record = dict[str, Any]
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def make_record(
    file: str,
    size: tuple[int, int],
    model: str,
    score: float | None,
    threshold: float | None,
    anomalous: bool | None,
    pixel_threshold: float | None,
    regions: Sequence[Region] | None,
    objects: Sequence[FoundObject] | None,
    reasons: Sequence[ReasonOfImage] | None,
) -> Record:
    """Put together what is said of an image.

    Args:
        file: Its path.
        size: Height and width in pixels.
        model: Name of the model.
        score: Image score; a score that is not finite becomes ``None``.
        threshold: Score above which an image is anomalous, on the same scale; ``None`` if there is none.
        anomalous: The model's answer; ``None`` if it gives none.
        pixel_threshold: Score above which pixels of the map belong to regions, on the map's scale.
        regions: The regions, those of the highest score first; ``None`` for a model without maps or thresholds.
        objects: Objects; ``None`` for a model that knows none.
        reasons: What each of the model's scores says, the most unusual first; ``None`` for a model that has one score.

    Returns:
        Plain values in the order of the keys in ``schema.json``.
    """
    record: Record = {
        "schema": SCHEMA,
        "version": VERSION,
        "file": file,
        "width": size[1],
        "height": size[0],
        "model": model,
        "score": score if score is not None and math.isfinite(score) else None,
        "threshold": threshold,
        "label": None if anomalous is None else "anomalous" if anomalous else "normal",
        "pixel_threshold": pixel_threshold,
        "anomalous_share": None if regions is None else _rounded(sum(region.share for region in regions)),
        "region_count": None if regions is None else len(regions),
        "regions": None,
        "object_count": None,
        "objects": None,
        "reasons": None,
    }
    if regions is not None:
        record["regions"] = [
            {"box": list(region.box), "share": _rounded(region.share), "score": _rounded(region.score)}
            for region in regions[:MOST_REGIONS]
        ]
    if objects is not None:
        record["object_count"] = sum(found.kind != "missing" for found in objects)
        record["objects"] = [
            {
                "kind": found.kind,
                "box": found.box and list(found.box),
                "share": _rounded(found.share),
                "score": None if found.score is None else _rounded(found.score),
            }
            for found in sorted(objects, key=_order)
            if found.kind != "normal"
        ]
    if reasons is not None:
        record["reasons"] = [
            {"score": reason.score, "deviation": _rounded(reason.deviation), "finding": reason.finding}
            for reason in reasons
            if math.isfinite(reason.deviation)
        ]
    record["sentence"] = sentence(record)
    return record


def to_json(record: Record) -> str:
    """A record as JSON, in ASCII, so that any reader takes any file name."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    return re.sub(r"\[\n\s+([\d,\s]+?)\s+\]", _in_one_line, text)  # boxes; no string has a line break


def _in_one_line(box: re.Match[str]) -> str:
    return f"[{' '.join(box[1].split())}]"


def _order(found: FoundObject) -> tuple[int, float]:
    """Objects by kind, then the highest score first."""
    return KINDS.index(found.kind), -math.inf if found.score is None else -found.score


def sentence(record: Record) -> str:
    """Say in plain words what a record says."""
    parts = [_verdict(record)]
    if record["label"] != "normal":
        parts += (_objects(record) or _regions(record)) + _reasons(record)
    return " ".join(parts)


def _verdict(record: Record) -> str:
    score, threshold, label = record["score"], record["threshold"], record["label"]
    if label is None:
        given = "There is no score." if score is None else f"The score is {score:.3f}."
        return f"{given} No threshold was measured, so the image is called neither normal nor anomalous."
    if score is None or threshold is None:
        return f"{label.capitalize()}."
    side = "is above" if label == "anomalous" else "does not exceed"
    return f"{label.capitalize()}: the score {score:.3f} {side} the threshold {threshold:.3f}."


def _objects(record: Record) -> list[str]:
    parts = []
    for kind in KINDS[:3]:
        boxes = [found["box"] for found in record["objects"] or () if found["kind"] == kind]
        if boxes:
            number = "1 object" if len(boxes) == 1 else f"{len(boxes)} objects"
            places = ", ".join(dict.fromkeys(place(box, record) for box in boxes if box is not None))
            parts.append(f"{kind.capitalize()}: {number} {places}".rstrip() + ".")
    return parts


def _regions(record: Record) -> list[str]:
    regions, count = record["regions"], record["region_count"]
    if regions is None:
        return []
    if not regions:
        return ["No pixel is above the pixel threshold."]
    share = record["anomalous_share"]
    percent = "less than 0.1%" if share < 0.001 else f"{share:.1%}"
    if count == 1:
        return [f"1 region differs ({percent} of the image), {place(regions[0]['box'], record)}."]
    return [f"{count} regions differ ({percent} of the image), most of all one {place(regions[0]['box'], record)}."]


def _reasons(record: Record) -> list[str]:
    for reason in (record["reasons"] or ())[:1]:
        if reason["deviation"] > 0:
            number = f"{reason['deviation']:.1f} standard deviations above normal images"
            return [f"Most unusual is {reason['finding']} ({number})."]
    return []


def place(box: Box | Sequence[int], record: Record) -> str:
    """Say where the centre of a box lies, in thirds of the image."""
    left, top, right, bottom = box
    row = _ROWS[min(2, 3 * (top + bottom) // (2 * record["height"]))]
    column = _COLUMNS[min(2, 3 * (left + right) // (2 * record["width"]))]
    if row == "middle":
        return "in the centre" if column == "centre" else f"at the {column}"
    return f"at the {row}" if column == "centre" else f"at the {row} {column}"


def _rounded(value: float) -> float:
    """Six significant digits: single precision has no more."""
    return float(f"{value:.6g}")
