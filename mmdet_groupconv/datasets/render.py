"""Draws synthetic detection scenes: textured backgrounds with shapes of six classes.

Only the outline of an object tells its class: colours, textures, size and rotation are drawn
independently of it, and backgrounds and objects share the same texture patterns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .textures import gradient, nearby_colour, noise, texture

CLASSES = ('disc', 'square', 'triangle', 'ring', 'cross', 'star')
"""Class names; the position is the label."""

OBJECT_COUNT = (2, 7)
"""Fewest and most objects aimed at in a scene."""

OBJECT_EXTENT = (0.12, 0.50)
"""Longer box side of a whole object, as a fraction of the shorter image side."""

MIN_VISIBLE = 0.5
"""An object is not placed where it would leave less than this share of an earlier one visible."""

MIN_INSIDE = 0.75
"""Share of an object that lies inside the image at least."""

MIN_CONTRAST = 110.0
"""Euclidean BGR distance sought between an object and what lies beneath it."""

PLACING_TRIES = 12
COLOUR_TRIES = 8
PATCH_PAD = 2
SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class Scene:
    """One rendered scene with ``N`` objects in drawing order.

    Attributes:
        image: uint8 BGR, shape (H, W, 3).
        boxes: float32, shape (N, 4), xyxy in pixels: tight around the *visible* pixels, ``x2`` and
            ``y2`` being the outer edge of the last column and row.
        labels: int64, shape (N,), positions in :data:`CLASSES`.
        areas: int64, shape (N,), visible pixels.
        instance_map: int16, shape (H, W), the object seen at a pixel, -1 for the background.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    instance_map: np.ndarray


@dataclass(frozen=True)
class _Shape:
    """A shape in its own patch: contours in patch pixels (fixed point), alpha uint8 (h, w)."""

    label: int
    contours: list[np.ndarray]
    alpha: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        return self.alpha > 127


@dataclass(frozen=True)
class _Spot:
    """Where a patch goes: the same rectangle as slices of the image and of the patch."""

    image: tuple[slice, slice]
    patch: tuple[slice, slice]


def render_scene(rng: np.random.Generator, width: int, height: int) -> Scene:
    """Render one scene.

    Objects drawn later hide earlier ones, but none is hidden below :data:`MIN_VISIBLE` or cut by
    the border below :data:`MIN_INSIDE`: an object that finds no such place is left out, so every
    shape to be seen is annotated.

    Args:
        rng: source of all randomness; an equal state gives an equal scene.
        width: image width in pixels.
        height: image height in pixels.
    """
    side = min(width, height)
    canvas = _background(rng, height, width)
    _add_clutter(rng, canvas)
    instance_map = np.full((height, width), -1, np.int16)
    placed: list[_Shape] = []
    for _ in range(rng.integers(OBJECT_COUNT[0], OBJECT_COUNT[1] + 1)):
        shape = _random_shape(rng, side)
        spot = _find_spot(rng, shape, instance_map, placed)
        if spot is None:
            continue
        _paint(rng, canvas, shape, spot)
        instance_map[spot.image][shape.mask[spot.patch]] = len(placed)
        placed.append(shape)
    boxes, areas = _visible_extents(instance_map, len(placed))
    labels = np.array([shape.label for shape in placed], np.int64)
    return Scene(_finish(rng, canvas), boxes, labels, areas, instance_map)


def shape_contours(label: int) -> list[np.ndarray]:
    """Contours of a class before scaling and rotation.

    Args:
        label: position in :data:`CLASSES`.

    Returns:
        float64 arrays of shape (K, 2), xy around the origin; of two, the second bounds a hole.
    """
    return {
        'disc': lambda: [_regular(48)],
        'square': lambda: [_regular(4)],
        'triangle': lambda: [_regular(3)],
        'ring': lambda: [_regular(48), 0.56 * _regular(48)],
        'cross': lambda: [_cross(0.30)],
        'star': lambda: [_star(5, 0.42)],
    }[CLASSES[label]]()


def _regular(corners: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> np.ndarray:
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return _regular(2 * points) * radii[:, None]


def _cross(arm: float) -> np.ndarray:
    quarter = np.array([[1.0, -arm], [1.0, arm], [arm, arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _random_shape(rng: np.random.Generator, side: int) -> _Shape:
    """A shape of random class, size (log-uniform), slight aspect change and rotation."""
    label = int(rng.integers(len(CLASSES)))
    extent = side * np.exp(rng.uniform(*np.log(OBJECT_EXTENT)))
    aspect = np.array([1.0, rng.uniform(0.85, 1.0)])
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    contours = [c * aspect @ np.array([[cos, sin], [-sin, cos]]) for c in shape_contours(label)]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    scale = extent / (high - low).max()
    width, height = np.ceil((high - low) * scale).astype(int) + 2 * PATCH_PAD
    fixed = [
        np.round(((c - low) * scale + PATCH_PAD) * 2**SUBPIXEL_BITS).astype(np.int32)
        for c in contours
    ]
    alpha = np.zeros((height, width), np.uint8)
    cv2.fillPoly(alpha, fixed, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return _Shape(label, fixed, alpha)


def _find_spot(
    rng: np.random.Generator,
    shape: _Shape,
    instance_map: np.ndarray,
    placed: list[_Shape],
) -> _Spot | None:
    """A random place that hides no earlier object too much, or None after some tries."""
    mask = shape.mask
    patch_h, patch_w = mask.shape
    height, width = instance_map.shape
    whole = np.array([earlier.mask.sum() for earlier in placed])
    visible = np.bincount(instance_map.ravel() + 1, minlength=len(placed) + 1)[1:]
    for _ in range(PLACING_TRIES):
        left = int(rng.integers(-patch_w // 4, width - 3 * patch_w // 4))
        top = int(rng.integers(-patch_h // 4, height - 3 * patch_h // 4))
        spot = _clip(top, left, mask.shape, instance_map.shape)
        inside = mask[spot.patch]
        hidden = np.bincount(instance_map[spot.image][inside] + 1, minlength=len(placed) + 1)[1:]
        if inside.sum() >= MIN_INSIDE * mask.sum() and np.all(
            (hidden == 0) | (visible - hidden >= MIN_VISIBLE * whole)
        ):
            return spot
    return None


def _clip(top: int, left: int, patch: tuple[int, ...], image: tuple[int, ...]) -> _Spot:
    y1, y2 = max(top, 0), min(top + patch[0], image[0])
    x1, x2 = max(left, 0), min(left + patch[1], image[1])
    return _Spot(
        (slice(y1, y2), slice(x1, x2)),
        (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)),
    )


def _visible_extents(instance_map: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes float32 (N, 4) xyxy and areas int64 (N,) of the visible pixels of each object."""
    boxes = np.zeros((count, 4), np.float32)
    areas = np.zeros(count, np.int64)
    for index in range(count):
        mask = (instance_map == index).astype(np.uint8)
        x, y, w, h = cv2.boundingRect(mask)
        boxes[index] = x, y, x + w, y + h
        areas[index] = cv2.countNonZero(mask)
    return boxes, areas


def _paint(rng: np.random.Generator, canvas: np.ndarray, shape: _Shape, spot: _Spot) -> None:
    """Blend a shape with a fill, perhaps an outline, and shading into the canvas, in place."""
    beneath = canvas[spot.image]
    alpha = shape.alpha[spot.patch].astype(np.float32)[:, :, None] / 255
    under = (beneath * alpha).sum(axis=(0, 1)) / alpha.sum()
    colour = _contrasting_colour(rng, under)
    height, width = shape.alpha.shape
    fill = texture(rng, height, width, colour, nearby_colour(rng, colour, 0, 60))
    if rng.random() < 0.6:
        edge = colour * 0.35 if rng.random() < 0.6 else colour * 0.35 + 165
        thickness = max(2, round(rng.uniform(0.04, 0.10) * max(height, width)))
        cv2.polylines(fill, shape.contours, True, edge.tolist(), thickness, 8, SUBPIXEL_BITS)
    shade = 1 + rng.uniform(0, 0.2) * (2 * gradient(rng, height, width) - 1)
    fill *= shade[:, :, None]
    beneath += alpha * (fill[spot.patch] - beneath)


def _contrasting_colour(rng: np.random.Generator, under: np.ndarray) -> np.ndarray:
    """The first of some random BGR colours far enough from ``under``, else the farthest."""
    colours = rng.uniform(0, 255, (COLOUR_TRIES, 3)).astype(np.float32)
    distance = np.linalg.norm(colours - under, axis=1)
    return colours[np.argmax(np.minimum(distance, MIN_CONTRAST))]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Float32 BGR canvas (H, W, 3): a texture of two related colours under weak colour noise."""
    colour = rng.uniform(20, 235, 3).astype(np.float32)
    canvas = texture(rng, height, width, colour, nearby_colour(rng, colour, 15, 75))
    tint = rng.normal(0, 20, 3).astype(np.float32)
    canvas += (noise(rng, height, width) - 0.5)[:, :, None] * tint
    return canvas


def _add_clutter(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draw short lines and small irregular blobs, which are no objects, in place."""
    height, width = canvas.shape[:2]
    side = min(height, width)
    for _ in range(rng.integers(0, 13)):
        centre = rng.uniform((0, 0), (width, height))
        colour = nearby_colour(rng, canvas[int(centre[1]), int(centre[0])], 30, 110).tolist()
        if rng.random() < 0.6:
            angle = rng.uniform(0, np.pi)
            half = rng.uniform(0.02, 0.12) * side * np.array([np.cos(angle), np.sin(angle)])
            ends = np.round([centre - half, centre + half]).astype(int).tolist()
            cv2.line(canvas, ends[0], ends[1], colour, int(rng.integers(1, 3)))
        else:
            radii = rng.uniform(0.01, 0.035, (7, 1)) * side
            blob = np.round(centre + radii * _regular(7)).astype(np.int32)
            cv2.fillPoly(canvas, [blob], colour)


def _finish(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Mild blur and sensor noise; returns the uint8 image."""
    sigma = rng.uniform(0.2, 0.8) * min(canvas.shape[:2]) / 192
    blurred = cv2.GaussianBlur(canvas, (5, 5), sigma)
    blurred += rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(1, 7))
    return np.clip(blurred, 0, 255).astype(np.uint8)
