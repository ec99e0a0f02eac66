"""Where a resumed run goes on."""

import os.path as osp

from mmengine.config import Config

from ..checkpoints import latest_checkpoint, read_checkpoint
from .whole_files import WholeFiles


def settle_resume(cfg: Config) -> list[str]:
    """Whether a run goes on from its work dir, or begins: ``cfg.resume`` is a bool afterwards.

    ``resume='auto'``: from the latest whole checkpoint there; where there is none, with what
    ``load_from`` names, as the weights of a grouped detector. True is the same without a
    ``load_from``, else it goes on from that file. Returns what to warn of.
    """
    if cfg.get('resume') != 'auto' and (not cfg.get('resume') or cfg.get('load_from')):
        return []
    path, damaged = latest_checkpoint(cfg.work_dir)
    warnings = [f'{name} is damaged and passed over' for name in damaged]
    cfg.resume = path is not None
    if cfg.resume:
        cfg.load_from = None
    else:
        begins = f'with {cfg.load_from}' if cfg.get('load_from') else 'anew'
        warnings.append(f'no checkpoint to resume in {cfg.work_dir}: the run begins {begins}')
    return warnings


def prepare_resume(cfg: Config) -> None:
    """Have MMEngine resume, where that was settled, with the seed of the run.

    ``last_checkpoint`` of the work dir is written anew where it names another than the latest whole
    one. Raises ValueError for a file that holds no run, but weights alone.
    """
    if not cfg.get('resume'):
        return
    path = cfg.get('load_from') or latest_checkpoint(cfg.work_dir)[0]
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


def _point_to(path: str, work_dir: str) -> None:
    pointer = osp.join(work_dir, 'last_checkpoint')
    files = WholeFiles()
    if not (files.isfile(pointer) and files.get(pointer) == path.encode()):
        files.put_text(path, pointer)
