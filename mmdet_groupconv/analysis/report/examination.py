"""What there is to say of a finished run: its log, and its checkpoint tested anew."""

import copy
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmdet.models.detectors.base import BaseDetector
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ...benchmark import describe
from ...checkpoints import latest_checkpoint
from ...datasets.images import spread_loader
from ...engine.launch import build_runner
from ...engine.mac_ratio_hook import bare_model
from ...layers import GroupedLayer
from ...macs import MacReport, count_macs, mean_report
from ..latency import latencies
from ..pictures import Run, plot_density_history, plot_macs, read_run
from ..recording import record
from ..targets import targets_of

_PER_CLASS = '_precision'


@dataclass
class Examination:
    """A run's facts.

    log: what it logged. metrics: of the test. classes: AP by class, empty for classifiers. macs: of
    some test images, means. targets: MAC ratios that were trained for, by scope. milliseconds: of
    one image, by form. machine: that they hold for. samples: painted images, annotations on the
    left, predictions on the right, ``[H, W, 3]`` uint8, RGB.
    """

    name: str
    cfg: Config
    checkpoint: str
    log: Run
    metrics: dict[str, float]
    classes: dict[str, float]
    macs: MacReport
    targets: dict[str, float]
    milliseconds: dict[str, float]
    machine: dict[str, object]
    samples: list[np.ndarray] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """For JSON, in the form that ``plot_runs.py --results`` reads too; without pictures."""
        return dict(
            name=self.name,
            checkpoint=Path(self.checkpoint).name,
            **self.metrics,
            classes=self.classes,
            targets=self.targets,
            ms=self.milliseconds['compact'],
            milliseconds=self.milliseconds,
            machine=self.machine,
            macs=self.macs.macs,
            original_macs=self.macs.original,
            parts={
                name: dict(original=part.original, macs=part.macs)
                for name, part in self.macs.parts.items()
            },
            validated={
                name: dict(zip(*self.log.val[name], strict=True))
                for name in self.metrics
                if name in self.log.val
            },
        )


def examine(work_dir: str, images: int = 16, samples: int = 4) -> Examination:
    """Test a run's best or else latest checkpoint, and look at what it groups.

    images: how many test images MACs and gates are means over. samples: how many are painted.

    Raises FileNotFoundError and ValueError where the folder is not that of a run.
    """
    cfg, checkpoint = config_of(work_dir), checkpoint_of(work_dir)
    log = read_run(work_dir)
    with tempfile.TemporaryDirectory() as scratch:
        runner = quiet_runner(cfg, checkpoint, scratch)
        runner.load_or_resume()
        metrics = {name: float(value) for name, value in runner.test().items()}
        model = bare_model(runner).eval()
        found = _look(model, runner, images, samples)
    classes = {
        name.removesuffix(_PER_CLASS).removeprefix('coco/'): value
        for name, value in metrics.items()
        if name.endswith(_PER_CLASS)
    }
    if log.densities():
        found['figures']['history'] = plot_density_history(
            log.densities(), 'epoch' if log.by_epoch else 'iteration'
        )
    return Examination(
        name=Path(work_dir).resolve().name,
        cfg=cfg,
        checkpoint=checkpoint,
        log=log,
        metrics={k: v for k, v in metrics.items() if not k.endswith(_PER_CLASS)},
        classes=classes,
        targets=targets_of(cfg),
        **found,
    )


def config_of(work_dir: str) -> Config:
    """The config that a run left in its folder."""
    found = sorted(Path(work_dir).glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f'{work_dir} has no config, expected the work dir of a run')
    return Config.fromfile(found[-1])


def checkpoint_of(work_dir: str) -> str:
    """The best checkpoint of a run, or its latest."""
    best = sorted(Path(work_dir).glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    found = str(best[-1]) if best else latest_checkpoint(work_dir)[0]
    if not found:
        raise FileNotFoundError(f'{work_dir} has no checkpoint, expected best_*.pth or epoch_*.pth')
    return found


def quiet_runner(cfg: Config, checkpoint: str | None, scratch: str) -> Runner:
    """To test a config once more, which leaves what it writes in a folder of its own."""
    cfg = copy.deepcopy(cfg)
    cfg.update(work_dir=scratch, load_from=checkpoint, resume=False, launcher='none')
    cfg.experiment_name = Path(scratch).name  # MMEngine keeps one logger of a name
    cfg.setdefault('visualizer', dict(type='Visualizer')).update(name=cfg.experiment_name)
    cfg.visualizer.vis_backends = []
    for evaluator in _as_list(cfg.test_evaluator):
        if evaluator['type'] == 'CocoMetric':
            evaluator['classwise'] = True
    return build_runner(cfg, ('test',))


def _look(model: nn.Module, runner: Runner, images: int, samples: int) -> dict:
    """Fields of an :class:`Examination` that come from running the network on test images."""
    batches = list(spread_loader(runner.cfg.test_dataloader, max(images, samples)))
    macs, figures = _macs_and_pictures(model, batches[:images])
    is_detector = isinstance(model, BaseDetector)
    return dict(
        macs=macs,
        figures=figures,
        samples=[_painted(model, runner, batch) for batch in batches[:samples] if is_detector],
        milliseconds=latencies(model, runner.cfg, batches[0]),
        machine=describe(next(model.parameters()).device),
    )


def _macs_and_pictures(model: nn.Module, batches: list[dict]) -> tuple[MacReport, dict]:
    batches = copy.deepcopy(batches)  # a data preprocessor changes their samples
    if any(isinstance(module, GroupedLayer) for module in model.modules()):
        recording = record(model, batches)
        return recording.report, recording.figures()
    inputs = [model.data_preprocessor(batch, training=False)['inputs'] for batch in batches]
    report = mean_report([count_macs(model, tuple(x.shape[-2:]), x) for x in inputs])
    return report, dict(macs=plot_macs(report))


def _painted(model: nn.Module, runner: Runner, batch: dict) -> np.ndarray:
    with torch.no_grad():
        sample = model.test_step(copy.deepcopy(batch))[0].cpu()
    image = mmcv.imread(sample.img_path, channel_order='rgb')
    runner.visualizer.add_datasample('', image, sample, pred_score_thr=0.3)
    return runner.visualizer.get_image()


def _as_list(value: dict | list) -> list:
    return value if isinstance(value, list) else [value]
