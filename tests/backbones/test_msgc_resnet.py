import copy
import json

import pytest
import torch
import torchvision
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.backbones import MSGCResNet
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.layers import AttentionGenerator, GateNet, MaskGenerator
from mmdet_groupconv.macs import MacMeter

PUBLISHED = ['msgc_resnet18', 'msgc_resnet18_att', 'msgc_resnet50', 'msgc_resnet50_att']
VARIANTS = {
    'plain': {},
    'deep_stem': dict(deep_stem=True),
    'avg_down': dict(avg_down=True),
    'caffe': dict(style='caffe'),
    'dilated': dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    'out_indices': dict(out_indices=(1, 3)),
    'two stages': dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    'wide stem': dict(stem_channels=24, in_channels=3),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=4)),
}
CONTEXT = dict(type='ContextBlock', ratio=1 / 4)


def make(depth=18, seed=0, **kwargs):
    torch.manual_seed(seed)
    return MSGCResNet(depth, **dict(dict(base_channels=16), **kwargs))


def images(batch=2, size=64, seed=0):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def nets(model, net_type=GateNet):
    return {name: m for name, m in model.named_modules() if isinstance(m, net_type)}


def last_biases(model, net_type=MaskGenerator):
    return torch.cat([net.conv[3].bias for net in nets(model, net_type).values()])


def fill_gate_biases(model, value):
    for net in nets(model, MaskGenerator).values():
        nn.init.constant_(net.conv[3].bias, value)


def make_gates_vary(model):
    """Masks that are half open and depend on the image, and attention that is not 1."""
    torch.manual_seed(1)
    fill_gate_biases(model, 0.0)
    for net in nets(model).values():
        std = 1.0 if isinstance(net, MaskGenerator) else 0.05
        nn.init.normal_(net.conv[3].weight, std=std)


def make_norms_vary(model):
    torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, _BatchNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def train_step(model, x):
    """Gradients of the outputs' squares and the MAC ratio, by parameter name."""
    torch.manual_seed(3)
    with MacMeter(model) as meter:
        outputs = model(x)
        loss = sum(out.float().square().mean() for out in outputs) + meter.take().ratio
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


# Exactness: the published blocks and networks.


@pytest.mark.parametrize('golden_msgc_block', range(6), indirect=True)
def test_block_output_is_the_published_one(golden_msgc_block):
    case, block = golden_msgc_block
    torch.testing.assert_close(block(case['x']), case['y'], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('golden_msgc_block', range(6), indirect=True)
def test_block_gates_are_the_published_ones(golden_msgc_block):
    case, block = golden_msgc_block
    gates = dict(zip('123', block.gates(case['x']), strict=False))
    for name, mask in case['masks'].items():
        assert torch.equal(gates[name[-1]].mask, mask), name
    strengths = {f'attgen{n}' for n, gate in gates.items() if gate.strength is not None}
    assert strengths == set(case['attentions'])
    for name, attention in case['attentions'].items():
        torch.testing.assert_close(
            gates[name[-1]].strength, attention, atol=1e-5, rtol=1e-5, msg=name
        )


@pytest.fixture(scope='module', params=PUBLISHED)
def published(request, golden):
    """The reference's figures and our network of the same name."""
    reference = json.loads((golden / 'reference_models.json').read_text())[request.param]
    depth, attention = int(request.param[11:13]), request.param.endswith('_att')
    return reference, ImageClassifier(MSGCResNet(depth, attention=attention), 1000)


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


def test_state_dict_has_the_published_keys_and_shapes(published):
    reference, network = published
    shapes = {k.removeprefix('backbone.'): list(v.shape) for k, v in network.state_dict().items()}
    assert shapes == reference['state_dict']


# The host's arguments.


def test_is_built_by_name():
    model = MODELS.build(dict(type='MSGCResNet', depth=18, base_channels=16))
    assert type(model) is MSGCResNet
    assert isinstance(model, ResNet)


def test_convolution_is_found_outside_of_mmdets_scope():
    assert ROOT_MODELS.get('GroupedConv2d') is not None


@torch.no_grad()
def test_output_shapes():
    for depth in (18, 34, 50, 101, 152):
        expansion = 1 if depth < 50 else 4
        outputs = make(depth).eval()(images(1))
        # strides 4, 8, 16, 32 of 64 pixels; channels 16, 32, 64, 128 times the expansion
        expected = [(1, 16 * 2**i * expansion, 16 // 2**i, 16 // 2**i) for i in range(4)]
        assert [tuple(out.shape) for out in outputs] == expected, depth


@pytest.mark.parametrize('variant', VARIANTS)
@torch.no_grad()
def test_open_gates_equal_the_dense_host(variant):
    for depth in (18, 50):
        torch.manual_seed(0)
        dense = ResNet(depth, base_channels=16, **VARIANTS[variant])
        make_norms_vary(dense)
        dense.eval()
        ours = make(depth, **VARIANTS[variant]).eval()
        ours.load_state_dict(dense.state_dict(), strict=False)
        fill_gate_biases(ours, 1e6)
        for out, dense_out in zip(ours(images()), dense(images()), strict=True):
            assert torch.allclose(out, dense_out, atol=1e-5, rtol=1e-5), depth


@pytest.mark.parametrize('depth', [18, 50])
def test_closed_gates_leave_the_shortcut_and_the_norms_shift(depth):
    model = make(depth).eval()
    fill_gate_biases(model, -1e6)
    block, x = model.layer1[1], torch.rand(2, 16 if depth == 18 else 64, 8, 8)
    # norms are at their start: mean 0 and bias 0, so that nothing read gives 0
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize('depth', [18, 50])
def test_dense_weights_lack_only_the_gate_nets(depth):
    for variant in ('plain', 'deep_stem', 'avg_down', 'caffe'):
        dense = ResNet(depth, base_channels=16, **VARIANTS[variant])
        model = make(depth, attention=True, **VARIANTS[variant])
        keys = model.load_state_dict(dense.state_dict(), strict=False)
        own = {f'{name}.{key}' for name, net in nets(model).items() for key in net.state_dict()}
        # torch fills this one in for weights older than the counter
        expected = {key for key in own if not key.endswith('num_batches_tracked')}
        assert keys.unexpected_keys == [], variant
        assert set(keys.missing_keys) == expected, variant


@pytest.mark.parametrize('depth', [18, 50])
@torch.no_grad()
def test_heads_group_the_3x3_convolution_of_each_block(depth):
    for heads in (1, 2, 4, 8):
        model = make(depth, heads=heads).eval()
        x = model.maxpool(model.relu(model.norm1(model.conv1(images()))))
        groups = [gate.mask.size(1) for gate in model.layer1[0].gates(x)]
        assert groups == ([1, heads] if depth == 18 else [1, heads, 1])
        assert model(images())[-1].isfinite().all(), heads


@pytest.mark.parametrize(
    ('depth', 'channels', 'hidden'),
    # of layer1.1: a quarter of a basic block's 16 channels, an eighth of a bottleneck's 64
    [(18, 16, 4), (50, 64, 8)],
)
def test_gate_nets_are_as_wide_as_the_paper_has_them(depth, channels, hidden):
    block = make(depth, attention=True).layer1[1]
    shapes = {tuple(net.conv[0].weight.shape[:2]) for net in nets(block).values()}
    assert shapes == {(hidden, channels)}


@pytest.mark.parametrize(
    ('depth', 'attended'),
    [(18, {'attgen1', 'attgen2'}), (50, {'attgen2'})],
)
def test_attention_is_where_the_paper_has_it(depth, attended):
    model = make(depth, attention=True)
    names = {name.rpartition('.')[-1] for name in nets(model, AttentionGenerator)}
    assert names == attended


@pytest.mark.parametrize('depth', [18, 50])
def test_stem_and_shortcuts_stay_dense(depth):
    model = make(depth)
    assert type(model.conv1) is nn.Conv2d
    assert type(model.layer2[0].downsample[0]) is nn.Conv2d


@pytest.mark.parametrize(
    ('arguments', 'error', 'message'),
    [
        (dict(heads=3), ValueError, 'heads=3 does not divide out_channels=16 of layer1.0.conv2'),
        (dict(heads=2.0), ValueError, 'heads=2.0 of MSGCResNet, expected an integer'),
        (dict(groups=4), TypeError, 'groups'),
        (dict(depth=20), ValueError, r'depth=20 of MSGCResNet.*\[18, 34, 50, 101, 152\]'),
        (
            dict(plugins=[dict(cfg=CONTEXT, position='after_conv2')]),
            ValueError,
            'plugins.*depth=18',
        ),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_error_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ('position', 'readers'),
    [
        # between two convolutions a plugin mixes channels, so that none is unread
        ('after_conv1', {'conv3': ('conv2',)}),
        ('after_conv2', {'conv2': ('conv1',)}),
        ('after_conv3', {'conv2': ('conv1',), 'conv3': ('conv2',)}),
    ],
)
def test_plugin_changes_who_reads_whom(position, readers):
    stages = (False, True)
    model = make(
        50,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        plugins=[dict(cfg=CONTEXT, position=position, stages=stages)],
    )
    assert all(block.readers == readers for block in model.layer2)
    both = {'conv2': ('conv1',), 'conv3': ('conv2',)}
    assert all(block.readers == both for block in model.layer1)


@pytest.mark.parametrize('position', ['after_conv1', 'after_conv2', 'after_conv3'])
def test_plugin_runs_where_the_host_runs_it(position):
    plugins = [dict(cfg=CONTEXT, position=position, stages=(True, True, False, False))]
    torch.manual_seed(0)
    dense = ResNet(50, base_channels=16, plugins=plugins)
    for name, parameter in dense.named_parameters():
        if 'context_block' in name:  # its last layer starts at zero, which would hide it
            nn.init.normal_(parameter, std=0.1)
    ours = make(50, plugins=plugins).eval()
    ours.load_state_dict(dense.state_dict(), strict=False)
    fill_gate_biases(ours, 1e6)
    dense.eval()
    for out, expected in zip(ours(images()), dense(images()), strict=True):
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


# Initialisation.


@pytest.mark.parametrize(('depth', 'last'), [(18, 'norm2'), (50, 'norm3')])
def test_zero_init_residual(depth, last):
    for zero, gamma in ((True, 0.0), (False, 1.0)):
        model = make(depth, zero_init_residual=zero)
        model.init_weights()
        blocks = [block for name in model.res_layers for block in getattr(model, name)]
        assert {getattr(block, last).weight.mean().item() for block in blocks} == {gamma}
        assert {block.norm1.weight.mean().item() for block in blocks} == {1.0}


def test_convolutions_are_he_initialised():
    model = make(base_channels=32)
    conv = model.layer4[1].conv2
    nn.init.zeros_(conv.weight)
    model.init_weights()
    # mmengine's Kaiming: fan_out = 256 filters * 3*3, gain sqrt(2)
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize('depth', [18, 50])
def test_default_initialisation_keeps_the_gates_start(depth):
    model = make(depth, attention=True)
    model.init_weights()
    assert last_biases(model).unique().tolist() == [2.0]
    assert last_biases(model, AttentionGenerator).unique().tolist() == [1.0]
    for net in nets(model, AttentionGenerator).values():
        assert net.conv[3].weight.count_nonzero() == 0


def test_torchvision_weights_are_loaded(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path / 'resnet18.pth'
    torch.save(state, path)
    model = MSGCResNet(18, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    ours = model.state_dict()
    assert {key for key in state if key not in ours} == {'fc.weight', 'fc.bias'}
    different = [key for key in state if key in ours and not torch.equal(ours[key], state[key])]
    assert different == []
    assert last_biases(model).unique().tolist() == [2.0]


def test_weights_with_gate_nets_are_loaded(tmp_path):
    trained = make()
    make_gates_vary(trained)
    path = tmp_path / 'trained.pth'
    torch.save(trained.state_dict(), path)
    model = make(seed=9, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    ours = model.state_dict()
    different = [key for key, value in trained.state_dict().items() if not ours[key].equal(value)]
    assert different == []


# Training.


@pytest.mark.parametrize('depth', [18, 50])
def test_every_parameter_gets_a_gradient(depth):
    for attention in (False, True):
        model = make(depth, attention=attention).train()
        _, gradients = train_step(model, images())
        for name, gradient in gradients.items():
            assert gradient is not None, f'no gradient for {name}'
            assert gradient.isfinite().all(), f'gradient for {name} is not finite'


@pytest.mark.parametrize('depth', [18, 50])
def test_gate_nets_learn_from_the_mac_ratio_alone(depth):
    model = make(depth).train()
    with MacMeter(model) as meter:
        model(images())
    meter.take().ratio.backward()
    for name, net in nets(model).items():
        assert (net.conv[3].bias.grad > 0).all(), f'opening {name} further should cost more'


@pytest.mark.parametrize('depth', [18, 50])
def test_gate_nets_learn_from_the_output_alone(depth):
    model = make(depth, attention=True).train()
    make_gates_vary(model)
    sum(out.square().mean() for out in model(images())).backward()
    for name, net in nets(model).items():
        assert net.conv[3].bias.grad.count_nonzero() > 0, f'no gradient for {name}'


@pytest.mark.parametrize('norm_eval', [True, False])
@pytest.mark.parametrize('depth', [18, 50])
def test_checkpointing_changes_no_gradient(depth, norm_eval):
    options = dict(depth=depth, attention=True, norm_eval=norm_eval)
    plain, checkpointed = make(**options), make(**options, with_cp=True)
    for model in (plain, checkpointed):
        make_gates_vary(model)
        model.train()
    x = images(3).requires_grad_()
    loss, expected = train_step(plain, x)
    x_gradient, x.grad = x.grad, None
    again, gradients = train_step(checkpointed, x)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(x.grad, x_gradient)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.parametrize(('with_cp', 'convolved'), [(False, 1), (True, 2)])
def test_checkpointing_recomputes_convolutions_but_draws_gates_once(with_cp, convolved):
    block = make(with_cp=with_cp).train().layer1[0]
    counts = dict(conv=0, mask=0)
    block.conv1.register_gate_hook(lambda *_: counts.update(conv=counts['conv'] + 1))
    block.maskgen1.register_forward_hook(lambda *_: counts.update(mask=counts['mask'] + 1))
    block(torch.randn(2, 16, 8, 8, requires_grad=True)).sum().backward()
    assert counts == dict(conv=convolved, mask=1)


def test_checkpointing_is_skipped_where_the_input_needs_no_gradient():
    block = make(with_cp=True).train().layer1[0]
    calls = []
    block.conv1.register_gate_hook(lambda *_: calls.append(1))
    block(torch.randn(2, 16, 8, 8)).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize('depth', [18, 50])
def test_frozen_stage_freezes_its_gate_nets(depth):
    model = make(depth, frozen_stages=2, norm_eval=False)
    for training in (True, False, True):
        model.train(training)
        for name, net in nets(model).items():
            frozen = name.startswith(('layer1', 'layer2'))
            assert all(p.requires_grad is not frozen for p in net.parameters()), name
            assert all(m.training is (training and not frozen) for m in net.modules()), name


def test_frozen_stage_draws_no_gates():
    model = make(frozen_stages=1).train()
    fill_gate_biases(model, 0.0)
    x = torch.randn(2, 16, 8, 8)
    torch.manual_seed(0)
    assert torch.equal(model.layer1(x), model.layer1(x))


def test_norm_eval_keeps_the_gate_nets_norms_in_eval_mode():
    model = make(norm_eval=True).train()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert not any(norm.training for norm in norms)
    assert all(net.training for net in nets(model).values())


def test_norm_eval_keeps_on_drawing_gates():
    model = make(norm_eval=True).train()
    fill_gate_biases(model, 0.0)
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8, 8)
    first, second = (model.layer1[0].gates(x)[1].mask for _ in range(2))
    assert not torch.equal(first, second)


def test_norm_eval_trains_on_one_image():
    _, gradients = train_step(make(norm_eval=True).train(), images(1))
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_gates_of_each_image_by_itself_are_evaluation_s_but_for_the_noise():
    model = make(over_batch=False)
    make_gates_vary(model)
    for net in nets(model).values():
        net.noise = 0.0
    x = torch.randn(3, 16, 8, 8)
    sampled = [gate.mask for gate in model.train().layer1[0].gates(x)]
    assert all(map(torch.equal, sampled, (g.mask for g in model.eval().layer1[0].gates(x))))
    assert not all(torch.equal(mask[0], mask[1]) for mask in sampled)
    model.train()(torch.randn(1, 3, 32, 32))  # one image will do


def test_one_image_without_norm_eval_raises():
    with pytest.raises(ValueError, match='gate nets in training mode got a batch of 1 image'):
        make(norm_eval=False).train()(images(1))


@pytest.mark.parametrize(('depth', 'with_cp'), [(18, True), (50, False)])
def test_training_under_autocast_is_finite(depth, with_cp):
    model = make(depth, attention=True, with_cp=with_cp).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss, gradients = train_step(model, images())
    assert loss.isfinite()
    for name, gradient in gradients.items():
        assert gradient.isfinite().all(), f'gradient for {name} is not finite'


# Evaluation.


@pytest.mark.parametrize('depth', [18, 50])
def test_evaluation_is_deterministic(depth):
    model = make(depth, attention=True).eval()
    make_gates_vary(model)
    torch.manual_seed(0)
    first = model(images())
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, model(images()), strict=True))


@pytest.mark.parametrize('depth', [18, 50])
def test_gates_are_each_images_own(depth):
    model = make(depth, attention=True).eval()
    make_gates_vary(model)
    together = model(images(3))
    for index, x in enumerate(images(3).split(1)):
        for batch, alone in zip(together, model(x), strict=True):
            torch.testing.assert_close(batch[index : index + 1], alone, atol=1e-4, rtol=1e-4)


def test_gates_differ_between_images():
    model = make().eval()
    make_gates_vary(model)
    torch.manual_seed(0)
    x = torch.randn(2, 16, 8, 8)
    mask = model.layer1[0].gates(x)[1].mask
    assert not torch.equal(mask[0], mask[1])


def test_half_precision_model_runs():
    model = make(attention=True).eval()
    expected = model(images())
    outputs = model.half()(images().half())
    for out, full in zip(outputs, expected, strict=True):
        assert out.dtype is torch.float16
        torch.testing.assert_close(out.float(), full, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize('inside', [True, False])
def test_model_can_be_copied_after_it_was_metered(inside):
    model = make(attention=True).eval()
    with MacMeter(model) as meter:
        expected = model(images())
        if inside:
            copied = copy.deepcopy(model)
        meter.take()
    if not inside:
        copied = copy.deepcopy(model)
    assert all(torch.equal(a, b) for a, b in zip(copied(images()), expected, strict=True))
    assert meter.take().layers == [] or inside
