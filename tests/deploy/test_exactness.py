"""Whether a file gives what the network gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.deploy import exactness
from mmdet_groupconv.deploy.exactness import check_runtime


def check_bf16(monkeypatch, *off):
    """The check of a file in bf16 that is as far off as that, on an image each."""
    monkeypatch.setattr(exactness, 'by_definition', lambda model, inputs: [np.ones(3)])

    def differences(expected, found):
        return [np.abs(x - y) for x, y in zip(expected, found, strict=True)]

    runtime = SimpleNamespace(
        name='openvino',
        precision='bf16',
        open=lambda model: (lambda inputs: [np.ones(3) + inputs['images']], {}),
    )
    part = SimpleNamespace(differences=differences)
    images = [torch.full((1,), x, dtype=torch.float64) for x in off]
    check_runtime('it.onnx', 'file', 'graph', None, runtime, part, images, 0.004)


def test_a_file_in_bf16_may_be_off_by_rounding(monkeypatch):
    check_bf16(monkeypatch, 0.019)


def test_one_image_of_several_decides_nothing(monkeypatch):
    check_bf16(monkeypatch, 0.019, 0.2, 0.001)
    with pytest.raises(ValueError, match=r'is off by 2\.1e-02'):
        check_bf16(monkeypatch, 0.021, 0.2, 0.001)


@pytest.mark.parametrize('off', [0.021, 0.03, 0.11, np.nan])
def test_a_file_that_is_further_off_is_an_error(monkeypatch, off):
    with pytest.raises(ValueError, match=r'it\.onnx is off by .* in openvino in bf16'):
        check_bf16(monkeypatch, off)
