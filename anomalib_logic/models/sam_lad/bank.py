# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The template features bank: everything about the normal images, computed once (paper section 3.2 and 3.3)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from anomalib.models.components import DynamicBufferMixin

PATCHES = 1000  # coarse features that are kept of all normals
CANDIDATES = 50_000  # coarse features that they are chosen from, at most
PART = 1000  # of which so many are compared with all patches at a time
FARTHEST = 10_000  # of which so many, the farthest from the patches of all other images, may take the place of a patch
COMPARED = 500  # images whose coarse features are compared place by place, at most

HALVED = ("key", "scene", "coarse", "patches", "masks", "crops", "crop_masks", "descriptors")


class Template(NamedTuple):
    """What is kept of an image, normal or query.

    Attributes:
        key: Flattened coarse features for the search, shape ``(N, D)``.
        scene: Features of the whole image, shape ``(N, C, s, s)``.
        coarse: Coarse features of the whole image, shape ``(N, C', h, w)``.
        masks: Objects' masks, shape ``(N, K, s, s)``.
        boxes: Objects' boxes ``(top, left, bottom, right)`` in [0, 1], shape ``(N, K, 4)``.
        valid: Which slots hold an object, shape ``(N, K)``.
        crops: Features in the objects' own frames, shape ``(N, K, C, g, g)``.
        crop_masks: Masks in the same frames, shape ``(N, K, g, g)``.
        descriptors: Objects' descriptors, shape ``(N, K, C)``.
        histogram: Composition of the image, shape ``(N, B * M)``.
        words: What is where, for the composition, shape ``(N, B, s, s)``.
        found: Number of objects found, which can be more than K, shape ``(N,)``.
        picture: The image as bytes, small and square, for explanations, shape ``(N, 3, p, p)``.
    """

    key: torch.Tensor
    scene: torch.Tensor
    coarse: torch.Tensor
    masks: torch.Tensor
    boxes: torch.Tensor
    valid: torch.Tensor
    crops: torch.Tensor
    crop_masks: torch.Tensor
    descriptors: torch.Tensor
    histogram: torch.Tensor
    words: torch.Tensor
    found: torch.Tensor
    picture: torch.Tensor

    def __len__(self) -> int:
        """Number of images, not of fields."""
        return self.key.shape[0]

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Template":
        """Apply a function to every field."""
        return Template(*(function(field) for field in self))


def greedy_k_center(points: torch.Tensor, number: int, distances: torch.Tensor | None = None) -> torch.Tensor:
    """Choose points of which each next one is the farthest from all before, as PatchCore's coreset.

    Not Anomalib's ``KCenterGreedy``: in each of its steps it makes a copy of all points, which can fragment the memory
    until there is none. Here a step is one product of a matrix and a vector.

    Args:
        points: Shape ``(P, C)``.
        number: How many to choose.
        distances: Squared distances of the points to what was chosen before, shape ``(P,)``; by default nothing was,
            and the first point is chosen first.

    Returns:
        Their indices, shape ``(number,)``.
    """
    norms = points.square().sum(dim=1)
    if distances is None:
        distances = torch.full_like(norms, torch.inf)
    chosen: list[torch.Tensor] = []
    while len(chosen) < number:
        last = distances.argmax()
        chosen.append(last)
        distances = torch.minimum(distances, norms + norms[last] - 2 * (points @ points[last]))
        distances[last] = -1.0
    return torch.stack(chosen)


class Bank(DynamicBufferMixin):
    """Templates of normal images, as buffers that travel in checkpoints and exported graphs.

    The buffers are the fields of :class:`Template`, under the same names; ``patches``, a coreset of the coarse
    features of all images, shape ``(P, C')``; ``owners``, the image that each of them is of, shape ``(P,)``; and
    ``substitutes``, what the coreset would have in their place without that image, shape ``(P, C')``. ``priority`` is
    a random number for each image, shape ``(Z,)``.

    Args:
        half: Keep features and masks in half precision.
    """

    def __init__(self, half: bool = True) -> None:
        super().__init__()
        self.half_precision = half
        for name in Template._fields:
            self.register_buffer(name, torch.empty(0, dtype=self._dtype(name)))
        self.register_buffer("patches", torch.empty(0, dtype=self._dtype("patches")))
        self.register_buffer("substitutes", torch.empty(0, dtype=self._dtype("patches")))
        self.register_buffer("owners", torch.empty(0, dtype=torch.long))
        self.register_buffer("priority", torch.empty(0))

    def __len__(self) -> int:
        """Number of images."""
        return self.key.shape[0]

    @property
    def bytes_per_image(self) -> float:
        """Bytes that one image takes."""
        return sum(getattr(self, name).nbytes for name in Template._fields) / max(1, len(self))

    def get(self, name: str, index: torch.Tensor | slice) -> torch.Tensor:
        """One field of images in single precision; ``index`` of shape ``(...)`` gives shape ``(..., *)``."""
        field = getattr(self, name)[index]
        return field.float() if field.is_floating_point() else field

    def objects(self, name: str, images: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """One field of single objects, by image and slot.

        Args:
            name: ``"crops"``, ``"crop_masks"`` or ``"masks"``.
            images: Indices of images, shape ``(N, R)``.
            slots: Slots of objects in them, shape ``(N, R, K)``.

        Returns:
            Shape ``(N, R, K, *)``, in single precision.
        """
        field = getattr(self, name)
        return field.flatten(0, 1)[images.unsqueeze(-1) * field.shape[1] + slots].float()

    def template(self, index: torch.Tensor | slice) -> Template:
        """Templates of images, in single precision."""
        return Template(*(self.get(name, index) for name in Template._fields))

    @torch.no_grad()
    def fill(self, templates: list[Template], coreset: float = 1.0, seed: int = 0) -> torch.Tensor:
        """Replace the content.

        Args:
            templates: Batches of normal images.
            coreset: Share of the images to keep, chosen by greedy k-center on the keys.
            seed: Seed of the choices among features and images.

        Returns:
            Indices of the images that were kept, shape ``(len(bank),)``.

        Raises:
            ValueError: If there is no image.
        """
        if not sum(len(batch) for batch in templates):
            msg = "the bank is empty: there was no normal training image; give the data module some"
            raise ValueError(msg)
        fields = [torch.cat(field) for field in zip(*templates, strict=True)]
        chosen = torch.arange(len(fields[0]), device=fields[0].device)
        if coreset < 1.0 and len(fields[0]) > 1:
            chosen = greedy_k_center(fields[0].float(), max(1, int(coreset * len(fields[0])))).sort().values
            fields = [field[chosen] for field in fields]
        for name, field in zip(Template._fields, fields, strict=True):
            setattr(self, name, field.to(self._dtype(name)).contiguous())
        generator = torch.Generator().manual_seed(seed)
        self.priority = torch.rand(len(self), generator=generator).to(self.key.device)
        self._choose_patches(generator)
        return chosen

    def _choose_patches(self, generator: torch.Generator) -> None:
        """Keep a coreset of the coarse features, by greedy k-center as in PatchCore."""
        positions = self.coarse.flatten(2).transpose(1, 2)
        owners = torch.arange(len(self), device=positions.device).repeat_interleave(positions.shape[1])
        chosen = torch.randperm(len(owners), generator=generator)[:CANDIDATES].to(positions.device)
        candidates = positions.flatten(0, 1)[chosen]
        candidate_owners = owners[chosen]
        if len(candidates) > PATCHES:
            chosen = chosen[greedy_k_center(candidates.float(), PATCHES)]
        self.patches = positions.flatten(0, 1)[chosen].contiguous()
        self.owners = owners[chosen]
        self.substitutes = self._find_substitutes(candidates.float(), candidate_owners).to(self.patches)

    def _find_substitutes(self, candidates: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        """What the coreset would have taken without an image, in the place of each of its ``patches``.

        For each image the greedy choice goes on among the features of all others, from the patches of all others.

        Args:
            candidates: What to choose from, shape ``(Q, C')``.
            owners: Image that each of them is of, shape ``(Q,)``.

        Returns:
            Shape ``(P, C')``.
        """
        substitutes = self.patches.float().clone()
        nearest, other, owner = self._nearest_of_two_images(candidates)
        for image in self.owners.unique() if len(self) > 1 else ():
            distances = torch.where(owner == image, other, nearest)
            distances = torch.where(owners == image, -torch.ones_like(distances), distances)
            # The farthest are few, and only they can be chosen.
            distances, farthest = distances.topk(min(FARTHEST, int((owners != image).sum())))
            own = (self.owners == image).nonzero().flatten()
            points = candidates[farthest]
            substitutes[own] = points[greedy_k_center(points, len(own), distances)]
        return substitutes

    def _nearest_of_two_images(self, candidates: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Squared distance to the nearest patch, to the nearest of all other images, and the first one's image."""
        patches = self.patches.float()
        results = []
        for part in candidates.split(PART):
            distances = patches.square().sum(dim=1) - 2 * part @ patches.T + part.square().sum(dim=1, keepdim=True)
            nearest, index = distances.min(dim=1)
            owner = self.owners[index]
            other = distances.masked_fill(self.owners == owner.unsqueeze(1), torch.inf).amin(dim=1)
            results.append((nearest, other, owner))
        return tuple(torch.cat(result) for result in zip(*results, strict=True))

    def nearest_patch(self, features: torch.Tensor, exclude: torch.Tensor | None = None) -> torch.Tensor:
        """Distance of each feature to the nearest of ``patches``.

        Args:
            features: Coarse features, shape ``(N, C', h, w)``.
            exclude: Index of an image in whose patches' place substitutes count, shape ``(N,)``: the query itself.

        Returns:
            Shape ``(N, h, w)``.
        """
        patches = self.patches.float()
        if exclude is not None:
            patches = torch.where((exclude.unsqueeze(1) == self.owners).unsqueeze(2), self.substitutes, patches)
        squared = patches.square().sum(dim=-1).unsqueeze(-2) - 2 * features.flatten(2).transpose(1, 2) @ patches.mT
        nearest = squared.amin(dim=2).unflatten(1, features.shape[2:])
        return (nearest + features.square().sum(dim=1)).clamp_min(0).sqrt()

    def place_distances(self, features: torch.Tensor, exclude: torch.Tensor | None = None) -> torch.Tensor:
        """Squared distance of each feature to that in the same place of each normal.

        Of more than ``COMPARED`` normals as many are taken, at equal distances.

        Args:
            features: Coarse features, shape ``(N, C', h, w)``.
            exclude: Index of an image that counts as far away, shape ``(N,)``: the query itself.

        Returns:
            Shape ``(N, Z, h, w)``.
        """
        step = -(-len(self) // COMPARED)
        normals = self.coarse[::step].float()
        # A matrix product would have to reorder all the normals.
        squared = (features.unsqueeze(1) - normals).square().sum(dim=2)
        if exclude is not None:
            owners = torch.arange(0, len(self), step, device=exclude.device)
            squared = squared.masked_fill((exclude.unsqueeze(1) == owners)[..., None, None], torch.inf)
        return squared

    def _dtype(self, name: str) -> torch.dtype:
        if name == "valid":
            return torch.bool
        if name == "found":
            return torch.long
        if name in ("words", "picture"):
            return torch.uint8
        return torch.half if self.half_precision and name in HALVED else torch.float

    def search(self, key: torch.Tensor, number: int, exclude: torch.Tensor | None = None) -> torch.Tensor:
        """Nearest normal images by Euclidean distance of the flattened features (equation 2).

        Args:
            key: Keys of the queries, shape ``(N, D)``.
            number: How many; not more than there are.
            exclude: Index of an image that must not be found, shape ``(N,)``: the query itself.

        Returns:
            Indices, the nearest first, shape ``(N, number)``.
        """
        keys = self.key.float()
        distances = keys.square().sum(dim=1) - 2 * key @ keys.T
        if exclude is not None:
            distances = distances.scatter(1, exclude.unsqueeze(1), torch.inf)
        return distances.topk(number, dim=1, largest=False).indices
