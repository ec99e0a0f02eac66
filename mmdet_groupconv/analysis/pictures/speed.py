"""Speed against accuracy."""

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from .style import CYCLE, LIGHT, MEDIUM, SMALL, new_figure, tidy

COSTS = {
    'ms': 'latency [ms]',
    'macs': 'MACs',
    'mac_ratio_detector': 'MAC ratio of the detector',
    'mac_ratio': 'MAC ratio of the backbone',
}
ACCURACIES = ['coco/bbox_mAP', 'mAP', 'accuracy/top1']
_PLACES = [
    (5, 0, 'left', 'center'), (-5, 0, 'right', 'center'), (0, 5, 'center', 'bottom'),
    (0, -5, 'center', 'top'), (5, 6, 'left', 'bottom'), (5, -6, 'left', 'top'),
    (-5, 6, 'right', 'bottom'), (-5, -6, 'right', 'top'), (0, 14, 'center', 'bottom'),
    (0, -14, 'center', 'top'), (12, 14, 'left', 'bottom'), (-12, -14, 'right', 'top'),
]  # fmt: skip


def plot_speed_accuracy(
    points: list[dict], x: str = 'latency [ms]', y: str = 'mAP',
    title: str = 'Speed against accuracy',
) -> Figure:  # fmt: skip
    """Up and left is better. points: dicts of ``name``, ``x``, ``y`` and, optional, ``group``.

    Points of one group share a colour.
    """
    figure = new_figure(6.5, 4.6, title)
    axes = figure.subplots()
    groups = list(dict.fromkeys(point.get('group', point['name']) for point in points))
    for point in points:
        colour = CYCLE[groups.index(point.get('group', point['name'])) % len(CYCLE)]
        axes.plot(point['x'], point['y'], 'o', color=colour, markersize=7, markeredgecolor='white')
    axes.grid(color=LIGHT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.15)
    tidy(axes, x=x, y=y)
    figure.canvas.draw()  # places are known only now
    figure.set_layout_engine('none')
    taken = [_around(axes, point) for point in points]
    size = MEDIUM if len(points) <= 12 else SMALL
    for point in points:
        taken.append(_place(axes, point, taken, size))
    return figure


def read_points(files: list[str]) -> tuple[list[dict], str, str]:
    """Points from JSON files, and what their axes are called.

    A file holds an object of metrics, or a list of them, with an accuracy (``coco/bbox_mAP``,
    ``mAP``, ``accuracy/top1``), a cost (``ms``, ``macs``, ``mac_ratio_detector``, ``mac_ratio``)
    and, optional, ``name`` (by default the file's) and ``group``; what ``tools/test.py`` leaves in
    the work dir will do. The first of each that all objects have is drawn.

    Raises ValueError that names the file for other content, and where none is in all objects.
    """
    points = []
    for file in files:
        try:
            content = json.loads(Path(file).read_text())
        except ValueError as error:
            raise ValueError(f'results {file}: no JSON ({error})') from error
        objects = content if isinstance(content, list) else [content]
        if not objects or not all(isinstance(item, dict) for item in objects):
            raise ValueError(f'results {file}: expected an object of metrics or a list of them')
        points += [dict(dict(name=Path(file).stem), **item) for item in objects]
    x, y = _common(points, list(COSTS)), _common(points, ACCURACIES)
    drawn = [dict(x=float(p[x]), y=float(p[y]), **_only(p, 'name', 'group')) for p in points]
    return drawn, COSTS[x], y.removeprefix('coco/bbox_')


def _common(points: list[dict], keys: list[str]) -> str:
    for key in keys:
        if all(isinstance(point.get(key), int | float) for point in points):
            return key
    raise ValueError(f'results: expected one of {", ".join(keys)} in all of them')


def _only(point: dict, *keys: str) -> dict:
    return {key: point[key] for key in keys if key in point}


def _around(axes: Axes, point: dict, pixels: float = 7) -> Bbox:
    x, y = axes.transData.transform((point['x'], point['y']))
    return Bbox.from_extents(x - pixels, y - pixels, x + pixels, y + pixels)


def _place(axes: Axes, point: dict, taken: list[Bbox], size: float) -> Bbox:
    """Write a point's name where nothing else is, or else to its right."""
    renderer = axes.figure.canvas.get_renderer()
    free = Bbox([axes.bbox.p0, axes.figure.bbox.p1])  # of ticks
    for dx, dy, ha, va in [*_PLACES, _PLACES[0]]:
        text = axes.annotate(
            point['name'], (point['x'], point['y']), (dx, dy), textcoords='offset points',
            ha=ha, va=va, fontsize=size,
        )  # fmt: skip
        box = text.get_window_extent(renderer)
        inside = free.contains(box.x0, box.y0) and free.contains(box.x1, box.y1)
        if inside and not any(box.overlaps(other) for other in taken):
            return box
        text.remove()
    axes.annotate(
        point['name'], (point['x'], point['y']), _PLACES[0][:2], textcoords='offset points',
        va='center', fontsize=size,
    )  # fmt: skip
    return box
