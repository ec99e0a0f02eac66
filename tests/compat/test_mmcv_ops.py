"""The choice of operators, and imports in any order, in fresh interpreters."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mmdet_groupconv.compat import ensure_mmcv_ops

ROOT = Path(__file__).resolve().parents[2]
IN_USE = ensure_mmcv_ops()
without_compiled_ops = pytest.mark.skipif(
    IN_USE == 'mmcv ops: compiled', reason='mmcv has compiled ops: no stand-in is installed'
)


def run(code, *arguments):
    """Run ``code`` in a fresh interpreter; returns what it printed, the log included."""
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


EVERYTHING_WORKS = """
from mmdet_groupconv.compat import ensure_mmcv_ops
assert ensure_mmcv_ops() == ensure_mmcv_ops()

import mmdet.apis, mmdet.models, numpy as np, torch
from mmdet.models import FasterRCNN, RetinaNet
from mmdet.structures.mask import BitmapMasks

boxes = torch.tensor([[0., 0, 4, 4], [0, 0, 4, 5], [8, 8, 9, 9]])
scores, classes = torch.tensor([.9, .8, .7]), torch.tensor([0, 0, 1])
for module in (mmdet.models.layers.bbox_nms, mmdet.models.dense_heads.base_dense_head):
    _, kept = module.batched_nms(boxes, scores, classes, {'type': 'nms', 'iou_threshold': .5})
    assert kept.tolist() == [0, 2], kept
masks = BitmapMasks(np.array([[[0, 0, 1, 1]] * 4], dtype=np.uint8), 4, 4)
crops = masks.crop_and_resize(boxes[:1].numpy(), (4, 4), np.array([0]))
assert (crops.masks == masks.masks).all(), crops.masks
if hasattr(mmdet.models.dense_heads, 'clr_head'):  # OneDL's MMDetection has it
    assert mmdet.models.dense_heads.clr_head.clr_head.nms.__name__ == 'line_nms'
from mmcv.cnn.bricks.transformer import MultiScaleDeformableAttention
"""


# What is imported first, each in a copy of an interpreter that has what takes long alone.
COPIES = """
import os, sys
import torch, torchvision
firsts, everything_works = sys.argv[1:-1], sys.argv[-1]
for first in firsts:
    copy = os.fork()
    if not copy:
        try:
            exec(first, {})
        except ImportError:
            pass
        exec(everything_works, {})
        os._exit(0)
    assert os.waitpid(copy, 0)[1] == 0, first
"""


@without_compiled_ops
def test_detectors_import_and_run_whatever_was_imported_first():
    firsts = (
        'import mmdet_groupconv.compat',
        'import mmdet.utils.large_image',
        'import mmdet.models',
        'from mmdet.structures.mask import BitmapMasks',
        'import mmcv.ops',
    )
    run(COPIES, *firsts, EVERYTHING_WORKS)


@without_compiled_ops
def test_installing_writes_one_line_and_no_warning_about_missing_ops():
    done = run(
        'from mmdet_groupconv.compat import ensure_mmcv_ops\n'
        'ensure_mmcv_ops(), ensure_mmcv_ops()\n'
        'import mmdet.models'
    )

    assert done.stdout.count('mmcv ops') == done.stdout.count(IN_USE) == 1
    assert 'not compiled' not in done.stdout + done.stderr
    assert 'MultiScaleDeformableAttention' not in done.stderr


PATCHED_EXT = """
import sys
import mmcv
mmcv.__path__.insert(0, sys.argv[1])
try:
    from mmdet_groupconv.compat import ensure_mmcv_ops
    print(ensure_mmcv_ops(), sys.modules['mmcv._ext'].torch_came_first)
except ImportError as error:
    print('refused:', error)
"""
LOADABLE_EXT = """
import sys
torch_came_first = 'torch' in sys.modules
def __getattr__(name):
    if name.startswith('_'):
        raise AttributeError(name)
    return print
"""


def test_compiled_ops_are_used_untouched(tmp_path):
    (tmp_path / '_ext.py').write_text(LOADABLE_EXT)

    assert 'mmcv ops: compiled True' in run(PATCHED_EXT, tmp_path).stdout


def test_compiled_ops_that_do_not_load_are_an_error_with_file_cause_and_remedy(tmp_path):
    (tmp_path / '_ext.py').write_text('raise ImportError("undefined symbol: _ZN2at")')

    message = run(PATCHED_EXT, tmp_path).stdout

    assert message.startswith('refused:')
    for part in (tmp_path / '_ext.py', 'undefined symbol: _ZN2at', 'make mmcv-ops', 'reinstall'):
        assert str(part) in message


@without_compiled_ops
def test_the_stand_in_is_found_as_a_module_by_the_checks_of_mmcv_and_mmengine():
    import mmcv
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert find_spec('mmcv._ext').loader is not None
    assert check_ops_exist()
    assert mmcv_full_available()
    assert mmcv._ext is sys.modules['mmcv._ext']


@without_compiled_ops
def test_an_operator_the_stand_in_lacks_is_refused_at_its_call_with_the_remedy():
    from mmcv.ops import RoIPool

    with pytest.raises(NotImplementedError, match=r'roi_pool_forward .*make mmcv-ops'):
        RoIPool(2)(torch.zeros(1, 1, 3, 3), torch.zeros(1, 5))


@without_compiled_ops
@pytest.mark.parametrize('name', ['_private', '__path__', '__all__'])
def test_the_stand_in_has_no_underscore_names_of_its_own_making(name):
    assert not hasattr(sys.modules['mmcv._ext'], name)


@without_compiled_ops
def test_collect_env_says_that_torchvision_stands_in():
    from mmcv.utils import collect_env

    assert 'torchvision' in collect_env()['MMCV Compiler']


def test_mmcv_soft_nms_returns_its_documented_example():
    from mmcv.ops import soft_nms

    boxes = torch.tensor(
        [[4.0, 3, 5, 3], [4, 3, 5, 4], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1], [3, 1, 3, 1]]
    )
    scores = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4, 0.0])

    dets, inds = soft_nms(boxes, scores, iou_threshold=0.6, sigma=0.5)

    assert len(dets) == len(inds) == 5


def test_mmcv_roi_align_passes_gradcheck():
    from mmcv.ops import roi_align

    feature = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 0.3, 0.7, 4.1, 3.2]], dtype=torch.float64)

    assert torch.autograd.gradcheck(lambda f: roi_align(f, rois, (2, 2), 1.0, 2), (feature,))


def test_mmcv_focal_loss_has_the_value_and_gradient_of_mmdets_python_version():
    from mmcv.ops import sigmoid_focal_loss
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    if IN_USE == 'mmcv ops: compiled' and not torch.cuda.is_available():
        pytest.skip('the compiled sigmoid_focal_loss runs on CUDA alone')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    logits = torch.randn(5, 3, device=device, requires_grad=True)
    target = torch.tensor([0, 3, 2, 1, 3], device=device)
    hot = torch.nn.functional.one_hot(target, 4)[:, :3]

    loss = sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum')
    expected = py_sigmoid_focal_loss(logits, hot, reduction='sum')

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)
    )
