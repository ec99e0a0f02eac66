"""Where a resumed run goes on."""

import os.path as osp

from mmengine.config import Config

from ..checkpoints import latest_checkpoint, read_checkpoint
from .whole_files import WholeFiles


def resume_if_begun(cfg: Config) -> None:
    """Have a run go on from its work dir, or where nothing is there, begin as the config says.

    That is with the weights of ``load_from`` where it names some, as of a grouped detector.
    """
    if cfg.get('load_from') and latest_checkpoint(cfg.work_dir)[0] is None:
        cfg.resume = False
    else:
        cfg.resume, cfg.load_from = True, None


def prepare_resume(cfg: Config) -> list[str]:
    """Have MMEngine resume from the last good checkpoint, with the seed of its run.

    Without ``load_from`` that is the latest whole one of the work dir: ``last_checkpoint`` is
    written anew where it names another, and ``resume`` unset where there is none. Returns what to
    warn of. Raises ValueError for a file that holds no run, but weights alone.
    """
    if not cfg.get('resume'):
        return []
    path, warnings = cfg.get('load_from'), []
    if not path:
        path, damaged = latest_checkpoint(cfg.work_dir)
        warnings = [f'{name} is damaged and passed over' for name in damaged]
        if path is None:
            cfg.resume = False
            return [*warnings, f'no checkpoint to resume in {cfg.work_dir}: the run begins anew']
    if '://' not in path:
        meta = read_checkpoint(path)[1]
        if 'epoch' not in meta or 'iter' not in meta:
            raise ValueError(
                f'checkpoint {path} holds no epoch and iteration to resume from; '
                'load_from=... without --resume begins a new run with its weights'
            )
        # MMEngine takes it over too, but later than the sampler, whose order depends on it.
        if cfg.get('randomness', {}).get('seed') is None:
            cfg.randomness = {**cfg.get('randomness', {}), 'seed': meta.get('seed')}
    if not cfg.get('load_from'):
        _point_to(path, cfg.work_dir)
    return warnings


def _point_to(path: str, work_dir: str) -> None:
    pointer = osp.join(work_dir, 'last_checkpoint')
    files = WholeFiles()
    if not (files.isfile(pointer) and files.get(pointer) == path.encode()):
        files.put_text(path, pointer)
