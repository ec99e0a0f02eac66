"""What runs logged, side by side."""

import json
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config

from .style import CYCLE, LIGHT, MEDIUM, new_figure, tidy

Curve = tuple[list[float], list[float]]
ACCURACIES = 'coco/bbox_mAP', 'accuracy/top1'
GATES = 'gates/'
_WIDTH = 9  # inches


@dataclass
class Run:
    """What a run logged, as steps and values by name.

    train: by iteration. val: by epoch, or by iteration where the run counts those alone. by_epoch:
    which of the two. scope: 'backbone' or 'detector', what ``mac_target`` is the share of.
    """

    name: str
    train: dict[str, Curve] = field(default_factory=dict)
    val: dict[str, Curve] = field(default_factory=dict)
    by_epoch: bool = True
    scope: str = 'backbone'

    def densities(self) -> dict[str, Curve]:
        """Of each grouped layer, the mean over its heads."""
        heads = defaultdict(list)
        for name, curve in self.val.items():
            if name.startswith(GATES):
                heads[name.removeprefix(GATES).rpartition('/')[0]].append(curve)
        return {
            layer: (curves[0][0], np.mean([values for _, values in curves], axis=0).tolist())
            for layer, curves in heads.items()
        }


def read_run(work_dir: str | Path) -> Run:
    """Read ``vis_data/scalars.json`` of each time that a run was started, the earliest first.

    What a later start logged takes the place of all from its first step on.

    Raises FileNotFoundError where there is no such file, ValueError for a line that is no JSON.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise FileNotFoundError(f'{work_dir} has no */vis_data/scalars.json, expected a work dir')
    kept: dict[bool, list[dict]] = {True: [], False: []}
    for file in files:
        records = _records(file)
        for is_training, earlier in kept.items():
            new = [record for record in records if ('loss' in record) == is_training]
            first = min((record['step'] for record in new), default=float('inf'))
            kept[is_training] = [r for r in earlier if r['step'] < first] + new
    if not kept[True] and not kept[False]:
        raise ValueError(f'{work_dir}: the run logged nothing yet')
    by_epoch = any('epoch' in record for record in kept[True])
    return Run(
        Path(work_dir).resolve().name, _curves(kept[True]), _curves(kept[False]), by_epoch,
        _scope(files[-1].with_name('config.py')),
    )  # fmt: skip


def read_runs(work_dirs: list[str]) -> list[Run]:
    """Read several, named by as much of their paths as tells them apart.

    Raises as :func:`read_run` does, and ValueError for one that is given twice.
    """
    runs = [read_run(work_dir) for work_dir in work_dirs]
    parts = [Path(work_dir).resolve().parts for work_dir in work_dirs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ['/'.join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return [replace(run, name=name) for run, name in zip(runs, names, strict=True)]
    if runs:
        raise ValueError('a work dir is given twice, expected different ones')
    return runs


def plot_runs(runs: list[Run]) -> Figure:
    """Loss, accuracy, MAC ratio (its target dashed) and gate density, a colour a run.

    Panels that no run has anything for are left out.
    """
    step = 'epoch' if all(run.by_epoch for run in runs) else 'epoch or iteration'
    panels = [
        ('loss', 'iteration', lambda run: [run.train.get('loss')]),
        *((name, step, lambda r, name=name: [r.val.get(name)]) for name in ACCURACIES),
        ('MAC ratio of the backbone; dashed: target', 'iteration', lambda r: _ratio(r, 'backbone')),
        ('MAC ratio of the detector; dashed: target', 'iteration', lambda r: _ratio(r, 'detector')),
        ('share of channels read, mean over layers', step, lambda run: [_mean_density(run)]),
    ]
    shown = [panel for panel in panels if any(any(panel[2](run)) for run in runs)]
    columns = _legend_columns(runs)
    legend = 0.2 * -(-len(runs) // columns)
    figure = new_figure(_WIDTH, 0.7 + legend + 2.6 * -(-len(shown) // 2), 'Training')
    grid = figure.subplots(-(-len(shown) // 2), min(len(shown), 2), squeeze=False).flat
    for (title, x, curves_of), axes in zip(shown, grid, strict=False):
        for run, colour in zip(runs, _colours(runs), strict=True):
            _draw(axes, curves_of(run), colour)
        tidy(axes, title, x=x)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=LIGHT, linewidth=0.6)
    for axes in list(grid):
        axes.remove()
    lines = [figure.axes[0].plot([], [], color=c, label=r.name)[0]
             for r, c in zip(runs, _colours(runs), strict=True)]  # fmt: skip
    figure.legend(
        handles=lines, loc='outside lower center', ncols=columns, fontsize=MEDIUM, frameon=False,
    )  # fmt: skip
    return figure


def _legend_columns(runs: list[Run]) -> int:
    """As many as fit side by side."""
    longest = max((len(run.name) for run in runs), default=0)
    return max(min(int(_WIDTH / (0.6 + 0.075 * longest)), len(runs)), 1)


def _scope(config: Path) -> str:
    if not config.is_file():
        return 'backbone'
    hooks = Config.fromfile(config, import_custom_modules=False).get('custom_hooks') or []
    budgets = [hook for hook in hooks if hook['type'] == 'MACBudgetHook']
    return budgets[0].get('scope', 'backbone') if budgets else 'backbone'


def _records(file: Path) -> list[dict]:
    records = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f'{file}, line {number}: no JSON ({error.msg})') from error
    return [record for record in records if 'step' in record]


def _curves(records: list[dict]) -> dict[str, Curve]:
    curves: dict[str, Curve] = defaultdict(lambda: ([], []))
    for record in records:
        for name, value in record.items():
            if isinstance(value, int | float) and name != 'step':
                curves[name][0].append(record['step'])
                curves[name][1].append(value)
    return dict(curves)


def _colours(runs: list[Run]) -> list[str]:
    return [CYCLE[number % len(CYCLE)] for number in range(len(runs))]


def _ratio(run: Run, part: str) -> list[Curve | None]:
    name = 'mac_ratio' if part == 'backbone' else 'mac_ratio_detector'
    return [run.train.get(name), run.train.get('mac_target') if run.scope == part else None]


def _mean_density(run: Run) -> Curve | None:
    curves = list(run.densities().values())
    return (curves[0][0], np.mean([c[1] for c in curves], axis=0).tolist()) if curves else None


def _draw(axes: Axes, curves: list[Curve | None], colour: str) -> None:
    for curve, style in zip(curves, ('-', '--'), strict=False):
        if curve:
            marker = '.' if len(curve[0]) < 30 and style == '-' else ''
            axes.plot(*curve, style, color=colour, linewidth=1.2, marker=marker)
