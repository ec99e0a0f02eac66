"""Puts configs and tools into the package as ``.mim``, where MMEngine and mim look for them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT = Path(__file__).resolve().parent
SHIPPED = 'configs', 'tools', 'model-index.yml'


class BuildWithConfigs(build_py):
    """Copies them into a wheel; where the package is used in place, links them."""

    def run(self) -> None:
        super().run()
        root = PROJECT if self.editable_mode else Path(self.build_lib)
        mim = root / 'mmdet_groupconv' / '.mim'
        if mim.exists():
            shutil.rmtree(mim)
        mim.mkdir(parents=True)
        for name in SHIPPED:
            source = PROJECT / name
            if self.editable_mode:
                (mim / name).symlink_to(Path('..', '..', name), source.is_dir())
            elif source.is_dir():
                shutil.copytree(source, mim / name, ignore=shutil.ignore_patterns('__pycache__'))
            else:
                shutil.copy(source, mim / name)


setup(cmdclass=dict(build_py=BuildWithConfigs))
