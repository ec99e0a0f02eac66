"""For mkdocs: speed against accuracy of the rows of results, drawn with the site."""

import io
import warnings
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

with warnings.catch_warnings():  # mkdocs prints those that PyTorch has for itself
    warnings.simplefilter('ignore')
    from mmdet_groupconv.analysis.pictures import plot_speed_accuracy
    from mmdet_groupconv.analysis.results import Row, read_rows


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add ``results/int8.svg``: int8 files of grouped detectors beside dense ones."""
    rows = {row.name: row for row in read_rows(Path(config.docs_dir, 'results/rows'))}
    points = [
        _point(row, file, rows[row.dense])
        for row in rows.values()
        for file in row.files
        if row.dense and file['precision'] == 'int8' and file['dense_milliseconds']
    ]
    title = 'int8 files beside the dense detector that they were made from'
    figure = plot_speed_accuracy(points, 'time, the dense file = 1', 'mAP, less dense', title)
    content = io.BytesIO()
    figure.savefig(content, format='svg')
    name = 'results/int8.svg'
    files.append(File.generated(config, name, content=content.getvalue()))
    return files


def _point(row: Row, file: dict, dense: Row) -> dict:
    return dict(
        name=f'{row.method} {row.macs["detector"]:.2f}',
        group=f'{row.detector}',
        x=file['milliseconds'] / file['dense_milliseconds'],
        y=file['bbox_mAP'] - dense.mean_ap,
    )
