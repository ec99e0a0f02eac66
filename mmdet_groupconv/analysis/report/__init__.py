"""One page about a run, or several side by side."""

from .examination import Examination, examine
from .page import render_page

__all__ = ['Examination', 'examine', 'render_page']
