"""The choice between mmcv's compiled operators and the stand-in made from torchvision."""

import importlib
import logging
import sys
from collections.abc import Callable
from functools import cache
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import NoReturn

import mmcv
import torch  # noqa: F401  (the compiled module links to libraries that this import loads)
from mmengine.logging import print_log

from . import torchvision_ops
from .stubs import reimport_broken_packages, replace_stubs

_NAME = 'mmcv._ext'
_COMPILED = 'mmcv ops: compiled'
_STAND_IN = 'mmcv ops: torchvision stand-in (nms, softnms, roi_align avg, sigmoid_focal_loss)'
_OPS = (
    torchvision_ops.nms,
    torchvision_ops.softnms,
    torchvision_ops.roi_align_forward,
    torchvision_ops.roi_align_backward,
    torchvision_ops.sigmoid_focal_loss_forward,
    torchvision_ops.sigmoid_focal_loss_backward,
    torchvision_ops.get_compiler_version,
    torchvision_ops.get_compiling_cuda_version,
)


def ensure_mmcv_ops() -> str:
    """Make ``mmcv.ops`` importable, with or without mmcv's compiled operators.

    Compiled operators are used where mmcv has them. Otherwise a module made from torchvision's
    operators takes the place of ``mmcv._ext``, the placeholders that mmdet modules imported
    earlier made for missing operators are replaced, and packages whose import failed for want
    of operators are imported again. The first call logs the line that it returns.

    Returns:
        One line that says which operators are in use.

    Raises:
        ImportError: where the compiled operators are there but cannot be loaded, or where a
            module imported earlier keeps a placeholder that cannot be replaced.
    """
    if isinstance(sys.modules.get(_NAME), _StandIn):
        return _STAND_IN
    spec = find_spec(_NAME)
    if spec is None:
        _install()
        replace_stubs()
        reimport_broken_packages()
    else:
        _load_compiled(spec)
    _log_once(choice := _STAND_IN if spec is None else _COMPILED)
    return choice


@cache
def _log_once(line: str) -> None:
    print_log(line, logger='current', level=logging.INFO)


class _StandIn(ModuleType):
    """A module whose missing public attributes are functions that say what is missing."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')

        def missing(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(
                f'{name} needs the compiled ops of mmcv, which this installation lacks: run '
                '`make mmcv-ops`, or build mmcv from source with MMCV_WITH_OPS=1'
            )

        missing.__name__ = missing.__qualname__ = name
        setattr(self, name, missing)
        return missing


class _StandInLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> _StandIn:
        return _StandIn(spec.name, 'Operators of mmcv made from torch and torchvision.')

    def exec_module(self, module: ModuleType) -> None:
        for op in _OPS:
            setattr(module, op.__name__, op)


def _install() -> None:
    # mmcv and mmengine take the ops for present when this spec has a loader.
    spec = ModuleSpec(_NAME, _StandInLoader(), origin=torchvision_ops.__name__)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[_NAME] = module
    mmcv._ext = module


def _load_compiled(spec: ModuleSpec) -> None:
    try:
        importlib.import_module(_NAME)
    except ImportError as error:
        raise ImportError(
            f'the compiled ops of mmcv in {spec.origin} cannot be loaded: {error}. They were '
            'probably built for another torch: build them again with `make mmcv-ops`, or '
            'reinstall mmcv without compiled ops'
        ) from error
