"""Fast inference: networks that do only the gated work."""

from .compact import compact
from .explain import Layer, explain

__all__ = ['Layer', 'compact', 'explain']
