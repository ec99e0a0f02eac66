"""For mkdocs: speed against accuracy of the runs below ``results/``, drawn with the site."""

import io
import warnings
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

with warnings.catch_warnings():  # mkdocs prints those that PyTorch has for itself
    warnings.simplefilter('ignore')
    from mmdet_groupconv.analysis.pictures import plot_speed_accuracy, read_points


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add ``results/NAME.svg`` for each ``results/NAME.json``."""
    for path in sorted(Path(config.docs_dir, 'results').glob('*.json')):
        points, x, y = read_points([str(path)])
        figure = plot_speed_accuracy([_short(point) for point in points], x, y, path.stem)
        content = io.BytesIO()
        figure.savefig(content, format='svg')
        name = f'results/{path.stem}.svg'
        files.append(File.generated(config, name, content=content.getvalue()))
    return files


def _short(point: dict) -> dict:
    """Named after the method, coloured by detector and network, as configs are named."""
    detector, network = point['name'].split('_')[:2]
    method, _, host = network.rpartition('-')
    whole = ', whole' if '_whole_' in point['name'] else ''
    name = f'{detector} {host} {method or "dense"}{whole}'
    return dict(point, name=name, group=f'{detector} {host}')
