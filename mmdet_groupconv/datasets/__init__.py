"""Data sets this package adds to MMDetection."""

from .scenes import ScenesDataset

__all__ = ['ScenesDataset']
