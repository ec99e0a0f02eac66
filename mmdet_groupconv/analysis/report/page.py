"""The page itself: one HTML file that needs no other and no network."""

import base64
import io

import cv2
import jinja2
import mmcv
import numpy as np
from matplotlib.figure import Figure

from ... import __version__
from ..pictures import plot_runs, plot_speed_accuracy
from ..pictures.runs import ACCURACIES
from .config_difference import config_difference
from .examination import Examination

FORMS = 'dense eager', 'eager', 'compact'
PICTURES = {
    'density': 'How much each layer and head reads',
    'history': 'The same over training',
    'connectivity': 'Which channels each group reads',
    'variation': 'Always, sometimes and never read',
    'images': 'Images that read most and least',
    'group_sizes': 'Sizes of the groups',
    'clusters': 'Clusters of filters',
    'macs': 'MACs by layer and part',
}


def render_page(runs: list[Examination]) -> str:
    """HTML about one or several runs, side by side."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, '.'),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    accuracies = [name for name in ACCURACIES if any(name in run.metrics for run in runs)]
    classes = dict.fromkeys(name for run in runs for name in run.classes)
    return environment.get_template('page.html').render(
        runs=runs,
        version=__version__,
        accuracies=accuracies,
        metrics=dict.fromkeys(name for run in runs for name in run.metrics),
        classes=classes,
        forms=FORMS,
        pictures=PICTURES,
        shown={name for run in runs for name in run.figures},
        difference=config_difference([run.cfg for run in runs]) if len(runs) > 1 else {},
        curves=plot_runs([run.log for run in runs]),
        trade_off=_trade_off(runs, accuracies),
        svg=svg,
        jpeg=jpeg,
    )


def _trade_off(runs: list[Examination], accuracies: list[str]) -> Figure | None:
    if len(runs) < 2 or not accuracies:
        return None
    points = [
        dict(
            name=f'{run.name}, {form}', x=run.milliseconds[form], y=run.metrics[accuracies[0]],
            group=form,
        )
        for run in runs
        for form in FORMS[1:]
    ]  # fmt: skip
    return plot_speed_accuracy(points, 'one image [ms]', accuracies[0])


def svg(figure: Figure) -> str:
    """A figure as the address of a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg')
    return _address(buffer.getvalue(), 'svg+xml')


def jpeg(image: np.ndarray) -> str:
    """``[H, W, 3]`` uint8, RGB, as the address of a picture."""
    _, content = cv2.imencode('.jpg', mmcv.rgb2bgr(image))
    return _address(content.tobytes(), 'jpeg')


def _address(content: bytes, kind: str) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'
