import pytest
import torch
from mmdet.models.backbones import MobileNetV2
from mmdet.registry import MODELS

from mmdet_groupconv.backbones import DGCMobileNetV2, MSGCMobileNetV2, TrimmedMobileNetV2
from mmdet_groupconv.layers import DGCConv2d

WITHOUT_LAST = dict(widen_factor=0.25, out_indices=(1, 2, 4, 6))


def images(batch=2):
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('out_indices', [(1, 2, 4, 6), (0, 3), (1, 2, 4, 7)])
def test_outputs_are_the_dense_parents(out_indices):
    dense = MobileNetV2(widen_factor=0.25, out_indices=out_indices)
    ours = TrimmedMobileNetV2(widen_factor=0.25, out_indices=out_indices).eval()
    ours.load_state_dict(dense.state_dict(), strict=False)
    dense.eval()
    outputs = ours(images())
    assert len(outputs) == len(out_indices)
    assert all(torch.equal(a, b) for a, b in zip(outputs, dense(images()), strict=True))


@pytest.mark.parametrize('network', [TrimmedMobileNetV2, DGCMobileNetV2, MSGCMobileNetV2])
def test_last_convolution_is_gone_where_nobody_reads_it(network):
    model = network(**WITHOUT_LAST)
    keys = model.load_state_dict(MobileNetV2(widen_factor=0.25).state_dict(), strict=False)
    assert not hasattr(model, 'conv2')
    assert {key.split('.')[0] for key in keys.unexpected_keys} == {'conv2'}


def test_everything_is_kept_where_the_last_output_is_used():
    ours, dense = TrimmedMobileNetV2(), MobileNetV2()
    assert ours.state_dict().keys() == dense.state_dict().keys()


def test_every_parameter_gets_a_gradient():
    model = TrimmedMobileNetV2(**WITHOUT_LAST).train()
    sum(out.square().mean() for out in model(images())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'


def test_is_built_by_name():
    assert type(MODELS.build(dict(type='TrimmedMobileNetV2'))) is TrimmedMobileNetV2


@pytest.mark.parametrize('mode', [True, False])
def test_train_and_eval_return_the_model(mode):
    model = TrimmedMobileNetV2(**WITHOUT_LAST)
    assert model.train(mode) is model
    assert model.eval() is model


def test_last_convolution_is_grouped_by_methods_of_the_layer_alone():
    assert isinstance(DGCMobileNetV2(widen_factor=0.25).conv2.conv, DGCConv2d)
    assert type(MSGCMobileNetV2(widen_factor=0.25).conv2.conv) is torch.nn.Conv2d


def test_all_stages_that_are_left_can_be_frozen():
    model = TrimmedMobileNetV2(**WITHOUT_LAST, frozen_stages=7).train()
    assert not any(p.requires_grad for p in model.parameters())


def test_stages_that_are_gone_can_not_be_frozen():
    with pytest.raises(ValueError, match=r'frozen_stages=4 of TrimmedMobileNetV2 .* 3 or less'):
        TrimmedMobileNetV2(out_indices=(1, 2), frozen_stages=4)
