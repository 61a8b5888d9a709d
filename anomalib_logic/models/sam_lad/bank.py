# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""The template features bank: everything about the normal images, computed once (paper section 3.2 and 3.3)."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from anomalib.models.components import DynamicBufferMixin

BLOCK = 64_000_000  # bytes of objects' features that are gathered before they are moved together
FAR_POINTS = 500  # of which the next ones of a coreset are chosen
KEYS = 256  # of images that are compared with a query at a time, in memory that stays in the cache
PART = 4096  # points whose distances are computed at a time, as well
HELD_OUT = 200  # most normal images that are compared with all others

Template = dict[str, torch.Tensor]  # what is kept of images, normal or query: fields by name, the images first


class Bank(DynamicBufferMixin):
    """Templates of normal images, as buffers that travel in checkpoints and exported graphs.

    Each field is a buffer of its name. ``priority`` is a random number for each image, shape ``(Z,)``. Fields of
    objects have no rows for empty slots: ``rows``, shape ``(Z, K)``, has the row of each image's slots.

    Args:
        images: Types of fields with one row an image, Z in all; ``valid`` (which slots hold an object) must be one.
        objects: Types of fields with one row an object.
        half: Keep numbers of type ``torch.half`` so; otherwise in single precision.
        sampled: Names of fields of images that are kept of ``held_out`` only, or of the only image.
    """

    def __init__(
        self,
        images: Mapping[str, torch.dtype],
        objects: Mapping[str, torch.dtype],
        half: bool = True,
        sampled: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.names = list(images)
        self.sampled = frozenset(sampled)
        self.object_names = list(objects)
        for name, kind in {**images, **objects}.items():
            kept = torch.float if kind == torch.half and not half else kind
            self.register_buffer(name, torch.empty(0, dtype=kept))
        self.register_buffer("rows", torch.empty(0, dtype=torch.long))
        self.register_buffer("priority", torch.empty(0))

    def __len__(self) -> int:
        """Number of images."""
        return self.valid.shape[0]

    @property
    def bytes_per_image(self) -> float:
        """Bytes that one image takes, in the mean."""
        return sum(getattr(self, name).nbytes for name in (*self.names, *self.object_names)) / max(1, len(self))

    @property
    def held_out(self) -> torch.Tensor:
        """Indices of the images that are compared with all others, at equal distances; none if there is one."""
        number = len(self)
        return _sample(number if number > 1 else 0).to(self.valid.device)

    def images_of(self, name: str) -> torch.Tensor:
        """Indices of the images that a field of images is kept of, in the order of its rows."""
        number = len(self)
        return (_sample(number) if name in self.sampled else torch.arange(number)).to(self.valid.device)

    def get(self, name: str, index: torch.Tensor) -> torch.Tensor:
        """One field of images in single precision.

        Args:
            name: Name of the field.
            index: Indices of images, shape ``(...)``; of a field that is sampled, of those that it is kept of.

        Returns:
            Shape ``(..., *)``; of a field of objects ``(..., K, *)`` with zeros in empty slots.

        Raises:
            ValueError: If a sampled field is not kept of an image.
        """
        if name in self.object_names:
            slots = torch.arange(self.rows.shape[1], device=index.device)
            return self.objects(name, index, slots.expand(*index.shape, -1))
        if name in self.sampled:
            kept = self.images_of(name)
            if not torch.isin(index, kept).all():
                msg = f"the bank keeps {name!r} of {len(kept)} of {len(self)} images only"
                raise ValueError(msg)
            index = torch.searchsorted(kept, index)
        return _as_float(getattr(self, name)[index])

    def objects(self, name: str, images: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """One field of single objects, by image and slot.

        Args:
            name: Name of the field.
            images: Indices of images, shape ``(...)``.
            slots: Slots of objects in them, shape ``(..., K)``.

        Returns:
            Shape ``(..., K, *)``, in single precision; zeros for empty slots.
        """
        place = images.unsqueeze(-1) * self.rows.shape[1] + slots
        values = _as_float(getattr(self, name)[self.rows.flatten()[place]])
        valid = self.valid.flatten()[place]
        return values * valid.view(*valid.shape, *[1] * (values.ndim - valid.ndim))

    def template(self, index: torch.Tensor) -> Template:
        """Templates of images of ``held_out``, in single precision."""
        return {name: self.get(name, index) for name in (*self.names, *self.object_names)}

    def clear(self) -> None:
        """Forget all images."""
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.new_empty(0))

    @contextmanager
    def cleared_on_failure(self) -> Iterator[None]:
        """Forget all images if what follows is interrupted."""
        try:
            yield
        except BaseException:
            self.clear()
            raise

    @torch.no_grad()
    def fill(self, templates: Iterable[Template], number: int, seed: int = 0) -> None:
        """Replace the content, image by image: what was there and the templates are never all in memory.

        Args:
            templates: Normal images, a few at a time.
            number: How many they are in all.
            seed: Seed of ``priority``.

        Raises:
            ValueError: If there is no image, or another number of them.
        """
        kinds = {name: buffer.dtype for name, buffer in self.named_buffers()}
        self.clear()  # an interrupted fill leaves an empty bank
        fields: dict[str, torch.Tensor] = {}
        blocks: dict[str, list[torch.Tensor]] = {name: [] for name in self.object_names}
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in self.object_names}
        sample, filled = _sample(number), 0
        for template in templates:
            valid = template["valid"]
            end = filled + len(valid)
            if end > number:
                _refuse(number)
            first = int((sample < filled).sum())
            chosen = (sample[first : int((sample < end).sum())] - filled).to(valid.device)
            for name in self.names:
                sampled = name in self.sampled
                if not filled:
                    shape = (len(sample) if sampled else number, *template[name].shape[1:])
                    fields[name] = torch.empty(shape, dtype=kinds[name], device=valid.device)
                part, row = (template[name][chosen], first) if sampled else (template[name], filled)
                fields[name][row : row + len(part)] = part
            for name in self.object_names:
                parts[name].append(template[name][valid].to(kinds[name]))
                if sum(part.nbytes for part in parts[name]) > BLOCK:
                    blocks[name].append(torch.cat(parts[name]))
                    parts[name].clear()
            filled = end
        if not filled:
            msg = "the bank is empty: there was no normal training image; give the data module some"
            raise ValueError(msg)
        if filled != number:
            _refuse(number)
        for name in self.object_names:
            fields[name] = _join([*blocks.pop(name), *parts.pop(name)])
        for name, field in fields.items():
            setattr(self, name, field)
        order = self.valid.flatten().long().cumsum(dim=0) - 1
        self.rows = order.clamp_min(0).view_as(self.valid)
        self.priority = torch.rand(number, generator=torch.Generator().manual_seed(seed)).to(self.valid.device)

    def search(self, key: torch.Tensor, number: int, exclude: torch.Tensor | None = None) -> torch.Tensor:
        """Nearest normal images by Euclidean distance of their keys (equation 2).

        Args:
            key: Keys of the queries, shape ``(N, D)``.
            number: How many; not more than there are.
            exclude: Index of an image that must not be found, shape ``(N,)``: the query itself.

        Returns:
            Indices, the nearest first, shape ``(N, number)``.
        """
        parts = []
        for part in self.key.split(KEYS):
            keys = part.float()
            parts.append(keys.square().sum(dim=1) - 2 * key @ keys.T)
        distances = torch.cat(parts, dim=1)
        if exclude is not None:
            distances = distances.scatter(1, exclude.unsqueeze(1), torch.inf)
        return distances.topk(number, dim=1, largest=False).indices


def at_equal_distances(number: int, most: int) -> torch.Tensor:
    """Indices at equal distances of so many images, ``most`` of them at most."""
    most = min(number, most)
    return torch.arange(most) * number // max(1, most)


def _sample(number: int) -> torch.Tensor:
    return at_equal_distances(number, HELD_OUT)


def _refuse(number: int) -> None:
    msg = f"the data module gave another number of normal images the second time ({number} before)"
    raise ValueError(msg)


def _as_float(values: torch.Tensor) -> torch.Tensor:
    return values.float() if values.is_floating_point() else values


def _join(blocks: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate, freeing each part as soon as it is copied; one row of zeros where there is none."""
    total = sum(len(block) for block in blocks)
    if not total:
        return blocks[0].new_zeros(1, *blocks[0].shape[1:])
    joined, start = blocks[0].new_empty(total, *blocks[0].shape[1:]), 0
    blocks.reverse()
    while blocks:
        block = blocks.pop()
        joined[start : start + len(block)] = block
        start += len(block)
    return joined


def greedy_k_center(points: torch.Tensor, number: int, distances: torch.Tensor | None = None) -> torch.Tensor:
    """Choose points of which each next one is the farthest from all before, as PatchCore's coreset.

    Distances only shrink, so the next ones are among the farthest points as long as one of these is farther than all
    others were. The distances of all points are then computed for all new ones at once. (Anomalib's ``KCenterGreedy``
    computes them for each, and makes a copy of all points each time.)

    Args:
        points: Shape ``(P, C)``.
        number: How many to choose.
        distances: Squared distances of the points to what was chosen before, shape ``(P,)``; by default nothing was,
            and the first point is chosen first.

    Returns:
        Their indices, shape ``(number,)``.
    """
    norms = points.square().sum(dim=1)
    new = torch.zeros(int(distances is None), dtype=torch.long, device=points.device)
    distances = torch.full_like(norms, torch.inf) if distances is None else distances
    chosen = new
    while len(chosen) < number:
        if len(new):
            distances = _nearer(distances, points, norms, new)
        far, block = distances.topk(min(FAR_POINTS, len(points)))
        new = block[_farthest(points[block], norms[block], far, number - len(chosen), far[-1].item())]
        chosen = torch.cat([chosen, new])
    return chosen


def _farthest(
    points: torch.Tensor, norms: torch.Tensor, distances: torch.Tensor, most: int, limit: float
) -> torch.Tensor:
    """Choose greedily while the farthest point is no nearer than ``limit``; at least one and at most ``most``."""
    chosen: list[torch.Tensor] = []
    while len(chosen) < most:
        distance, index = distances.max(dim=0)
        if chosen and distance.item() < limit:
            break
        chosen.append(index)
        # like _nearer for one point, without its parts: this runs for each point
        distances = torch.minimum(distances, norms + norms[index] - 2 * (points @ points[index]))
        distances[index] = -1.0
    return torch.stack(chosen)


def _nearer(distances: torch.Tensor, points: torch.Tensor, norms: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Squared distances when points were added; those of the new ones are -1."""
    result = distances.clone()  # what is kept between large tensors would fragment the memory
    for part, own, nearest in zip(points.split(PART), norms.split(PART), result.split(PART), strict=True):
        torch.minimum(nearest, own + (norms[new] - 2 * part @ points[new].T).amin(dim=1), out=nearest)
    result[new] = -1.0
    return result
