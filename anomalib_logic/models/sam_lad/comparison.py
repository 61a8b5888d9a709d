# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""A query beside normal images: its references, and which object belongs to which (paper sections 3.3 and 3.5.2)."""

from typing import NamedTuple

import torch

from .bank import Bank, Template
from .matching import Matches, ObjectMatching
from .options import Selection


class Comparison(NamedTuple):
    """Query images beside the bank.

    Attributes:
        query: The images.
        bank: The normal images.
        exclude: Index in the bank of the query itself, which is compared with all others, shape ``(N,)``; or ``None``.
        alike: Indices of the most similar normal images, the nearest first, shape ``(N, A)``.
        references: The first k of them, or one of these at random, shape ``(N, R)``.
        matches: Which object belongs to which.
        missing: Reference objects that the query lacks, shape ``(N, R, L)``.
        surplus: Objects of the query that no reference has, shape ``(N, K)``.
    """

    query: Template
    bank: Bank
    exclude: torch.Tensor | None
    alike: torch.Tensor
    references: torch.Tensor
    matches: Matches
    missing: torch.Tensor
    surplus: torch.Tensor


ALIKE = 100  # most normal images that are compared place by place


def compare(
    query: Template, bank: Bank, matching: ObjectMatching, k: int, selection: Selection, exclude: torch.Tensor | None
) -> Comparison:
    """Find references and match objects.

    Args:
        query: Images.
        bank: The normal images.
        matching: Matches objects.
        k, selection: See :class:`.options.SamLadBank`.
        exclude: Index in the bank of the query itself, shape ``(N,)``: it is compared with all other normal images.
    """
    available = len(bank) - (exclude is not None)
    alike = bank.search(query["key"], min(max(k, ALIKE), available), exclude)
    references = alike[:, :k]
    if selection == "random":
        # The random numbers are drawn when the bank is filled, so that an image has one result everywhere.
        references = references.gather(1, bank.priority[references].argmax(dim=1, keepdim=True))
    descriptors, boxes, valid = (bank.get(name, references) for name in ("descriptors", "boxes", "valid"))
    scores = matching.scores(query["descriptors"], query["boxes"], descriptors, boxes)
    matches = matching(scores, query["valid"], valid)
    missing = matching.missing(matches, descriptors, boxes, valid)
    surplus = query["valid"] & ~matches.matched.any(dim=1)
    return Comparison(query, bank, exclude, alike, references, matches, missing, surplus)
