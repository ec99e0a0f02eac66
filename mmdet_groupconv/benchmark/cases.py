"""The forms of a network that are timed side by side."""

from collections.abc import Callable

from mmengine.config import Config
from torch import nn

from ..compiler import compact
from .bench import Bench
from .dense import AbsentError, Runtime, compiled, in_onnxruntime
from .detectors import in_runtime
from .published_form import to_published_form
from .timing import Timing

DENSE = ('dense eager', 'dense compact', 'dense compiled', 'dense onnxruntime')
INFERENCE = ('compact', 'eager', 'published form', *DENSE)
TRAINING = ('ours', 'published form', 'dense eager')


def inference_cases(bench: Bench, ours: nn.Module, dense: nn.Module) -> tuple[dict, list[str]]:
    """What is timed, by name, and why other forms are not."""
    if bench.part == 'backbone':
        ours, dense = ours.backbone, dense.backbone

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
        'compact': lambda: compact(ours),
        'eager': lambda: ours,
        'published form': lambda: to_published_form(ours),
        'dense eager': lambda: dense,
        'dense compact': lambda: compact(dense),
        'dense compiled': lambda: in_other(compiled),
        'dense onnxruntime': onnxruntime,
    }
    cases, absent = {}, []
    for name, make in makers.items():
        try:
            cases[name] = bench.inference(make())
        except AbsentError as error:
            absent.append(f'{name}: {error}')
    return cases, absent


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
    return dict(found, **{'best dense': min(found[name] for name in DENSE if name in found)})
