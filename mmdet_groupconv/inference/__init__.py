"""Fast inference: networks that do only the gated work."""

from .compact import compact

__all__ = ['compact']
