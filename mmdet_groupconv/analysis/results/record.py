"""What a finished run and the files made of it say, for a row of the table of results."""

import copy
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from ...benchmark import describe
from ...checkpoints import latest_checkpoint, load_weights
from ...compiler.freezing import freeze_held_gates
from ...engine.launch import build_model, drop_gate_hooks
from ...layers import GroupedConv2d, MaskGenerator
from ...macs import count_macs
from ..pictures import read_run
from ..report.config_difference import settings_of
from ..report.examination import config_of, quiet_runner
from .log import epochs_of

PRUNING = 'pruning.json'  # of tools/benchmark_pruning.py
_METRICS = 'coco/'
_RATIOS = dict(backbone='mac_ratio', detector='mac_ratio_detector')
_SMALL = 128, 128  # pixels; shares of connections don't depend on them


@dataclass
class Row:
    """A run.

    name: unique, also that of its log. detector, data, method, scope: for people; method 'dense'
    for none. dense: the name of the row it is to be compared with. metrics: of the last validation.
    macs: the shares of 'backbone' and 'detector', means over its images. parameters: that are left.
    hours: of training. config: a hash of the settings, without paths. files: what tools/export.py
    found about each, with its mAP.
    """

    name: str
    detector: str
    data: str
    method: str
    scope: str | None
    dense: str | None
    metrics: dict[str, float]
    macs: dict[str, float]
    parameters: int
    epochs: int
    seed: int | None
    hours: float
    config: str
    commands: list[str]
    machine: dict[str, object]
    files: list[dict] = field(default_factory=list)

    @property
    def mean_ap(self) -> float:
        return self.metrics['coco/bbox_mAP']

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def record_run(
    work_dir: str,
    name: str,
    about: dict[str, str | None],
    commands: Sequence[str] = (),
    files: Sequence[str] = (),
) -> tuple[Row, list[dict[str, float]]]:
    """A row, and its log's lines.

    about: detector, data, method, scope and dense, see :class:`Row`. commands: that led to it.
    files: ONNX files, with their JSON beside them, that are tested.

    Raises FileNotFoundError and ValueError where the folder is not that of a finished run, or where
    a file has no JSON.
    """
    found = [_figures(path) for path in files]
    cfg, run = config_of(work_dir), read_run(work_dir)
    epochs = epochs_of(run)
    last = {key: values[-1] for key, (_, values) in run.val.items()}
    metrics = {key: value for key, value in last.items() if key.startswith(_METRICS)}
    if epochs[-1]['epoch'] != cfg.train_cfg.max_epochs or not metrics:
        raise ValueError(
            f'{work_dir} ends after epoch {epochs[-1]["epoch"]}, expected a run of '
            f'{cfg.train_cfg.max_epochs} epochs that was validated'
        )
    macs, parameters = _left(work_dir, cfg, last)
    for part, share in macs.items():
        if last.get(_RATIOS[part]) != share:  # pruned: what was trained didn't know
            epochs[-1][_RATIOS[part]] = share
    steps, times = run.train['time']
    for path, figures in zip(files, found, strict=True):
        figures['bbox_mAP'] = float(test_file(cfg, path)['coco/bbox_mAP'])
    row = Row(
        name=name,
        **about,
        metrics=metrics,
        macs=macs,
        parameters=parameters,
        epochs=cfg.train_cfg.max_epochs,
        seed=cfg.get('randomness', {}).get('seed'),
        hours=max(steps) * sum(times) / len(times) / 3600,
        config=config_hash(cfg),
        commands=list(commands),
        machine=describe(torch.device('cpu')),
        files=found,
    )
    return row, epochs


def _left(work_dir: str, cfg: Config, last: dict[str, float]) -> tuple[dict[str, float], int]:
    """The shares of the MACs, and the parameters. last: what the last validation found."""
    pruning = Path(work_dir) / PRUNING
    if pruning.is_file():  # whose channels are in no config
        found = json.loads(pruning.read_text())
        return found['macs'], found['parameters']
    model = build_model(cfg)
    load_weights(model, latest_checkpoint(work_dir)[0])  # what the metrics are of
    macs = {part: last[key] for part, key in _RATIOS.items() if key in last}
    return macs, count_parameters(model)


def test_file(cfg: Config, path: str) -> dict[str, float]:
    """Metrics of a file in the runtime that it was made for, on a config's test data."""
    from ...deploy import FileDetector, Runtime

    cfg = copy.deepcopy(cfg)
    drop_gate_hooks(cfg)
    with tempfile.TemporaryDirectory() as scratch:
        runner = quiet_runner(cfg, None, scratch)
        runner.model = FileDetector(path, Runtime.of_file(path))
        return runner.test()


def read_rows(folder: str | Path) -> list[Row]:
    """Of all JSON files in a folder. Raises ValueError for one that holds no row."""
    rows = []
    for path in sorted(Path(folder).glob('*.json')):
        try:
            rows.append(Row(**json.loads(path.read_text())))
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f'{path} holds no row of results: {error}') from error
    return rows


def count_parameters(model: nn.Module) -> int:
    """Parameters that are left: of grouped layers with fixed gates, the weights within groups.

    Gates that are held for every image, which `model` keeps as fixed ones, need no nets.
    """
    freeze_held_gates(model)
    density = {row.name: row.density for row in count_macs(model, _SMALL).layers}
    total = sum(parameter.numel() for parameter in model.parameters())
    for name, layer in model.named_modules():
        fixed = isinstance(layer, GroupedConv2d) and (layer.static_gate or layer.frozen is not None)
        if fixed and density.get(name) is not None:
            total -= round(layer.weight.numel() * (1 - float(density[name])))
        if isinstance(layer, MaskGenerator) and layer.held is not None:
            total -= sum(parameter.numel() for parameter in layer.parameters())
    return total


def config_hash(cfg: Config) -> str:
    """Twelve digits of the SHA-256 of all settings but paths."""
    settings = settings_of(cfg)
    lines = (f'{key}={value}\n' for key, value in sorted(settings.items()) if "'/" not in value)
    return hashlib.sha256(''.join(lines).encode()).hexdigest()[:12]


def _figures(path: str) -> dict:
    beside = Path(path).with_suffix('.json')
    if not Path(path).is_file() or not beside.is_file():
        raise FileNotFoundError(
            f'{path} or {beside.name} not found, as tools/export.py writes them'
        )
    return {
        key: value
        for key, value in json.loads(beside.read_text()).items()
        if key not in ('config', 'checkpoint', 'outputs')
    }
