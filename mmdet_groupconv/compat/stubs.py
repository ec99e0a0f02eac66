"""Repair of modules that were imported while mmcv had no operators.

An mmdet module that cannot import an operator goes on with a placeholder of the same name, whose
only act is to raise RuntimeError. A package that has no placeholder fails, and leaves behind the
submodules that it had imported by then.
"""

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType

_PACKAGES = ('mmdet', 'mmcv')
_MESSAGE = re.compile(r'(\w+) requires mmcv to be compiled')
# Names left out, or set to None, where the operator is missing: (module, name) -> operator.
_ABSENT = {
    ('mmcv.cnn.bricks.transformer', 'MultiScaleDeformableAttention'): (
        'MultiScaleDeformableAttention'
    ),
    ('mmdet.models.dense_heads.clr_head.clr_head', 'nms'): 'line_nms',
}


def replace_stubs() -> None:
    """Bind every placeholder in an imported module, mmdet's or not, to the real operator.

    Raises:
        ImportError: where a class derives from a placeholder, or mmcv has no such operator.
    """
    found = list(_placeholders())
    for module, _, placeholder, op in found:
        if isinstance(placeholder, type) and placeholder.__subclasses__():
            heir = placeholder.__subclasses__()[0]
            raise ImportError(
                f'{heir.__module__}.{heir.__qualname__} derives from the placeholder that '
                f'{module.__name__} made for the missing mmcv operator {op}: '
                f'import mmdet_groupconv before {heir.__module__}'
            )
    for module, name, _, op in found:
        setattr(module, name, _operator(op, module.__name__))
    for (module_name, name), op in _ABSENT.items():
        module = sys.modules.get(module_name)
        if module is not None and getattr(module, name, None) is None:
            setattr(module, name, _operator(op, module_name))


def reimport_broken_packages() -> None:
    """Import again the packages that failed and left submodules in ``sys.modules``.

    Left alone, a later import of the package would not set those submodules as its attributes.

    Raises:
        ImportError: where a package fails again.
    """
    missing = {
        parent
        for name in sys.modules
        if name.split('.')[0] in _PACKAGES
        for parent in _parents(name)
        if parent not in sys.modules
    }
    for package in sorted(missing):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f'{package} failed to import before mmdet_groupconv was imported, and fails '
                f'again: {error}. Import mmdet_groupconv before {package}'
            ) from error
    for name, module in list(sys.modules.items()):
        package, _, child = name.rpartition('.')
        if package in missing and not hasattr(sys.modules[package], child):
            setattr(sys.modules[package], child, module)


def _placeholders() -> Iterator[tuple[ModuleType, str, object, str]]:
    """The module, name, value and operator of each binding of a placeholder."""
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        # Asking a lazy module for its attributes would load it.
        namespace = object.__getattribute__(module, '__dict__')
        for name, value in list(namespace.items()):
            op = _missing_operator(value)
            if op is not None:
                yield module, name, value, op


def _missing_operator(value: object) -> str | None:
    """The operator that ``value`` is a placeholder of, None where it is anything else."""
    if type(value) is type and value.__bases__ == (object,):
        function = vars(value).get('__init__')
    else:
        function = value
    if type(function) is not FunctionType:
        return None
    if str(function.__module__).split('.')[0] not in _PACKAGES:
        return None
    # A placeholder names nothing but the error: a real function that may raise it names more.
    if function.__code__.co_names != ('RuntimeError',):
        return None
    for constant in function.__code__.co_consts:
        match = _MESSAGE.match(constant) if isinstance(constant, str) else None
        if match:
            return match[1]
    return None


def _operator(name: str, wanted_by: str) -> object:
    """The object called ``name`` in ``mmcv.ops``, or in a submodule that it does not export."""
    ops = importlib.import_module('mmcv.ops')
    if hasattr(ops, name):
        return getattr(ops, name)
    for info in pkgutil.iter_modules(ops.__path__, 'mmcv.ops.'):
        module = importlib.import_module(info.name)
        if hasattr(module, name):
            return getattr(module, name)
    raise ImportError(
        f'{wanted_by} has a placeholder for {name}, which mmcv.ops does not have: '
        f'import mmdet_groupconv before {wanted_by}'
    )


def _parents(name: str) -> Iterator[str]:
    while '.' in name:
        name = name.rpartition('.')[0]
        yield name
