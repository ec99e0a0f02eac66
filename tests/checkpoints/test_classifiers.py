import hashlib
import json
import random
import re

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torchvision import models

from mmdet_groupconv.checkpoints import (
    MisfitError,
    Network,
    read_checkpoint,
    read_classifier,
    write_classifier,
    write_published,
)
from mmdet_groupconv.checkpoints.classifiers import published_content
from mmdet_groupconv.checkpoints.layouts import PublishedLayout

SMALL = dict(num_classes=5, depth=18, base_channels=8)
# The state of a network in the released files, beside its weights.
TRAINING = dict(epoch=119, best_prec1=70.5, optimizer=dict(state={}, param_groups=[]))
RELEASED = (
    'msgc_resnet18',
    'msgc_resnet18_att',
    'msgc_resnet50',
    'msgc_resnet50_att',
    'msgc_mobilenetv2',
    'msgc_mobilenetv2_att',
    'dgc_dyresnet18',
)


def released(state):
    return dict(TRAINING, state_dict={f'module.{key}': value for key, value in state.items()})


def shapes(state):
    return {key: value.shape for key, value in state.items()}


def loaded(network, state, **arguments):
    """The network's backbone with the weights of a converted state dict, in evaluation."""
    backbone = MODELS.build(dict(network.config(), **arguments))
    prefix = 'backbone.'
    weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    backbone.load_state_dict(weights, strict=True)
    backbone.eval()
    return backbone


@pytest.fixture(scope='session')
def manifest(golden):
    return json.loads((golden / 'reference_models.json').read_text())


@pytest.mark.parametrize('name', RELEASED)
def test_released_networks_come_back_bit_for_bit(manifest, filled, assert_same, tmp_path, name):
    published = filled(manifest[name]['state_dict'])
    torch.save(released(published), tmp_path / 'c.tar')
    classifier = read_classifier(tmp_path / 'c.tar')
    method, host, *attention = name.replace('dyresnet', 'resnet').split('_')
    assert classifier.network.name == f'{method}-{host}'
    assert classifier.network.heads == 4
    assert bool(classifier.network.attention) == bool(attention)
    assert classifier.parameters == manifest[name]['parameters']
    loaded(classifier.network, classifier.state)
    back = published_content(classifier)
    assert back.keys() == {'epoch', 'best_prec1', 'state_dict'}
    assert_same(back['state_dict'], released(published)['state_dict'])


def networks():
    sizes = dict(num_classes=st.integers(2, 5), base_channels=st.sampled_from([8, 12, 16]))
    resnet = dict(sizes, host=st.just('resnet'), depth=st.sampled_from([18, 34, 50]))
    mobile = dict(
        num_classes=st.integers(2, 5),
        host=st.just('mobilenetv2'),
        widen_factor=st.sampled_from([0.1, 0.25, 0.5]),
    )
    methods = (
        dict(method=st.just('dense')),
        dict(method=st.just('msgc'), heads=st.sampled_from([1, 2, 4]), attention=st.booleans()),
        dict(method=st.just('dgc'), heads=st.sampled_from([1, 2, 4])),
        dict(method=st.just('sgc'), masked_fc=st.booleans()),
    )
    return st.one_of(
        st.fixed_dictionaries(dict(host, **method)).map(lambda sizes: Network(**sizes))
        for host in (resnet, mobile)
        for method in methods
    )


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(network=networks(), seed=st.integers(0, 99))
def test_both_ways_are_exact(filled, assert_same, tmp_path_factory, network, seed):
    folder = tmp_path_factory.mktemp('both')
    ours = filled(shapes(network.build().state_dict()), seed)
    ours = {key: value.clone() for key, value in ours.items()}  # small files
    torch.save(dict(state_dict=ours, meta=dict(epoch=3, best_prec1=70.0)), folder / 'ours.pth')
    first = read_classifier(folder / 'ours.pth')
    assert first.network == network
    write_published(folder / 'published.pth', first)
    again = read_classifier(folder / 'published.pth', network.name)
    assert again.network == network
    assert_same(again.state, ours)
    write_classifier(folder / 'again.pth', again, folder / 'published.pth')
    write_published(folder / 'twice.pth', read_classifier(folder / 'again.pth'))
    files = (read_checkpoint(folder / f'{name}.pth') for name in ('published', 'twice'))
    (published, meta), (twice, meta_of_twice) = files
    assert_same(twice, published)
    assert meta == meta_of_twice
    assert bool(meta) == (network.method in ('msgc', 'dgc'))


@pytest.mark.parametrize('name', ['resnet18', 'mobilenet_v2'])
def test_torchvisions_classifiers_give_the_same_logits(tmp_path, assert_same, name):
    torch.manual_seed(0)
    theirs = getattr(models, name)(num_classes=3).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    torch.save(theirs.state_dict(), tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    assert classifier.network.method == 'dense'
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = loaded(classifier.network, classifier.state)(x)[-1].mean(dim=(2, 3))
        logits = features @ classifier.state['fc.weight'].t() + classifier.state['fc.bias']
        torch.testing.assert_close(logits, theirs(x), atol=1e-4, rtol=1e-4)
    assert_same(published_content(classifier), theirs.state_dict())


@pytest.mark.parametrize('head', ['fc.', 'head.fc.'])
def test_classifiers_with_a_backbone_of_their_own(tmp_path, filled, assert_same, head):
    network = Network('flgc', 'resnet', **SMALL, groups=3)
    state = filled(shapes(network.build().state_dict()))
    named = {head + k[3:] if k.startswith('fc.') else k: v for k, v in state.items()}
    torch.save(dict(state_dict=named), tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    assert (classifier.network, classifier.published) == (network, False)
    assert_same(classifier.state, state)


def masked(layers, seed=0):
    """SG-CNN's state dict for a small torchvision ResNet-50, masked at these layers."""
    torch.manual_seed(seed)
    state = models.ResNet(models.resnet.Bottleneck, [3, 4, 6, 3], num_classes=4).state_dict()
    for layer in [key.removesuffix('.weight') for key in state if layers(key)]:
        weight = state[f'{layer}.weight']
        mask = (torch.rand(weight.shape[:2]) > 0.5).float()
        state[f'{layer}._mask'] = (
            mask[(...,) + (None,) * (weight.ndim - 2)].expand_as(weight).clone()
        )
    return state


@pytest.fixture(scope='module')
def sgcnn():
    return masked(lambda key: re.fullmatch(r'layer.*\.conv\d\.weight|fc\.weight', key))


def test_sgcnns_masks(tmp_path, sgcnn, assert_same):
    dense = ['conv1', 'layer1.0.downsample.0']
    state = dict(sgcnn, **{f'{k}._mask': torch.ones_like(sgcnn[f'{k}.weight']) for k in dense})
    torch.save(state, tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    expected = Network('sgc', 'resnet', 4, depth=50, base_channels=64, masked_fc=True)
    assert classifier.network == expected
    assert sorted(classifier.meta['dense_masks']) == dense
    backbone = loaded(classifier.network, classifier.state)
    conv = backbone.layer2[0].conv2
    x = torch.randn(1, 128, 5, 5)
    weight = state['layer2.0.conv2.weight'] * state['layer2.0.conv2._mask']
    y = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    torch.testing.assert_close(conv(x), y, atol=1e-5, rtol=1e-5)
    write_classifier(tmp_path / 'ours.pth', classifier, tmp_path / 'c.pth')
    assert_same(published_content(read_classifier(tmp_path / 'ours.pth')), state)


def test_our_classifier_takes_what_is_converted(tmp_path, sgcnn):
    torch.save(sgcnn, tmp_path / 'c.pth')
    network, state, *_ = read_classifier(tmp_path / 'c.pth')
    config = dict(backbone=network.config(), linear_cfg=dict(type='SGCLinear'), num_classes=4)
    MODELS.build(dict(type='ImageClassifier', **config)).load_state_dict(state, strict=True)


def test_masks_that_prune_dense_layers_are_refused(tmp_path, sgcnn):
    mask = torch.zeros_like(sgcnn['layer1.0.downsample.0.weight'])
    torch.save(dict(sgcnn, **{'layer1.0.downsample.0._mask': mask}), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'c\.pth: layer1\.0\.downsample\.0\._mask prunes a layer'):
        read_classifier(tmp_path / 'c.pth')


@pytest.fixture
def small(filled):
    """A small MSGC ResNet-18 as its authors write it."""
    network = Network('msgc', 'resnet', **SMALL, heads=4, attention=False)
    return PublishedLayout().theirs(filled(shapes(network.build().state_dict())), network)


def misfit(folder, state, name=None):
    torch.save(released(state), folder / 'c.pth')
    with pytest.raises(MisfitError) as info:
        read_classifier(folder / 'c.pth', name)
    assert 'c.pth does not fit msgc-resnet18' in str(info.value)
    return info.value.lines


def test_missing_modules_are_named_as_in_the_file(tmp_path, small):
    state = {k: v for k, v in small.items() if not k.startswith(('layer1.0.maskgen1', 'layer4.1'))}
    # 7: two weights and a bias, a norm's four; the counter of batches may be missing
    assert misfit(tmp_path, state) == [
        'missing: layer1.0.maskgen1.* (7 keys)',
        'missing: layer4.1.* (24 keys)',
    ]


def test_mixed_up_tensors_are_named(tmp_path, small):
    small['layer1.0.conv1.weight'] = small['layer4.1.conv1.weight']
    small['layer9.bias'] = torch.zeros(1)
    assert misfit(tmp_path, small) == [
        'unexpected: layer9.* (1 keys)',
        'mis-shaped: layer1.0.* (1 keys), first layer1.0.conv1.weight [64, 64, 3, 3] for '
        '[8, 8, 3, 3]',
    ]


def test_another_network_is_not_what_was_asked_for(tmp_path, small):
    dense = {key: value for key, value in small.items() if 'maskgen' not in key}
    lines = misfit(tmp_path, dense, 'msgc-resnet18')
    assert lines[0] == 'missing: layer1.0.maskgen1.* (7 keys)'
    assert lines[-1] == 'missing: 6 more modules'
    assert len(lines) == 11


def test_any_damage_is_a_misfit(tmp_path, small):
    keys = [key for key in small if not key.endswith('num_batches_tracked')]
    for seed in range(12):
        draw, state = random.Random(seed), dict(small)
        for key in draw.sample(keys, draw.randint(1, 60)):
            value = state.pop(key)
            damaged = value.new_zeros(draw.choice([(), (0,), (3,), (1000, 1000), (2, 3, 5, 7)]))
            state.update(draw.choice([{}, {key: damaged}, {f'{key}x': value}, {f'x.{key}': value}]))
        assert misfit(tmp_path, state), seed


def test_batch_counters_may_be_missing_and_stay_so(tmp_path, small, assert_same):
    state = {k: v for k, v in small.items() if not k.endswith('num_batches_tracked')}
    torch.save(released(state), tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    assert_same(published_content(classifier)['state_dict'], released(state)['state_dict'])


def test_what_is_written_says_what_it_is_and_where_from(tmp_path, small):
    source = tmp_path / 'released.tar'
    torch.save(released(small), source)
    write_classifier(tmp_path / 'ours.pth', read_classifier(source), source)
    state, meta = read_checkpoint(tmp_path / 'ours.pth')
    assert 'backbone.layer1.0.conv1.weight' in state
    assert meta == dict(
        method='msgc', host='resnet', depth=18, base_channels=8, heads=4, attention=False,
        num_classes=5, source='released.tar', epoch=119, best_prec1=70.5,
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
    )  # fmt: skip


def test_what_is_no_tensor_is_named(tmp_path, small):
    torch.save(dict(small, **{'fc.bias': 3}), tmp_path / 'c.pth')
    with pytest.raises(ValueError, match=r'c\.pth: fc\.bias is int, expected tensors only'):
        read_classifier(tmp_path / 'c.pth')


# Where a block of the golden sizes occurs: network, block.
BASIC = dict(num_classes=2, depth=18, base_channels=16)
NARROW, WIDE = (dict(num_classes=2, depth=50, base_channels=width) for width in (8, 16))
BLOCKS = [
    (Network('msgc', 'resnet', **BASIC, heads=4, attention=False), 'layer1.0'),
    (Network('msgc', 'resnet', **BASIC, heads=4, attention=True), 'layer2.0'),
    (Network('msgc', 'resnet', **BASIC, heads=2, attention=True), 'layer1.0'),
    (Network('msgc', 'resnet', **NARROW, heads=4, attention=False), 'layer1.1'),
    (Network('msgc', 'resnet', **NARROW, heads=4, attention=True), 'layer2.0'),
    (Network('msgc', 'resnet', **WIDE, heads=4, attention=True), 'layer1.1'),
    (Network('msgc', 'mobilenetv2', 2, widen_factor=0.5, heads=4, attention=False), 'features.3'),
    (Network('msgc', 'mobilenetv2', 2, widen_factor=1.0, heads=4, attention=True), 'features.2'),
]
OUR_BLOCKS = {'features.3': 'layer2.1', 'features.2': 'layer2.0'}


def with_part(network, part, values, filled):
    """A published state dict of `network` that has `values` at `part`, and sound norms."""
    own = network.build().state_dict()
    state = PublishedLayout().theirs(dict(own, **filled(shapes(own))), network)
    keys = {f'{part}.{key}' for key in values}
    assert keys == {key for key in state if key.startswith(f'{part}.')}
    return dict(state, **{f'{part}.{key}': value for key, value in values.items()})


@pytest.mark.parametrize('number', range(len(BLOCKS)))
def test_golden_blocks_within_a_network(golden_msgc_blocks, filled, tmp_path, number):
    case, (network, part) = golden_msgc_blocks[number], BLOCKS[number]
    assert len(golden_msgc_blocks) == len(BLOCKS)
    torch.save(released(with_part(network, part, case['state_dict'], filled)), tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    assert classifier.network == network
    block = loaded(network, classifier.state).get_submodule(OUR_BLOCKS.get(part, part))
    torch.testing.assert_close(block(case['x']), case['y'], atol=1e-5, rtol=1e-5)


# Where a layer of the golden sizes occurs, and what else the backbone needs for its stride: no
# ResNet has 3x3 convolutions from 32 to 64 channels of stride 1 otherwise.
HALF = dict(num_classes=2, depth=18, base_channels=32)
LAYERS = [
    (Network('dgc', 'resnet', **HALF, heads=4), 'layer2.0.conv1', dict(strides=(1, 1, 1, 1))),
    (Network('dgc', 'resnet', **{**HALF, 'depth': 50}, heads=4), 'layer2.0.conv2', {}),
    (Network('dgc', 'mobilenetv2', 2, widen_factor=0.5, heads=4), 'features.7.conv.2', {}),
    (Network('dgc', 'resnet', **HALF, heads=2), 'layer1.0.conv1', {}),
]
OUR_LAYERS = {'features.7.conv.2': 'layer4.0.linear_conv.conv'}


@pytest.mark.parametrize('number', range(len(LAYERS)))
def test_golden_layers_within_a_network(golden_dgc_layers, filled, tmp_path, number):
    golden, (network, part, arguments) = golden_dgc_layers[number], LAYERS[number]
    assert len(golden_dgc_layers) == len(LAYERS)
    case = golden['cases'][number % 3]  # each number of dropped channels
    inactive = torch.tensor([float(case['inactive_channels'])])
    values = dict(golden['state_dict'], _inactive_channels=inactive)
    torch.save(released(with_part(network, part, values, filled)), tmp_path / 'c.pth')
    classifier = read_classifier(tmp_path / 'c.pth')
    assert classifier.network == network
    layer = loaded(network, classifier.state, **arguments).get_submodule(OUR_LAYERS.get(part, part))
    torch.testing.assert_close(layer(golden['x']), case['y'], atol=1e-5, rtol=1e-5)
