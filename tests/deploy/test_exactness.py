"""Whether a file gives what the network gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

from mmdet_groupconv.deploy import exactness
from mmdet_groupconv.deploy.exactness import check_runtime


def check_bf16(monkeypatch, file, graph):
    """The check of a file in bf16 that is as far off as that, and so is the graph before it."""
    off = dict(file=file, graph=graph)
    monkeypatch.setattr(exactness, 'by_definition', lambda model, inputs: [np.ones(3)])

    def differences(expected, found):
        return [np.abs(x - y) for x, y in zip(expected, found, strict=True)]

    runtime = SimpleNamespace(
        name='openvino',
        precision='bf16',
        open=lambda model: (lambda inputs: [np.ones(3) + off[model]], {}),
    )
    part = SimpleNamespace(differences=differences)
    check_runtime('it.onnx', 'file', 'graph', None, runtime, part, torch.zeros(1), 0.004)


@pytest.mark.parametrize(('file', 'graph'), [(0.019, 0.0), (0.03, 0.016), (0.09, 0.05)])
def test_a_file_may_be_off_by_what_its_precision_is(monkeypatch, file, graph):
    check_bf16(monkeypatch, file, graph)


@pytest.mark.parametrize(
    ('file', 'graph'), [(0.021, 0.0), (0.03, 0.014), (0.11, 0.11), (np.nan, 0.05)]
)
def test_a_file_that_is_further_off_is_an_error(monkeypatch, file, graph):
    with pytest.raises(ValueError, match=r'it\.onnx is off by .* in openvino in bf16'):
        check_bf16(monkeypatch, file, graph)
