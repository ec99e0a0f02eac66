import itertools
import json
import re
from collections import Counter

import pytest
import torch
from mmdet.models.backbones import MobileNetV2, ResNet
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_groupconv import backbones
from mmdet_groupconv.backbones import DGCResNet
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.layers import DGCConv2d, FLGCConv2d, GroupedConv2d, SGCConv2d

METHODS = ['DGC', 'FLGC', 'FixedGroup', 'SGC']
RESNETS = [f'{method}ResNet' for method in METHODS]
MOBILENETS = [f'{method}MobileNetV2' for method in METHODS]
# Methods that group nothing with these arguments.
OPEN = {
    'FLGCResNet': dict(groups=1),
    'FixedGroupResNet': dict(groups=1),
    'SGCResNet': {},
    'FLGCMobileNetV2': dict(groups=1),
    'FixedGroupMobileNetV2': dict(groups=1),
    'SGCMobileNetV2': {},
}
VARIANTS = {
    'ResNet': {
        'plain': {},
        'bottleneck': dict(depth=50),
        'deep_stem': dict(deep_stem=True),
        'avg_down': dict(avg_down=True),
        'caffe': dict(depth=50, style='caffe'),
        'dilated': dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        'out_indices': dict(out_indices=(1, 3)),
        'group norm': dict(norm_cfg=dict(type='GN', num_groups=4)),
    },
    'MobileNetV2': {
        'plain': {},
        'wider': dict(widen_factor=0.5),
        'act_cfg': dict(act_cfg=dict(type='LeakyReLU')),
        'out_indices': dict(out_indices=(0, 7)),
        'no norm': dict(norm_cfg=None),
        'group norm': dict(norm_cfg=dict(type='GN', num_groups=4)),
    },
}
HOST_VARIANTS = [
    (parent, variant) for parent in (ResNet, MobileNetV2) for variant in VARIANTS[parent.__name__]
]
# What the methods add to the parents' keys.
GROUPING = re.compile(r'\.(norm\..*|saliency\..*|inactive|(channel|filter)_(logits|groups)|mask)$')
EVERY = RESNETS + MOBILENETS
PAIRS = list(zip(RESNETS, MOBILENETS, strict=True))
EACH_METHOD = pytest.mark.parametrize('names', PAIRS, ids=METHODS)


def parent_of(name):
    return ResNet if name.endswith('ResNet') else MobileNetV2


def build(network, seed=0, **kwargs):
    torch.manual_seed(seed)
    small = dict(depth=18, base_channels=16)
    if issubclass(network, MobileNetV2):
        small = dict(widen_factor=0.25)
    return network(**dict(small, **kwargs))


def make(name, **kwargs):
    return build(getattr(backbones, name), **kwargs)


def images(batch=2, size=64):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def grouped_layers(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, GroupedConv2d)}


def dense_layers(model):
    """Why plain convolutions are plain, by name."""
    return {n: m.why_dense for n, m in model.named_modules() if 'why_dense' in vars(m)}


def train_step(model, x):
    """Gradients of the outputs' squares and of the gates', by parameter name."""
    gates = []
    handles = [
        layer.register_gate_hook(lambda layer, gate, x, y: gates.append(gate.value.square().mean()))
        for layer in grouped_layers(model).values()
    ]
    loss = sum(out.square().mean() for out in model(x)) + sum(gates)
    loss.backward()
    for handle in handles:
        handle.remove()
    return {name: p.grad for name, p in model.named_parameters()}


# Agreement with the dense parents.


@pytest.mark.parametrize(('parent', 'variant'), HOST_VARIANTS)
def test_ungrouped_networks_equal_their_dense_parent(parent, variant):
    arguments = VARIANTS[parent.__name__][variant]
    dense = build(parent, **arguments)
    for module in dense.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    dense.eval()
    with torch.no_grad():
        expected = dense(images())
        for name in (name for name in OPEN if parent_of(name) is parent):
            ours = make(name, seed=1, **OPEN[name], **arguments).eval()
            ours.load_state_dict(dense.state_dict(), strict=False)
            for out, other in zip(ours(images()), expected, strict=True):
                assert torch.allclose(out, other, atol=1e-5, rtol=1e-5), name


@pytest.mark.parametrize('name', ['DGCResNet', 'DGCMobileNetV2'])
def test_dgc_takes_its_parents_arguments(name):
    for variant, arguments in VARIANTS[parent_of(name).__name__].items():
        dense, model = build(parent_of(name), **arguments), make(name, **arguments)
        assert model.load_state_dict(dense.state_dict(), strict=False).unexpected_keys == []
        outputs = model(images())
        sum(out.square().mean() for out in outputs).backward()
        with torch.no_grad():
            shapes = [out.shape for out in dense(images())]
        assert [out.shape for out in outputs] == shapes, variant
        assert all(p.grad is not None for p in model.parameters()), variant


@EACH_METHOD
def test_dense_weights_lack_only_what_groups(names):
    for name in names:
        dense, model = build(parent_of(name)), make(name, seed=1)
        keys = model.load_state_dict(dense.state_dict(), strict=False)
        assert keys.unexpected_keys == [], name
        assert [key for key in keys.missing_keys if not GROUPING.search(key)] == [], name
        ours = model.state_dict()
        assert all(torch.equal(ours[key], value) for key, value in dense.state_dict().items()), name


@pytest.mark.parametrize('names', [RESNETS, MOBILENETS], ids=['ResNet', 'MobileNetV2'])
@torch.no_grad()
def test_output_shapes_are_the_parents(names):
    dense = build(parent_of(names[0]))
    dense.eval()
    for inputs in (1, 2):
        shapes = [out.shape for out in dense(images(inputs))]
        for name in names:
            outputs = make(name).eval()(images(inputs))
            assert [out.shape for out in outputs] == shapes, (name, inputs)


def test_each_is_built_by_name():
    for name in EVERY:
        model = MODELS.build(dict(type=name, **(dict(depth=18) if 'ResNet' in name else {})))
        assert isinstance(model, parent_of(name)), name
        assert type(model).__name__ == name


@pytest.mark.parametrize('name', ['SGCResNet', 'SGCMobileNetV2'])
def test_train_and_eval_return_the_model(name):
    model = make(name)
    assert model.train() is model
    assert model.train(False) is model
    assert model.eval() is model


@EACH_METHOD
def test_frozen_stage_freezes_all_that_groups_in_it(names):
    frozen = ('conv1.', 'bn1.', 'layer1.', 'layer2.')
    for name in names:
        model = make(name, frozen_stages=2, norm_eval=False).train()
        for key, parameter in model.named_parameters():
            assert parameter.requires_grad is not key.startswith(frozen), (name, key)


def test_norm_eval_holds_the_norms_of_the_layers_too():
    for name in EVERY:
        norms = [
            m for m in make(name, norm_eval=True).train().modules() if isinstance(m, _BatchNorm)
        ]
        assert not any(norm.training for norm in norms), name


# Which layers are grouped.


@pytest.mark.parametrize('name', RESNETS)
def test_shortcuts_are_grouped_in_dgc_alone(name):
    for depth, avg_down in itertools.product((18, 50), (False, True)):
        model = make(name, depth=depth, avg_down=avg_down)
        last = 'downsample.1' if avg_down else 'downsample.0'
        kinds = [type(m) for n, m in model.named_modules() if n.endswith(last)]
        expected = DGCConv2d if name == 'DGCResNet' else nn.Conv2d
        assert kinds == [expected] * (3 if depth == 18 else 4), (depth, avg_down)


@pytest.mark.parametrize('name', RESNETS)
def test_every_convolution_of_the_blocks_is_grouped(name):
    for depth, convs in ((18, 16), (50, 48)):
        model = make(name, depth=depth)
        grouped = [n for n in grouped_layers(model) if re.fullmatch(r'layer\d\.\d\.conv\d', n)]
        assert len(grouped) == convs, depth
        assert type(model.conv1) is nn.Conv2d


@pytest.mark.parametrize('name', MOBILENETS)
def test_1x1_convolutions_are_grouped(name):
    model = make(name)
    last = Counter(n.rpartition('.')[0].rpartition('.')[2] for n in grouped_layers(model))
    # 17 blocks, the first of which doesn't expand
    assert last == dict(expand_conv=16, linear_conv=17, conv2=1)
    assert type(model.conv1.conv) is nn.Conv2d


def test_depthwise_convolutions_stay_as_they_are():
    for name in MOBILENETS:
        reasons = dense_layers(make(name))
        assert len(reasons) == 17, name
        assert reasons['layer2.0.depthwise_conv.conv'] == 'its host groups it by 48'


def test_small_layers_stay_dense_and_say_why():
    reasons = dense_layers(make('DGCMobileNetV2', heads=32, widen_factor=1.0))
    pointwise = {n: why for n, why in reasons.items() if 'depthwise' not in n}
    assert pointwise == {
        'layer1.0.linear_conv.conv': '32 -> 16 channels for 32 heads',
        'layer2.0.expand_conv.conv': '16 -> 96 channels for 32 heads',
        'layer2.0.linear_conv.conv': '96 -> 24 channels for 32 heads',
        'layer2.1.expand_conv.conv': '24 -> 144 channels for 32 heads',
        'layer2.1.linear_conv.conv': '144 -> 24 channels for 32 heads',
        'layer3.0.expand_conv.conv': '24 -> 144 channels for 32 heads',
    }


@pytest.mark.parametrize('name', ['FixedGroupResNet', 'FLGCResNet'])
def test_groups_leave_narrow_stages_dense(name):
    reasons = dense_layers(make(name, groups=32))
    assert reasons['layer1.0.conv1'] == '16 -> 16 channels for 32 groups'
    assert 'layer2.0.conv2' not in reasons


@pytest.mark.parametrize(('name', 'groups'), [('FLGCResNet', 3), ('FLGCMobileNetV2', 7)])
def test_flgc_takes_any_number_of_groups(name, groups):
    model = make(name, groups=groups).train()
    gradients = train_step(model, images())
    assert all(layer.channel_logits.size(1) == groups for layer in grouped_layers(model).values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


@pytest.mark.parametrize(
    ('name', 'arguments', 'error', 'message'),
    [
        ('FLGCMobileNetV2', dict(groups=-1), ValueError, 'groups=-1'),
        ('FLGCResNet', dict(groups=0), ValueError, 'groups=0'),
        ('SGCMobileNetV2', dict(groups=0), ValueError, 'groups=0 of SGCConv2d'),
        ('FixedGroupResNet', dict(groups=2.5), ValueError, 'groups=2.5'),
        ('DGCResNet', dict(heads=0), ValueError, 'heads=0'),
        ('DGCResNet', dict(gate_factor=0.0), ValueError, 'gate_factor=0.0 of DGCConv2d'),
        ('DGCMobileNetV2', dict(squeeze_rate=1), ValueError, 'squeeze_rate=1 of DGCConv2d'),
        ('DGCResNet', dict(depth=19), ValueError, 'depth=19 of DGCResNet'),
        ('DGCResNet', dict(dcn=dict(type='DCNv2')), ValueError, 'dcn=.* of DGCResNet'),
    ],
)
def test_error_names_the_argument(name, arguments, error, message):
    with pytest.raises(error, match=message):
        make(name, **arguments)


def test_conv_cfg_is_refused():
    for name in EVERY:
        with pytest.raises(ValueError, match=f"conv_cfg={{'type': 'Conv2d'}} of {name}"):
            make(name, conv_cfg=dict(type='Conv2d'))


def test_unknown_argument_gets_a_guess():
    guesses = ('frozen_stage', 'frozen_stages'), ('norm_evl', 'norm_eval')
    for name, (wrong, meant) in itertools.product(EVERY, guesses):
        with pytest.raises(TypeError, match=f"{name} .* '{wrong}', did you mean '{meant}'"):
            make(name, **{wrong: 1})


@pytest.mark.parametrize('wrong', ['head', 'group'])
def test_guess_knows_the_methods_own_arguments(wrong):
    name = dict(head='DGCMobileNetV2', group='SGCResNet')[wrong]
    with pytest.raises(TypeError, match=f"did you mean '{wrong}s'"):
        make(name, **{wrong: 2})


# DGC without norms of its own.


@pytest.mark.parametrize('name', ['DGCResNet', 'DGCMobileNetV2'])
def test_without_pre_norm_no_layer_has_one(name):
    dense, model = build(parent_of(name)), make(name, pre_norm=False)
    assert all(layer.norm is None for layer in grouped_layers(model).values())
    missing = model.load_state_dict(dense.state_dict(), strict=False).missing_keys
    assert {re.sub(r'.*\.(saliency\.|inactive)', r'\1', key) for key in missing} == {
        'saliency.fc1.weight', 'saliency.fc2.weight', 'saliency.fc2.bias', 'inactive'
    }  # fmt: skip


@pytest.mark.parametrize('name', ['DGCResNet', 'DGCMobileNetV2'])
def test_without_pre_norm_checkpointing_changes_no_gradient(name):
    first, second = (make(name, pre_norm=False, with_cp=with_cp).train() for with_cp in (0, 1))
    expected = train_step(first, images(4).requires_grad_())
    for key, gradient in train_step(second, images(4).requires_grad_()).items():
        torch.testing.assert_close(
            gradient, expected[key], msg=lambda text, key=key: f'{key}: {text}'
        )


# DGC's published network.


@pytest.fixture(scope='module')
def dyresnet(golden):
    """The reference's figures and our network."""
    reference = json.loads((golden / 'reference_models.json').read_text())['dgc_dyresnet18']
    return reference, ImageClassifier(DGCResNet(18), 1000)


def test_number_of_parameters_is_the_published_one(dyresnet):
    reference, network = dyresnet
    assert sum(p.numel() for p in network.parameters()) == reference['parameters']


def test_state_dict_has_the_published_shapes_when_heads_are_joined(dyresnet):
    reference, network = dyresnet
    expected = {}
    for key, shape in reference['state_dict'].items():
        key = key.replace('downsample.1.norm.', 'downsample.1.')
        key = key.replace('_inactive_channels', 'inactive')
        key = re.sub(r'headconv_\d\.conv\.', '', key)
        key = re.sub(r'headconv_\d\.fc', 'saliency.fc', key)
        if key in expected:  # another head
            shape = [expected[key][0] + shape[0], *shape[1:]]
        expected[key] = shape
    ours = {}
    for key, value in network.state_dict().items():
        shape = list(value.shape) or ([1] if key.endswith('.inactive') else [])
        is_linear = '.fc1.weight' in key or '.fc2.weight' in key
        ours[key.removeprefix('backbone.')] = shape[:2] if is_linear else shape
    assert ours == expected


# Initialisation.


@pytest.mark.parametrize('depth', [18, 50])
def test_dgc_starts_with_the_features_of_the_dense_weights(depth):
    dense = build(ResNet, depth=depth, norm_eval=False)
    for _ in range(20):
        dense(images(4))  # which gives the norms their statistics
    model = make('DGCResNet', depth=depth)
    model.init_weights()
    model.load_state_dict(dense.state_dict(), strict=False)
    dense.eval()
    model.eval()
    with torch.no_grad():
        features = zip(model(images(4)), dense(images(4)), strict=True)
    for ours, theirs in features:
        assert (ours - theirs).norm() < 0.15 * theirs.norm()


@pytest.mark.parametrize('name', ['DGCResNet', 'DGCMobileNetV2'])
def test_default_initialisation_keeps_saliencies_around_1(name):
    model = make(name)
    model.init_weights()
    for layer in grouped_layers(model).values():
        assert layer.saliency.fc2.bias.unique().tolist() == [1.0]
        assert layer.norm.weight.unique().tolist() == [1.0]


@EACH_METHOD
def test_grouped_convolutions_are_he_initialised(names):
    layers = ('layer4.1.conv2', dict(base_channels=32), 256 * 9), ('conv2.conv', {}, 1280)
    for name, (layer, wide, fan_out) in zip(names, layers, strict=True):
        model = make(name, **wide)
        conv = model.get_submodule(layer)
        nn.init.zeros_(conv.weight)
        model.init_weights()
        assert isinstance(conv, GroupedConv2d)
        assert conv.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03), name


@pytest.mark.parametrize('name', RESNETS)
def test_zero_init_residual(name):
    for zero, gamma in ((True, 0.0), (False, 1.0)):
        model = make(name, zero_init_residual=zero)
        model.init_weights()
        blocks = [block for stage in model.res_layers for block in getattr(model, stage)]
        assert {block.norm2.weight.mean().item() for block in blocks} == {gamma}
        assert {block.norm1.weight.mean().item() for block in blocks} == {1.0}


@EACH_METHOD
def test_weights_with_grouping_are_loaded(names, tmp_path):
    for name in names:
        trained = make(name)
        for layer in grouped_layers(trained).values():
            if isinstance(layer, SGCConv2d):
                layer.mask.bernoulli_(0.5)
            if isinstance(layer, DGCConv2d):
                layer.inactive.fill_(3)
        path = tmp_path / f'{name}.pth'
        torch.save(trained.state_dict(), path)
        model = make(name, seed=9, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        model.init_weights()
        ours, theirs = model.state_dict(), trained.state_dict()
        assert [key for key, value in theirs.items() if not ours[key].equal(value)] == [], name


# Training.


@pytest.mark.parametrize('name', RESNETS)
def test_every_parameter_of_a_resnet_gets_a_gradient(name):
    for depth in (18, 50):
        model = make(name, depth=depth).train()
        sum(out.square().mean() for out in model(images())).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, (depth, key)


@pytest.mark.parametrize('name', MOBILENETS)
def test_every_parameter_of_a_mobilenet_gets_a_gradient(name):
    for last in (6, 7):
        model = make(name, out_indices=(1, 2, 4, last)).train()
        sum(out.square().mean() for out in model(images())).backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, (last, key)


@pytest.mark.parametrize(
    ('name', 'depth'), [*[(n, d) for n in RESNETS for d in (18, 50)], *[(n, 0) for n in MOBILENETS]]
)
def test_checkpointing_changes_no_gradient(name, depth):
    arguments = dict(depth=depth, norm_eval=False) if depth else {}
    expected = train_step(make(name, **arguments).train(), images(4).requires_grad_())
    model = make(name, **arguments, with_cp=True).train()
    gradients = train_step(model, images(4).requires_grad_())
    for key, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[key], msg=lambda text, key=key: f'{key}: {text}'
        )


@pytest.mark.parametrize(
    ('name', 'what'),
    [
        ('DGCResNet', 'saliency.fc2.bias'),
        ('DGCMobileNetV2', 'saliency.fc2.bias'),
        ('FLGCResNet', 'channel_logits'),
    ],
)
def test_loss_on_gates_alone_reaches_them_through_checkpoints(name, what):
    model, gates = make(name, with_cp=True).train(), []
    layers = grouped_layers(model)
    for layer in layers.values():
        layer.register_gate_hook(lambda layer, gate, x, y: gates.append(gate.value.square().sum()))
    model(images().requires_grad_())
    sum(gates).backward()
    for key, layer in layers.items():
        assert layer.get_parameter(what).grad.count_nonzero() > 0, key


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(
    ('name', 'stage', 'conv', 'channels'),
    [('SGCResNet', 'layer1', 'conv1', 16), ('SGCMobileNetV2', 'layer3', 'linear_conv.conv', 8)],
)
def test_checkpointing_recomputes_convolutions(name, stage, conv, channels, with_cp):
    block, calls = make(name, with_cp=with_cp).train().get_submodule(stage)[1], []
    block.get_submodule(conv).register_gate_hook(lambda *_: calls.append(1))
    block(torch.randn(2, channels, 8, 8, requires_grad=True)).sum().backward()
    assert len(calls) == 1 + with_cp


@EACH_METHOD
def test_training_under_autocast_is_finite(names):
    for name in names:
        model = make(name).train()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            loss = sum(out.float().square().mean() for out in model(images()))
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters()), name


@EACH_METHOD
@torch.no_grad()
def test_evaluation_is_each_images_own(names):
    for name in names:
        model = make(name).eval()
        for layer in grouped_layers(model).values():
            if isinstance(layer, DGCConv2d):
                layer.set_progress(1.0)
        together = model(images(2))
        for index, x in enumerate(images(2).split(1)):
            for batch, alone in zip(together, model(x), strict=True):
                assert torch.allclose(batch[index : index + 1], alone, atol=1e-4, rtol=1e-4), name


def test_flgc_weights_outside_of_the_groups_do_not_matter():
    model = make('FLGCResNet').eval()
    expected = model(images())
    for layer in grouped_layers(model).values():
        assert isinstance(layer, FLGCConv2d)
        same = layer.filter_logits.argmax(1)[:, None] == layer.channel_logits.argmax(1)
        with torch.no_grad():
            layer.weight.masked_fill_(~same[..., None, None], 1e3)
    for out, before in zip(model(images()), expected, strict=True):
        torch.testing.assert_close(out, before)
