# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

r"""Render one part at any angle and place, good and with small structural defects, to folders of parts with masks.

    python benchmarks/turning_part.py --out parts --seed 0
    python benchmarks/structural.py --photographs parts --image-size 384 --models samlad \
      --efficientnet efficientnet_lite0.safetensors --output turning.jsonl
    python benchmarks/structural.py --photographs parts --image-size 384 --models patchcore --name "patchcore, 0.4%" \
      --options '{"coreset_sampling_ratio": 0.004}' --efficientnet efficientnet_lite0.safetensors --output turning.jsonl

A screw lies on a plain ground: head with a slot, shank, thread and tip. The bad ones have a scratch, a worn thread, a
nick, a broken tip, a dent in the head or a burr; the masks say where.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from anomalib_logic.data._scenes.canvas import Canvas, Shape
from anomalib_logic.data._scenes.shapes import blob, box, move

DEFECTS = ("scratch", "worn_thread", "nick", "broken_tip", "dented_head", "burr")
STEEL = np.array((0.55, 0.56, 0.58))
DARK = np.array((0.16, 0.16, 0.17))
PITCH = 0.024
TEETH = 15
LENGTH = 0.62  # of the part; all lengths are shares of the image's side
SHANK = 0.058  # width
THREAD = 0.076  # width at the crests
LEFT, RIGHT = -LENGTH / 2, LENGTH / 2  # ends of the head and of the tip
START = RIGHT - 0.05 - TEETH * PITCH  # of the thread
_PROFILE = [(LEFT, 0.05), (LEFT + 0.014, 0.068), (LEFT + 0.075, 0.068), (LEFT + 0.115, 0.029)]
HEAD = np.array(_PROFILE + [(x, -y) for x, y in reversed(_PROFILE)])


@dataclass(frozen=True)
class Flaw:
    """What is wrong with the part's own outline.

    Attributes:
        defect: One of ``DEFECTS``, or ``None``.
        tip: Where the part ends.
        tooth, teeth: First tooth of a worn thread, and how many.
        side: Which side of the thread is worn, 1 or -1.
    """

    defect: str | None
    tip: float
    tooth: int
    teeth: int
    side: int

    @classmethod
    def draw(cls, defect: str | None, rng: np.random.Generator) -> "Flaw":
        """Draw one at random."""
        tip = RIGHT - (rng.uniform(0.018, 0.03) if defect == "broken_tip" else 0)
        return cls(defect, tip, int(rng.integers(2, TEETH - 3)), int(rng.integers(2, 4)), int(rng.choice((-1, 1))))

    def wears(self, side: int, tooth: int) -> bool:
        """Whether a tooth is worn."""
        return self.defect == "worn_thread" and side == self.side and 0 <= tooth - self.tooth < self.teeth


class Screw:
    """One screw; along x, its middle at 0, before it is turned and moved."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.angle = rng.uniform(0, 2 * math.pi)
        self.place = 0.5 + rng.uniform(-0.09, 0.09, 2)
        self.roll = rng.uniform(0, PITCH)  # a screw that is rolled shows its thread shifted
        self.slot = rng.uniform(-0.3, 0.3)
        self.tint = rng.normal(1, 0.03)
        self.ground = np.array((0.80, 0.80, 0.79)) * rng.uniform(0.93, 1.05)

    def at(self, outline: np.ndarray) -> np.ndarray:
        """Turn and move an outline of the part."""
        return move(outline, *self.place, self.angle)

    def draw(self, canvas: Canvas, defect: str | None, rng: np.random.Generator) -> None:
        """Draw the part with or without a defect, and mark the defect."""
        canvas.ground(self.ground, fine=0.015, rough=0.01)
        steel = STEEL * self.tint
        flaw = Flaw.draw(defect, rng)
        head, thread, tip = self.at(HEAD), self.at(self._thread(flaw)), self.at(self._tip(flaw.tip))
        shank = self.at(box((LEFT + 0.1 + START) / 2, 0, START - LEFT - 0.08, SHANK))
        parts = {name: canvas.shape(one) for name, one in (("head", head), ("shank", shank), ("thread", thread))}
        whole = canvas.shape(head, shank, thread, tip)
        canvas.paint(whole, steel, rim=0.03, shadow=0.35, gloss=0.45, grain=0.02)
        for k in range(TEETH + 1):
            x = START + k * PITCH + self.roll / 2
            groove = canvas.line(self.at(np.array([(x - 0.008, -0.030), (x + 0.008, 0.030)])), 0.007)
            canvas.paint(canvas.within(groove, parts["thread"]), DARK, opacity=0.6)
        slot = self.at(box(LEFT + 0.045, self.slot * 0.05, 0.045, 0.018))
        canvas.paint(canvas.within(canvas.shape(slot), parts["head"]), steel * 0.55, rim=0.008, hollow=True)
        if defect:
            canvas.mark(self._harm(canvas, flaw, parts, rng))

    @staticmethod
    def _tip(end: float) -> np.ndarray:
        base, half = RIGHT - 0.06, THREAD / 2 - 0.006
        width = half * (RIGHT - end) / 0.06
        return np.array([(base, half), (end, width), (end, -width), (base, -half)])

    @staticmethod
    def _thread(flaw: Flaw) -> np.ndarray:
        sides = []
        for side in (1, -1):
            points = []
            for k in range(TEETH):
                x = START + k * PITCH + (0.5 * PITCH if side < 0 else 0)
                crest = SHANK / 2 + 0.001 if flaw.wears(side, k) else THREAD / 2
                points += [(x, SHANK / 2), (x + PITCH / 2, crest)]
            sides.append([(x, side * y) for x, y in points])
        return np.array(sides[0] + sides[1][::-1])

    def _harm(self, canvas: Canvas, flaw: Flaw, parts: dict[str, Shape], rng: np.random.Generator) -> Shape:
        """Paint the defect, if the outline does not show it; returns where it is."""
        if flaw.defect == "worn_thread":
            x, width = START + flaw.tooth * PITCH, (flaw.teeth + 0.5) * PITCH
            return canvas.shape(self.at(box(x + width / 2, flaw.side * 0.035, width, 0.014)))
        if flaw.defect == "broken_tip":
            return canvas.shape(self.at(box((RIGHT + flaw.tip) / 2, 0, RIGHT - flaw.tip, 0.03)))
        if flaw.defect == "scratch":
            return self._scratch(canvas, parts, rng)
        if flaw.defect == "dented_head":
            spot = self.at(blob(LEFT + rng.uniform(0.03, 0.07), rng.choice((-1, 1)) * 0.055, 0.013, rng))
            dent = canvas.within(canvas.shape(spot), parts["head"])
            canvas.paint(dent, STEEL * self.tint * 0.6, rim=0.01, gloss=0.5, hollow=True)
            return dent
        side, x = rng.choice((-1, 1)), rng.uniform(LEFT + 0.13, START - 0.03)
        edge = side * SHANK / 2
        if flaw.defect == "burr":
            outline = np.array([(x, edge), (x + 0.012, edge + side * rng.uniform(0.016, 0.024)), (x + 0.022, edge)])
            burr = canvas.shape(self.at(outline))
            canvas.paint(burr, STEEL * self.tint * 1.1, rim=0.006, shadow=0.3)
            return burr
        nick = canvas.within(canvas.shape(self.at(blob(x, edge, rng.uniform(0.010, 0.014), rng))), parts["shank"])
        canvas.paint(nick, self.ground * 0.8, opacity=0.95)
        return nick

    def _scratch(self, canvas: Canvas, parts: dict[str, Shape], rng: np.random.Generator) -> Shape:
        middle = {"head": LEFT + 0.06, "shank": -0.1, "thread": 0.12}
        name = str(rng.choice(list(middle)))
        length, turn = rng.uniform(0.035, 0.06), rng.uniform(-0.6, 0.6)
        path = np.array([(-length / 2, 0), (0, rng.normal(0, 0.004)), (length / 2, 0)])
        path = self.at(move(path, middle[name] + rng.normal(0, 0.02), rng.normal(0, 0.01), turn))
        line = canvas.within(canvas.line(path, 0.006), parts[name])
        canvas.paint(line, (0.92, 0.92, 0.9) if rng.uniform() < 0.5 else DARK, opacity=0.8)
        return canvas.within(canvas.line(path, 0.01), parts[name])


def render(defect: str | None, size: int, stream: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray | None]:
    """Render an image and its mask; no mask if the part is good."""
    layout, look, chance = (np.random.default_rng([*stream, part]) for part in range(3))
    canvas = Canvas(size, look)
    Screw(layout).draw(canvas, defect, chance)
    return canvas.finish(), canvas.channels[0] if canvas.channels else None


def main() -> None:
    """Write ``screw/good``, ``screw/bad`` and ``screw/masks``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--good", type=int, default=150)
    parser.add_argument("--bad", type=int, default=60)
    args = parser.parse_args()
    folders = {name: args.out / "screw" / name for name in ("good", "bad", "masks")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for index in range(args.good):
        image, _ = render(None, args.size, (args.seed, 0, index))
        cv2.imwrite(str(folders["good"] / f"{index:03d}.png"), image[..., ::-1])
    for index in range(args.bad):
        defect = DEFECTS[index % len(DEFECTS)]
        image, mask = render(defect, args.size, (args.seed, 1, index))
        name = f"{index:03d}_{defect}.png"
        cv2.imwrite(str(folders["bad"] / name), image[..., ::-1])
        cv2.imwrite(str(folders["masks"] / name), mask.astype(np.uint8) * 255)


if __name__ == "__main__":
    main()
