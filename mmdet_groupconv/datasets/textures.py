"""Patterns and colours that backgrounds and objects are painted with."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np


def texture(
    rng: np.random.Generator, height: int, width: int, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Float32 (H, W, 3): a random pattern that runs from one BGR colour to the other."""
    patterns: tuple[Callable[..., np.ndarray], ...] = (noise, _stripes, _checks, gradient)
    pattern = patterns[rng.integers(len(patterns))](rng, height, width)
    return first + pattern[:, :, None] * (second - first)


def nearby_colour(
    rng: np.random.Generator, colour: np.ndarray, nearest: float, farthest: float
) -> np.ndarray:
    """A BGR colour at a random distance in [nearest, farthest] before clipping to 0..255."""
    direction = rng.standard_normal(3)
    step = direction / np.linalg.norm(direction) * rng.uniform(nearest, farthest)
    return np.clip(colour + step, 0, 255).astype(np.float32)


def noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth noise of four octaves, float32 (H, W) in 0..1."""
    first = int(rng.integers(2, 6))
    total = np.zeros((height, width), np.float32)
    for octave in range(4):
        cells = first * 2**octave
        grid = rng.random((cells, cells), np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) / 2**octave
    total -= total.min()
    return total / total.max()


def _stripes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Parallel soft or hard stripes, float32 (H, W) in 0..1."""
    return _sharpen(rng, _wave(height, width, rng.uniform(0, np.pi), *_pitch(rng, height, width)))


def _checks(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A soft or hard rotated checkerboard, float32 (H, W) in 0..1."""
    angle = rng.uniform(0, np.pi)
    across = _wave(height, width, angle, *_pitch(rng, height, width))
    along = _wave(height, width, angle + np.pi / 2, *_pitch(rng, height, width))
    return _sharpen(rng, across * along)


def gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A linear ramp in a random direction, float32 (H, W) from 0 to 1."""
    ramp = _distance_along(height, width, rng.uniform(0, 2 * np.pi))
    ramp -= ramp.min()
    return ramp / ramp.max()


def _pitch(rng: np.random.Generator, height: int, width: int) -> tuple[float, float]:
    """Random period in pixels, relative to the area's size, and phase in radians."""
    return rng.uniform(0.07, 0.30) * max(height, width), rng.uniform(0, 2 * np.pi)


def _wave(height: int, width: int, angle: float, period: float, phase: float) -> np.ndarray:
    return np.sin(_distance_along(height, width, angle) * np.float32(2 * np.pi / period) + phase)


def _distance_along(height: int, width: int, angle: float) -> np.ndarray:
    """Float32 (H, W): each pixel's position along a direction, in pixels."""
    xs = np.arange(width, dtype=np.float32) * np.float32(np.cos(angle))
    ys = np.arange(height, dtype=np.float32) * np.float32(np.sin(angle))
    return ys[:, None] + xs


def _sharpen(rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    """Map a wave in -1..1 to float32 in 0..1, with soft or hard edges."""
    gain = np.float32(rng.choice([0.5, 3.0]))
    return np.clip(0.5 + gain * wave, 0, 1).astype(np.float32)
