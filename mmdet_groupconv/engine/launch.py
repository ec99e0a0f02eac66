"""From a config file and a command line to a runner, with every input checked on the way."""

import atexit
import copy
import gc
import logging
import os
import os.path as osp
from argparse import Namespace
from pathlib import Path

import torch
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import HOOKS, MODELS, RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from .checkpoint_inputs import check_checkpoints
from .data_inputs import check_data
from .mac_ratio_hook import hook_class
from .model_check import check_maps
from .resuming import prepare_resume, settle_resume

_OF_PARAMETERS = 'paramwise_options'


def load_config(args: Namespace) -> Config:
    """The config with the command line's overrides; ``work_dir`` is always set.

    Raises FileNotFoundError for a missing file.
    """
    if not osp.isfile(args.config):
        raise FileNotFoundError(f'config {args.config} not found')
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = getattr(args, 'launcher', 'none')
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    default = osp.join('work_dirs', Path(args.config).stem)
    cfg.work_dir = getattr(args, 'work_dir', None) or cfg.get('work_dir') or default
    if getattr(args, 'show', False) or getattr(args, 'show_dir', None):
        cfg = trigger_visualization_hook(cfg, args)
    return cfg


def use_amp(cfg: Config) -> None:
    """Train in mixed precision: in bfloat16 on CPUs, else as MMDetection's ``--amp``."""
    if get_device() == 'cpu':
        cfg.optim_wrapper.type = 'CPUAmpOptimWrapper'
        for name in ('loss_scale', 'dtype'):  # AmpOptimWrapper's, for GPUs
            cfg.optim_wrapper.pop(name, None)
    else:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def build_runner(cfg: Config, modes: tuple[str, ...]) -> Runner:
    """Check what `modes` ('train', 'val', 'test') need, then build the runner with its data.

    Raises FileNotFoundError and ValueError that name the file or key, before a file is written.
    """
    setup_cache_size_limit_of_dynamo()
    check_data(cfg, modes)
    _prepare_hooks(cfg)
    model = build_model(cfg)
    check_maps(model)
    warnings = settle_resume(cfg)
    reports = check_checkpoints(cfg, model, modes)
    for hook in cfg.get('custom_hooks') or []:
        built = HOOKS.build({key: value for key, value in hook.items() if key != 'priority'})
        if 'train' in modes and hasattr(built, 'check'):
            built.check(model)  # as before_run would, once files are written
    prepare_resume(cfg)
    _join_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    _hush(runner.logger)
    for line in warnings:
        runner.logger.warning(line)
    for line in reports:
        runner.logger.info(line)
    for mode in modes:
        getattr(runner, f'{mode}_loop')  # builds the data set and the metric
    return runner


def _hush(logger: logging.Logger) -> None:
    """Leave to the log file what MMEngine says of every single parameter's learning rate."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(
            handler, logging.FileHandler
        ):
            handler.addFilter(lambda record: not record.getMessage().startswith(_OF_PARAMETERS))


def save_predictions(runner: Runner, path: str) -> None:
    """Have a test write its predictions to a ``.pkl`` file, as MMDetection's ``--out`` does."""
    runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=path))


def drop_gate_hooks(cfg: Config) -> None:
    """Take out of a config the hooks that read the gates of its model."""
    cfg.custom_hooks = [
        hook
        for hook in cfg.get('custom_hooks') or []
        if not getattr(hook_class(hook), 'reads_gates', False)
    ]


def build_model(cfg: Config) -> nn.Module:
    """The config's model, its weights not yet initialised; the config stays as it is."""
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    return MODELS.build(copy.deepcopy(cfg.model))  # some detectors change theirs


def _prepare_hooks(cfg: Config) -> None:
    ours = dict(
        epoch_seed=dict(type='EpochSeedHook'),
        checkpoint=dict(type='CheckpointHook', interval=1),  # MMEngine's default
    )
    cfg.default_hooks = {**ours, **(cfg.get('default_hooks') or {})}
    for hook in (*cfg.default_hooks.values(), *(cfg.get('custom_hooks') or [])):
        if hook and hook.get('type') in ('CheckpointHook', 'mmengine.CheckpointHook'):
            hook['type'] = 'WholeCheckpointHook'


def _join_cpu_processes(cfg: Config) -> None:
    # MMEngine gives every process a GPU, and so fails where there is none; else its own defaults.
    if cfg.launcher == 'pytorch' and not torch.cuda.is_available():
        torch.distributed.init_process_group('gloo')
        atexit.register(_leave_cpu_processes)
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )


def _leave_cpu_processes() -> None:
    # A process group that outlives the interpreter, held by a wrapped model, aborts at its exit.
    gc.collect()
    torch.distributed.destroy_process_group()
