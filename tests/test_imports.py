"""Rooms import rooms below them alone, and the layers PyTorch alone."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import mmdet_groupconv

ROOT = Path(mmdet_groupconv.__file__).parent
# From the ground up; rooms of one floor may import each other in the order in which they stand.
FLOORS = [
    ['compat', 'layers'],
    ['arguments', 'conv_cfg', 'registry', 'backbones', 'heads', 'macs'],
    ['checkpoints', 'classification', 'datasets', 'grouping', 'compiler', 'deploy', 'inference'],
    ['engine'],
    ['benchmark', 'analysis'],
]
ORDER = [room for floor in FLOORS for room in floor]


def imported(path: Path) -> Iterator[str]:
    """Modules by their absolute names."""
    package = ('mmdet_groupconv', *path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = '.'.join(package[: len(package) - node.level + 1])
            yield f'{base}.{node.module}' if node.module else f'{base}.{node.names[0].name}'
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def files_of(room: str) -> list[Path]:
    single = ROOT / f'{room}.py'
    return [single] if single.is_file() else sorted((ROOT / room).rglob('*.py'))


def test_every_room_has_its_place():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == '.py' or path.is_dir()}
    assert rooms - {'__init__', '__pycache__', '.mim'} == set(ORDER)


def test_a_room_imports_what_stands_before_it():
    for number, room in enumerate(ORDER):
        allowed = {*ORDER[: number + 1], '__version__'}
        for path in files_of(room):
            for module in imported(path):
                if module.startswith('mmdet_groupconv.'):
                    assert module.split('.')[1] in allowed, f'{room}/{path.name} imports {module}'


def test_the_layers_need_pytorch_alone():
    for path in files_of('layers'):
        for module in imported(path):
            name = module.split('.')[0]
            known = name in ('torch', 'mmdet_groupconv') or name in sys.stdlib_module_names
            assert known, f'{path.name} imports {module}'
