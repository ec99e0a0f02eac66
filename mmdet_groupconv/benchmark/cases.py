"""The forms of a network that are timed side by side."""

import functools
from collections.abc import Callable, Sequence

from mmengine.config import Config
from torch import nn

from ..compiler import compact
from .bench import Bench
from .dense import AbsentError, Runtime, compiled, in_onnxruntime
from .detectors import in_runtime
from .files import RUNTIMES, file_name, in_file
from .published_form import to_published_form
from .timing import Timing

TRAINING = ('ours', 'published form', 'dense eager')
PRECISIONS = tuple(RUNTIMES)


def names_of(precisions: Sequence[str]) -> list[str]:
    """All that :func:`inference_cases` times."""
    return list(_makers(None, None, None, precisions))


def inference_cases(
    bench: Bench, ours: nn.Module, dense: nn.Module, precisions: Sequence[str] = ()
) -> tuple[dict, list[str]]:
    """What is timed, by name, and why other forms are not.

    precisions: for which networks are also written as files and run in the runtimes that have them,
    and compact ones in bfloat16.
    """
    if bench.part == 'backbone':
        ours, dense = ours.backbone, dense.backbone
    cases, absent = {}, []
    for name, make in _makers(bench, ours, dense, precisions).items():
        try:
            cases[name] = make()
        except AbsentError as error:
            absent.append(f'{name}: {error}')
    return cases, absent


def _makers(
    bench: Bench | None, ours: nn.Module, dense: nn.Module, precisions: Sequence[str]
) -> dict[str, Callable]:
    def in_other(runtime: Runtime) -> Callable:
        with bench.autocast():
            if bench.part == 'backbone':
                return runtime(dense, bench.images)
            return in_runtime(dense, runtime, bench.images)

    def onnxruntime() -> Callable:
        if bench.device.type != 'cpu' or bench.amp:
            raise AbsentError('float32 on the CPU only')
        return in_other(in_onnxruntime)

    makers = {
        'compact': lambda: bench.inference(compact(ours)),
        'eager': lambda: bench.inference(ours),
        'published form': lambda: bench.inference(to_published_form(ours)),
        'dense eager': lambda: bench.inference(dense),
        'dense compact': lambda: bench.inference(compact(dense)),
        'dense compiled': lambda: bench.inference(in_other(compiled)),
        'dense onnxruntime': lambda: bench.inference(onnxruntime()),
    }
    for prefix, network in (('', ours), ('dense ', dense)):
        if 'bf16' in precisions:
            makers[f'{prefix}compact bf16'] = lambda network=network: bench.inference(
                compact(network, precision='bf16')
            )
        for precision in precisions:
            for runtime in RUNTIMES[precision]:
                arguments = bench, network, runtime, precision
                name = prefix + file_name(runtime, precision)
                makers[name] = functools.partial(in_file, *arguments)
    return makers


def training_cases(
    bench: Bench, ours: nn.Module, dense: nn.Module, cfg: Config, dense_cfg: Config
) -> tuple[dict, list[str]]:
    """As :func:`inference_cases`."""
    published = to_published_form(ours)  # a copy, so before hooks are there
    cases = {
        'ours': bench.training(ours, cfg, hooks=True),
        'published form': bench.training(published, cfg, hooks=True),
        'dense eager': bench.training(dense, dense_cfg, hooks=False),
    }
    return cases, []


def factors(timings: dict[str, Timing], ours: str) -> dict[str, float]:
    """How many times as long as ours each case takes; 'best dense' is the fastest dense one."""
    found = {name: timing.median / timings[ours].median for name, timing in timings.items()}
    dense = [factor for name, factor in found.items() if name.startswith('dense ')]
    return dict(found, **{'best dense': min(dense)})


def by_precision(timings: dict[str, Timing]) -> dict[str, tuple[str, str, float]]:
    """Of each precision, and of 'any': the fastest form of ours, of the dense network, and how
    many times as long that takes."""
    found = {}
    for precision in (*PRECISIONS, 'any'):
        own = {n: t.median for n, t in timings.items() if precision in (_precision(n), 'any')}
        dense = {n: t for n, t in own.items() if n.startswith('dense ')}
        ours = {n: t for n, t in own.items() if n not in dense}
        if dense and ours:
            one, other = min(ours, key=ours.get), min(dense, key=dense.get)
            found[precision] = one, other, dense[other] / ours[one]
    return found


def _precision(name: str) -> str:
    return next((p for p in PRECISIONS if name.endswith(f' {p}')), 'fp32')
