"""Files in the runtimes."""

import sys

import numpy as np
import pytest

pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.deploy.runtime import RunningFile, Runtime

NAMES = 'onnxruntime', 'openvino'


@pytest.fixture
def model(net):
    made = net()
    return made.model(made.node('Relu', made.conv('images', made.dense(8, 3, 3))))


@pytest.fixture
def file(model, tmp_path):
    model.metadata_props.update(runtime='openvino', precision='bf16')
    ir.save(model, tmp_path / 'net.onnx')
    return tmp_path / 'net.onnx'


@pytest.mark.parametrize('name', NAMES)
def test_both_compute_the_same(model, run, assert_same, name):
    pytest.importorskip(name)
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 7), np.float32)
    compute, _ = Runtime(name, threads=1).open(model)
    expected = run(model, images)
    assert_same(dict(zip(expected, compute({'images': images}), strict=True)), expected)


def test_bf16_is_coarser(model, run):
    pytest.importorskip('openvino')
    runtime = Runtime('openvino', 'bf16')
    if not runtime.is_native:
        pytest.skip('this CPU has no bfloat16')
    images = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)
    (found,), (expected,) = runtime.open(model)[0]({'images': images}), run(model, images).values()
    assert 1e-4 < np.abs(found - expected).max() / np.abs(expected).max() < 0.05


def test_a_file_says_what_it_was_made_for(file, tmp_path):
    assert Runtime.of_file(file) == Runtime('openvino', 'bf16')
    other = ir.load(file)
    other.metadata_props.clear()
    ir.save(other, tmp_path / 'other.onnx')
    assert Runtime.of_file(tmp_path / 'other.onnx') == Runtime('onnxruntime', 'fp32')


@pytest.mark.parametrize(
    ('name', 'precision', 'complaint'),
    [
        ('onnxruntime', 'bf16', 'precision bf16 in onnxruntime, expected fp32 or int8'),
        ('openvino', 'fp64', 'precision fp64 in openvino, expected fp32 or bf16 or int8'),
    ],
)
def test_a_precision_that_a_runtime_lacks_is_named(name, precision, complaint):
    with pytest.raises(ValueError, match=complaint):
        Runtime(name, precision).check()


def test_a_runtime_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'openvino', None)
    with pytest.raises(ImportError, match=r"pip install 'mmdet_groupconv\[openvino\]'"):
        Runtime('openvino').check()


@pytest.mark.parametrize('name', NAMES)
def test_files_that_are_none_are_named(tmp_path, name):
    pytest.importorskip(name)
    (tmp_path / 'text.onnx').write_text('no graph')
    for read in (Runtime.of_file, lambda path: RunningFile(path, Runtime(name))):
        with pytest.raises(FileNotFoundError, match=r'no\.onnx not found'):
            read(tmp_path / 'no.onnx')
        with pytest.raises(ValueError, match=r'text\.onnx'):
            read(tmp_path / 'text.onnx')
