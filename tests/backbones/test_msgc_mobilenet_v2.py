import json

import pytest
import torch
from mmdet.models.backbones import MobileNetV2
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.backbones import MSGCMobileNetV2
from mmdet_groupconv.backbones.msgc_mobilenet_v2 import MSGCInvertedResidual
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.layers import (
    AttentionGenerator,
    GateNet,
    GroupedConv2d,
    MaskGenerator,
)
from mmdet_groupconv.macs import MacMeter

INVERTED = pytest.mark.parametrize('golden_msgc_block', [6, 7], indirect=True)
ATTENTION = pytest.mark.parametrize('attention', [False, True])


def make(seed=0, **kwargs):
    torch.manual_seed(seed)
    return MSGCMobileNetV2(**dict(dict(widen_factor=0.25), **kwargs))


def images(batch=2, size=64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def nets(model, net_type=GateNet):
    return {name: m for name, m in model.named_modules() if isinstance(m, net_type)}


def make_gates_vary(model):
    """Masks that are half open and depend on the image, and attention that is not 1."""
    torch.manual_seed(1)
    for net in nets(model).values():
        is_mask = isinstance(net, MaskGenerator)
        nn.init.normal_(net.conv[3].weight, std=1.0 if is_mask else 0.05)
        nn.init.constant_(net.conv[3].bias, 0.0 if is_mask else 1.0)


# Exactness: the published blocks and networks.


@INVERTED
def test_block_output_is_the_published_one(golden_msgc_block):
    case, block = golden_msgc_block
    torch.testing.assert_close(block(case['x']), case['y'], atol=1e-5, rtol=1e-5)


@INVERTED
def test_block_gate_is_the_published_one(golden_msgc_block):
    case, block = golden_msgc_block
    gates = []
    block.linear_conv.conv.register_gate_hook(lambda layer, gate, x, y: gates.append(gate))
    block(case['x'])
    assert torch.equal(gates[0].mask, case['masks']['maskgen'])
    assert (gates[0].strength is not None) is case['attention']
    if case['attention']:
        torch.testing.assert_close(
            gates[0].strength, case['attentions']['attgen'], atol=1e-5, rtol=1e-5
        )


@INVERTED
def test_block_macs_are_the_published_ones(golden_msgc_block):
    case, block = golden_msgc_block
    with MacMeter(block) as meter:
        block(case['x'])
    macs = meter.take()
    assert float(macs.masked) == pytest.approx(case['macs_masked'], rel=1e-6)
    assert float(macs.unread) == pytest.approx(case['macs_bonus'], rel=1e-6)


@pytest.fixture(scope='module', params=['msgc_mobilenetv2', 'msgc_mobilenetv2_att'])
def published(request, golden):
    """The reference's figures and our network of the same name."""
    reference = json.loads((golden / 'reference_models.json').read_text())[request.param]
    backbone = MSGCMobileNetV2(attention=request.param.endswith('_att'), out_indices=(7,))
    return reference, ImageClassifier(backbone, 1000)


def test_macs_are_the_published_ones_to_the_unit(published):
    reference, network = published
    macs = count_macs(network, (224, 224))
    assert macs.original == reference['original_macs']
    assert macs.always_on == reference['always_on_macs']
    assert macs.masked == reference['masked_macs_at_full_density']
    assert macs.gate_nets == reference['mask_generator_macs']
    assert macs.unread == 0


def test_number_of_parameters_is_the_published_one(published):
    reference, network = published
    assert sum(p.numel() for p in network.parameters()) == reference['parameters']


def test_state_dict_has_the_published_shapes_in_order(published):
    reference, network = published
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}

    def of_gates(shapes):
        return [shape for key, shape in shapes.items() if 'gen.' in key]

    def of_others(shapes):
        return [shape for key, shape in shapes.items() if 'gen.' not in key]

    assert of_gates(ours) == of_gates(reference['state_dict'])
    assert of_others(ours) == of_others(reference['state_dict'])


# The host's arguments.


def test_is_built_by_name():
    model = MODELS.build(dict(type='MSGCMobileNetV2', widen_factor=0.25))
    assert type(model) is MSGCMobileNetV2
    assert isinstance(model, MobileNetV2)


@pytest.mark.parametrize(
    'variant',
    [
        {},
        dict(widen_factor=0.5),
        dict(act_cfg=dict(type='LeakyReLU')),
        dict(norm_cfg=dict(type='GN', num_groups=4)),
        dict(norm_cfg=None),
        dict(out_indices=(0, 7)),
    ],
    ids=str,
)
@torch.no_grad()
def test_open_gates_equal_the_dense_host(variant):
    torch.manual_seed(0)
    dense = MobileNetV2(**dict(dict(widen_factor=0.25), **variant))
    ours = make(**variant).eval()
    ours.load_state_dict(dense.state_dict(), strict=False)
    for net in nets(ours, MaskGenerator).values():
        nn.init.constant_(net.conv[3].bias, 1e6)
    dense.eval()
    for out, expected in zip(ours(images()), dense(images()), strict=True):
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_closed_gates_leave_the_shortcut_and_the_norms_shift():
    block = make().eval().layer3[1]
    nn.init.constant_(block.maskgen.conv[3].bias, -1e6)
    x = torch.randn(2, 8, 8, 8)
    # norms are at their start: mean 0 and bias 0, so that nothing read gives 0
    torch.testing.assert_close(block(x), x)


def test_block_honours_squeeze_excitation_and_drop_path():
    options = dict(se_cfg=dict(channels=16, ratio=4), drop_path_rate=0.5)
    torch.manual_seed(0)
    dense = InvertedResidual(8, 8, 16, **options)
    ours = MSGCInvertedResidual(8, 8, 16, heads=2, attention=False, **options)
    ours.load_state_dict(dense.state_dict(), strict=False)
    ours.maskgen.conv[3].bias.data.fill_(1e6)
    x, outputs = torch.randn(4, 8, 6, 6), []
    for block in (ours, dense):
        for norm in block.modules():
            norm.train(isinstance(norm, type(block.drop_path)))
        torch.manual_seed(1)
        outputs.append(block(x))
    torch.testing.assert_close(*outputs)
    assert ours.readers == {}


@ATTENTION
def test_dense_weights_lack_only_the_gate_nets(attention):
    model = make(attention=attention)
    keys = model.load_state_dict(MobileNetV2(widen_factor=0.25).state_dict(), strict=False)
    expected = {f'{name}.{key}' for name, net in nets(model).items() for key in net.state_dict()}
    # torch fills this one in for weights older than the counter
    expected = {key for key in expected if not key.endswith('num_batches_tracked')}
    assert keys.unexpected_keys == []
    assert set(keys.missing_keys) == expected


def test_only_projecting_convolutions_are_grouped():
    grouped = {n for n, m in make().named_modules() if isinstance(m, GroupedConv2d)}
    # 1 + 2 + 3 + 4 + 3 + 3 + 1 blocks, the first without expansion too
    assert len(grouped) == 17
    assert all(name.endswith('linear_conv.conv') for name in grouped)


@ATTENTION
def test_attention_nets_are_in_every_block(attention):
    assert len(nets(make(attention=attention), AttentionGenerator)) == (17 if attention else 0)


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(heads=3), ValueError, 'heads=3 does not divide out_channels=8 of a linear_conv'),
        (dict(heads=0), ValueError, 'heads=0 of MSGCMobileNetV2, expected an integer'),
        (dict(heads=2.0), ValueError, 'heads=2.0 of MSGCMobileNetV2, expected an integer'),
        (dict(head=2), TypeError, "MSGCMobileNetV2 .* 'head', did you mean 'heads'"),
        (dict(conv_cfg=dict(type='Conv2d')), ValueError, 'conv_cfg=.* of MSGCMobileNetV2'),
    ],
)
def test_error_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


# Initialisation and training.


def test_default_initialisation_keeps_the_gates_start():
    model = make(attention=True)
    model.init_weights()
    for net in nets(model, MaskGenerator).values():
        assert net.conv[3].bias.unique().tolist() == [2.0]
    for net in nets(model, AttentionGenerator).values():
        assert net.conv[3].bias.unique().tolist() == [1.0]
        assert net.conv[3].weight.count_nonzero() == 0


def test_grouped_convolutions_are_he_initialised():
    model = make(widen_factor=1.0)
    conv = model.layer7[0].linear_conv.conv
    nn.init.zeros_(conv.weight)
    model.init_weights()
    # mmengine's Kaiming: fan_out = 320 filters, gain sqrt(2)
    assert conv.weight.std().item() == pytest.approx((2 / 320) ** 0.5, rel=0.02)


@ATTENTION
def test_every_parameter_gets_a_gradient(attention):
    model = make(attention=attention).train()
    sum(out.square().mean() for out in model(images())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'
        assert parameter.grad.isfinite().all(), f'gradient for {name} is not finite'


def test_gate_nets_learn_from_the_mac_ratio_alone():
    model = make().train()
    with MacMeter(model) as meter:
        model(images())
    meter.take().ratio.backward()
    for name, net in nets(model).items():
        assert (net.conv[3].bias.grad > 0).all(), f'opening {name} further should cost more'


def test_checkpointing_changes_no_gradient():
    gradients = []
    for with_cp in (False, True):
        model = make(with_cp=with_cp, attention=True).train()
        make_gates_vary(model)
        torch.manual_seed(3)
        with MacMeter(model) as meter:
            outputs = model(images(4).requires_grad_())
            ratio = meter.take().ratio
            (sum(out.square().mean() for out in outputs) + ratio).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[1].items():
        torch.testing.assert_close(
            gradient, gradients[0][name], msg=lambda text, name=name: f'{name}: {text}'
        )


def test_checkpointing_recomputes_convolutions_but_draws_gates_once():
    block = make(with_cp=True).train().layer2[0]
    counts = dict(conv=0, mask=0)
    block.linear_conv.conv.register_gate_hook(lambda *_: counts.update(conv=counts['conv'] + 1))
    block.maskgen.register_forward_hook(lambda *_: counts.update(mask=counts['mask'] + 1))
    block(torch.randn(2, 8, 8, 8, requires_grad=True)).sum().backward()
    assert counts == dict(conv=2, mask=1)


def test_frozen_stage_freezes_its_gate_nets():
    model = make(frozen_stages=2).train()
    for name, net in nets(model).items():
        frozen = name.startswith(('layer1', 'layer2'))
        assert all(p.requires_grad is not frozen for p in net.parameters()), name
        assert all(m.training is not frozen for m in net.modules()), name


def test_norm_eval_trains_on_one_image():
    model = make(norm_eval=True).train()
    sum(out.square().mean() for out in model(images(1))).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gates_of_each_image_by_itself_need_no_batch():
    model = make(over_batch=False, norm_cfg=None).train()
    sum(out.square().mean() for out in model(images(1))).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_one_image_without_norm_eval_raises():
    with pytest.raises(ValueError, match='gate nets in training mode got a batch of 1 image'):
        make().train()(images(1))


def test_gates_are_each_images_own():
    model = make(attention=True).eval()
    make_gates_vary(model)
    together = model(images(3))
    for index, x in enumerate(images(3).split(1)):
        for batch, alone in zip(together, model(x), strict=True):
            torch.testing.assert_close(batch[index : index + 1], alone, atol=1e-4, rtol=1e-4)
