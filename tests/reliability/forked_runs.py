"""Trainings in processes of their own, which end as told; importing MMDetection once for all.

``forked_runs.py RUNS``: RUNS is a JSON file with a list of ``dict(arguments=[...])`` of
tools/train.py, one after the other. Each may say how it ends early:

* ``killed_at=n``: SIGKILL between the n-th backward pass and the optimizer's step (from 1);
* ``cut_after=n``: after the n-th step the kernel ends the process as soon as a file grows beyond
  half a checkpoint, in the middle of writing it;
* ``killed_before=n``: SIGKILL before the n-th operation on the files of checkpoints (from 0).

RUNS then holds for each run its exit status (that of a signal is negative) and the files of the
work dir with their sizes.
"""

import json
import os
import resource
import runpy
import signal
import sys
import traceback
from pathlib import Path

import yapf.yapflib.yapf_api
from mmengine.optim import OptimWrapper

import mmdet_groupconv.engine.launch  # noqa: F401  (the children have it then)

TRAIN = Path(__file__).resolve().parents[2] / 'tools/train.py'


def main() -> None:
    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)  # takes longer than a run
    path = Path(sys.argv[1])
    runs = json.loads(path.read_text())
    for run in runs:
        work_dir = Path(next(a for a in run['arguments'] if '--work-dir' in a).split('=')[1])
        process = os.fork()
        if process == 0:
            train(run, work_dir)
        status = os.waitpid(process, 0)[1]
        run['status'] = os.waitstatus_to_exitcode(status)
        run['files'] = {p.name: p.stat().st_size for p in work_dir.glob('*') if p.is_file()}
    path.write_text(json.dumps(runs))


def train(run: dict, work_dir: Path) -> None:
    log = os.open(f'{work_dir}.log', os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if 'killed_at' in run:
        at_step(run['killed_at'], before=kill)
    if 'cut_after' in run:
        half = max(path.stat().st_size for path in work_dir.glob('epoch_*.pth')) // 2
        at_step(run['cut_after'], after=lambda: limit_files(half))
    if 'killed_before' in run:
        at_operation(run['killed_before'], work_dir)
    status = 1
    try:
        status = runpy.run_path(str(TRAIN))['main'](run['arguments'])
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_step(number: int, before=lambda: None, after=lambda: None) -> None:
    done = 0
    step = OptimWrapper.step

    def counting(self, **kwargs) -> None:
        nonlocal done
        done += 1
        if done == number:
            before()
        step(self, **kwargs)
        if done == number:
            after()

    OptimWrapper.step = counting


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would raise an OSError
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def at_operation(number: int, work_dir: Path) -> None:
    left = number

    def watch(event: str, args: tuple) -> None:
        nonlocal left
        if event in ('open', 'os.rename', 'os.remove') and isinstance(args[0], str | Path):
            path, writes = Path(args[0]), event != 'open' or args[1] in ('w', 'wb')
            if writes and path.parent == work_dir and ('epoch' in path.name or 'last' in path.name):
                if left == 0:
                    kill()
                left -= 1

    sys.addaudithook(watch)


if __name__ == '__main__':
    main()
