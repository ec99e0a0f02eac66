import pytest
import torch
from torch import nn

from mmdet_groupconv.benchmark.dense import AbsentError, compiled, in_onnxruntime


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()


def test_onnxruntime_computes_the_same_for_any_batch():
    pytest.importorskip('onnxruntime')
    model = network()
    run = in_onnxruntime(model, torch.randn(1, 3, 9, 12))
    x = torch.randn(3, 3, 9, 12)
    torch.testing.assert_close(run(x)[0], model(x).detach())


def test_what_can_not_be_exported_is_absent():
    pytest.importorskip('onnxruntime')

    class Unknown(nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(AbsentError, match='export to ONNX'):
        in_onnxruntime(Unknown(), torch.randn(1, 1, 4, 4))


def test_the_compiler_gets_the_very_size_without_gradients_and_frozen(monkeypatch):
    from torch._inductor import config

    seen = []

    def compiler(model, **options):
        def run(x):
            seen.append((tuple(x.shape), torch.is_grad_enabled(), config.freezing, options))
            return model(x)

        return run

    monkeypatch.setattr(torch, 'compile', compiler)
    x = torch.randn(2, 3, 9, 12)
    run = compiled(network(), x)
    run(x)
    assert seen == [((2, 3, 9, 12), False, True, {'dynamic': False})] * 2


def test_a_compiler_that_fails_is_absent(monkeypatch):
    def compiler(model, **options):
        def run(x):
            raise RuntimeError('no compiler')

        return run

    monkeypatch.setattr(torch, 'compile', compiler)
    with pytest.raises(AbsentError, match=r'torch\.compile: RuntimeError'):
        compiled(network(), torch.randn(1, 3, 9, 9))
