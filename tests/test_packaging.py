"""What is installed: the index of configs, and a wheel that carries them."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.fileio import load

PROJECT = Path(__file__).resolve().parents[1]
METAFILES = [load(PROJECT / name) for name in load(PROJECT / 'model-index.yml')['Import']]
MODELS = [model for metafile in METAFILES for model in metafile['Models']]
CONFIGS = sorted(
    str(path.relative_to(PROJECT))
    for path in PROJECT.glob('configs/*/*.py')
    if path.parent.name != '_base_'
)


def test_the_index_lists_every_config_once():
    assert sorted(model['Config'] for model in MODELS) == CONFIGS
    assert all(model['Name'] == Path(model['Config']).stem for model in MODELS)


def test_metafiles_are_those_of_make_metafiles():
    spec = importlib.util.spec_from_file_location('metafiles', PROJECT / '.ci/metafiles.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.metafiles().items():
        assert path.read_text() == text, path


def test_every_model_belongs_to_a_collection():
    names = {item['Name'] for metafile in METAFILES for item in metafile.get('Collections', ())}
    assert {model['In Collection'] for model in MODELS} == names


def pip(command, *arguments):
    offline = ['--no-deps', '--no-index', '--no-build-isolation', '--disable-pip-version-check']
    line = [sys.executable, '-m', 'pip', command, *offline, *arguments]
    subprocess.run(line, check=True, capture_output=True)


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with the package from a wheel, apart from the project's own."""
    folder = tmp_path_factory.mktemp('wheel')
    pip('wheel', '-w', folder, PROJECT)
    target = folder / 'site'
    pip('install', '--target', target, next(folder.glob('*.whl')))
    return target


CONFIG = """
_base_ = 'mmdet_groupconv::demo/retinanet_msgc-r18_scenes.py'
images = dict(num_images=2, image_size=64)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=images)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=images)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
"""


@pytest.mark.slow
def test_a_config_of_the_installed_package_trains_by_its_name(installed, tmp_path):
    (tmp_path / 'mine.py').write_text(CONFIG)
    env = dict(os.environ, PYTHONPATH=str(installed))
    tool = installed / 'mmdet_groupconv/.mim/tools/train.py'
    command = [sys.executable, tool, 'mine.py', '--work-dir', 'work_dir']
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    checkpoint = torch.load(tmp_path / 'work_dir/epoch_1.pth', weights_only=False)
    assert any('maskgen' in key for key in checkpoint['state_dict'])


@pytest.mark.slow
def test_the_wheel_carries_tools_and_no_tests(installed):
    shipped = installed / 'mmdet_groupconv/.mim'
    assert (shipped / 'tools/train.py').is_file()
    assert (shipped / 'model-index.yml').read_text() == (PROJECT / 'model-index.yml').read_text()
    assert not (installed / 'tests').exists()


FIND = """
import site, sys
from importlib.util import find_spec
site.addsitedir(sys.argv[1])
print(find_spec('mmdet_groupconv').origin)
"""


@pytest.mark.slow
def test_an_editable_install_is_found_from_the_folder_above_the_clone(tmp_path):
    clone = tmp_path / 'mmdet_groupconv'
    clone.mkdir()
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(PROJECT / name, clone)
    for name in ('mmdet_groupconv', 'configs', 'tools'):
        shutil.copytree(PROJECT / name, clone / name, symlinks=True)
    pip('install', '--target', tmp_path / 'site', '--editable', clone)
    line = [sys.executable, '-SE', '-c', FIND, tmp_path / 'site']  # none of this environment's
    found = subprocess.run(line, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(clone / 'mmdet_groupconv/__init__.py')
