# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

"""Changes of normal images that scores should notice (ours, after CutPaste, https://arxiv.org/abs/2104.04015).

Images have the shape ``(3, H, W)``; black is 0, white is 1.
"""

from collections.abc import Callable, Mapping

import torch

from .median import lower_median

DRAWS = 16  # windows that are tried: the one that changes the image most is taken, not one of plain background
FILLED = (0.1, 0.25)  # side of windows that are filled, as a share of the image
EXCHANGED = (0.25, 0.5)  # side of windows of another image
SPOT = (0.03, 0.1)  # height and width of spots
OPACITY = 0.7  # of spots
BORDER = 3  # pixels over which a window passes into its surroundings


def spot(image: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Paint a spot of a random colour anywhere: a structural defect."""
    del other
    height, width = _draw(SPOT, image.shape[1], generator), _draw(SPOT, image.shape[2], generator)
    colour = torch.rand(len(image), 1, 1, generator=generator).to(image)
    place = _place(image, (height, width), generator)
    return _paste(image, colour, place, max(2, min(height, width) // 3), OPACITY)


def fill_window(image: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Fill a window with the colour of its border (the median): a part is missing."""
    del other

    def colour_of_border(place: tuple[slice, ...]) -> torch.Tensor:
        window = image[place]
        border = torch.cat([window[:, 0], window[:, -1], window[:, :, 0], window[:, :, -1]], dim=1)
        return lower_median(border.T).view(-1, 1, 1).expand_as(window)

    return _most_changed(image, colour_of_border, FILLED, generator)


def exchange_window(image: torch.Tensor, other: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Take a window from the same place of another normal image: parts of the two that do not belong together."""
    return _most_changed(image, lambda place: other[place], EXCHANGED, generator)


CHANGES: Mapping[str, Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]] = {
    "a spot": spot,
    "a filled window": fill_window,
    "an exchanged window": exchange_window,
}


def _most_changed(
    image: torch.Tensor,
    window_for: Callable[[tuple[slice, ...]], torch.Tensor],
    share: tuple[float, float],
    generator: torch.Generator,
) -> torch.Tensor:
    """Replace windows of the image, one at a time; of several draws the one that changes most."""
    results = []
    for _ in range(DRAWS):
        side = _draw(share, min(image.shape[1:]), generator)
        place = _place(image, (side, side), generator)
        results.append(_paste(image, window_for(place), place, BORDER))
    return max(results, key=lambda result: float((result - image).square().sum()))


def _draw(share: tuple[float, float], length: int, generator: torch.Generator) -> int:
    least, most = (max(1, round(limit * length)) for limit in share)
    return int(torch.randint(least, most + 1, (), generator=generator))


def _place(image: torch.Tensor, size: tuple[int, int], generator: torch.Generator) -> tuple[slice, ...]:
    """Draw a window of a size."""
    corner = [
        int(torch.randint(length - side + 1, (), generator=generator))
        for length, side in zip(image.shape[1:], size, strict=True)
    ]
    return (slice(None), *(slice(start, start + side) for start, side in zip(corner, size, strict=True)))


def _paste(
    image: torch.Tensor, window: torch.Tensor, place: tuple[slice, ...], border: int, opacity: float = 1.0
) -> torch.Tensor:
    """Blend a window into an image, weaker towards its borders."""
    result, old = image.clone(), image[place]
    ramps = []
    for length in old.shape[1:]:
        steps = torch.arange(1, length + 1)
        ramps.append(torch.minimum(steps, steps.flip(0)).clamp_max(border) / border)
    weight = (opacity * ramps[0].unsqueeze(1) * ramps[1]).to(image)
    result[place] = weight * window + (1 - weight) * old
    return result
