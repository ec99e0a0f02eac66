"""For mkdocs: speed against accuracy of the runs below ``results/``, drawn with the site."""

import io
import json
import warnings
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

with warnings.catch_warnings():  # mkdocs prints those that PyTorch has for itself
    warnings.simplefilter('ignore')
    from mmdet_groupconv.analysis.pictures import plot_speed_accuracy


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add ``results/NAME.svg`` for each ``results/NAME.json``."""
    for path in sorted(Path(config.docs_dir, 'results').glob('*.json')):
        points = [_point(run) for run in json.loads(path.read_text())]
        figure = plot_speed_accuracy(points, 'time of compact, dense eager = 1', 'mAP', path.stem)
        content = io.BytesIO()
        figure.savefig(content, format='svg')
        name = f'results/{path.stem}.svg'
        files.append(File.generated(config, name, content=content.getvalue()))
    return files


def _point(run: dict) -> dict:
    """Named after the method, coloured by detector and network, as configs are named.

    Runs were timed on different days: each against its dense network on the same day.
    """
    detector, network = run['name'].split('_')[:2]
    method, _, host = network.removesuffix('-pre').rpartition('-')
    whole = ', whole' if '_whole_' in run['name'] else ''
    pretrained = ', pretrained' if network.endswith('-pre') else ''
    return dict(
        name=f'{detector} {host} {method or "dense"}{whole}{pretrained}',
        group=f'{detector} {host}',
        x=run['milliseconds']['compact'] / run['milliseconds']['dense eager'],
        y=run['coco/bbox_mAP'],
    )
