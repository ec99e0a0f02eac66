import pytest
import torch
from torchvision import models

from mmdet_groupconv.checkpoints import Network
from mmdet_groupconv.checkpoints.layouts import (
    ClassifierLayout,
    PublishedLayout,
    find_layout,
    mobilenet_names,
    take_dense_masks,
)
from mmdet_groupconv.checkpoints.layouts.dgc_heads import merge_heads, split_heads
from mmdet_groupconv.checkpoints.layouts.sgc_masks import merge_masks, spread_masks


def published_layer(heads=2, filters=3, channels=4, hidden=2):
    state = {'a.norm.weight': torch.randn(channels), 'a._inactive_channels': torch.tensor([3.0])}
    for head in range(heads):
        prefix = f'a.headconv_{head}'
        state[f'{prefix}.conv.weight'] = torch.randn(filters, channels, 3, 3)
        state[f'{prefix}.fc1.weight'] = torch.randn(hidden, channels)
        state[f'{prefix}.fc2.weight'] = torch.randn(channels, hidden)
        state[f'{prefix}.fc2.bias'] = torch.randn(channels)
    return state


def test_heads_own_every_other_filter(assert_same):
    published = published_layer()
    ours = merge_heads(published)
    for k in range(6):
        of_head = published[f'a.headconv_{k % 2}.conv.weight'][k // 2]
        assert torch.equal(ours['a.weight'][k], of_head)
    assert ours['a.saliency.fc1.weight'].shape == (4, 4, 1, 1)
    assert ours['a.saliency.fc2.weight'].shape == (8, 2, 1, 1)
    second = published['a.headconv_1.fc2.weight']
    assert torch.equal(ours['a.saliency.fc2.weight'][4:, :, 0, 0], second)
    assert ours['a.inactive'].dtype is torch.int64
    assert ours['a.inactive'].shape == ()
    assert int(ours['a.inactive']) == 3
    assert_same(split_heads(ours, 2), published)


@pytest.mark.parametrize('value', [[2.5], [5.0], [-1.0], [float('inf')], [float('nan')]])
def test_a_broken_number_of_inactive_channels_is_named(value):
    published = dict(published_layer(), **{'a._inactive_channels': torch.tensor(value)})
    with pytest.raises(
        ValueError,
        match=r'a\._inactive_channels is .* expected a whole number of 0 to 4 in float32',
    ):
        merge_heads(published)


def test_a_number_of_inactive_channels_in_another_precision_is_named():
    published = dict(published_layer(), **{'a._inactive_channels': torch.tensor([3.0]).half()})
    with pytest.raises(ValueError, match=r'is 3\.0 \(torch\.float16\), expected .* in float32'):
        merge_heads(published)


def test_heads_of_unequal_size_have_no_published_form():
    with pytest.raises(ValueError, match='a has 6 filters for 4 heads'):
        split_heads(merge_heads(published_layer()), 4)


def test_masks_are_told_a_connection_at_a_time(assert_same):
    mask = (torch.rand(4, 3) > 0.5).float()
    published = {
        'a._mask': mask[..., None, None].repeat(1, 1, 3, 3),
        'a.weight': torch.randn(4, 3, 3, 3),
        'fc._mask': (torch.rand(5, 4) > 0.5).double(),
        'fc.weight': torch.randn(5, 4).double(),
    }
    ours = merge_masks(published)
    assert torch.equal(ours['a.mask'], mask)
    assert torch.equal(ours['fc.mask'], published['fc._mask'])
    back = spread_masks(ours)
    assert_same(back, published)
    assert back['a._mask'].is_contiguous()


@pytest.mark.parametrize('value', [0.5, 0.0], ids=['not 0 or 1', 'not the same over the kernel'])
def test_a_mask_that_can_not_be_kept_is_named(value):
    mask = torch.ones(4, 3, 3, 3)
    mask[2, 1, 0, 2] = value
    with pytest.raises(ValueError, match=r'a\._mask is no mask of channels'):
        merge_masks({'a._mask': mask})
    mask[2, 1] = 0.5
    with pytest.raises(ValueError, match=r'a\._mask is no mask of channels'):
        merge_masks({'a._mask': mask})


def test_needless_masks_of_dense_layers_are_taken_out():
    weight = torch.randn(4, 3, 1, 1)
    expected = {'conv1.weight': weight}
    state = {'conv1.weight': weight, 'conv1._mask': torch.ones_like(weight)}
    assert take_dense_masks(state, expected) == ['conv1']
    assert state.keys() == {'conv1.weight'}
    state['conv1._mask'] = torch.zeros_like(weight)
    with pytest.raises(ValueError, match=r'conv1\._mask prunes a layer that is dense here'):
        take_dense_masks(state, expected)


def test_every_name_of_torchvisions_mobilenet_is_one_of_ours():
    with torch.device('meta'):
        theirs = models.mobilenet_v2().state_dict()
        network = Network('dense', 'mobilenetv2', 1000, widen_factor=1.0)
        ours = network.build().state_dict()
    named = {mobilenet_names.from_torchvision(key): value for key, value in theirs.items()}
    assert named.keys() == ours.keys()
    assert all(value.shape == ours[key].shape for key, value in named.items())
    assert {mobilenet_names.to_torchvision(key) for key in ours} == theirs.keys()


def test_gate_nets_are_named_below_their_block():
    ours = 'backbone.layer2.1.maskgen.conv.3.bias'
    assert mobilenet_names.from_torchvision('features.3.maskgen.conv.3.bias') == ours
    assert mobilenet_names.to_torchvision(ours) == 'features.3.maskgen.conv.3.bias'


def test_unknown_names_stay():
    assert mobilenet_names.from_torchvision('features.40.bias') == 'features.40.bias'


@pytest.mark.parametrize(
    ('keys', 'layout'),
    [
        (['layer1.0.conv1.weight', 'fc.bias'], PublishedLayout),
        (['features.1.conv.1.weight'], PublishedLayout),
        (['backbone.conv1.weight', 'head.fc.bias'], ClassifierLayout),
    ],
)
def test_layouts_are_told_by_their_keys(keys, layout):
    assert type(find_layout(keys)) is layout


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('features.denseblock_1.denselayer_1.conv_1.norm.weight', 'it is a CondenseNet, for which'),
        ('blocks.0.attn.qkv.weight', r'its first is blocks\.0\.attn\.qkv\.weight'),
    ],
)
def test_other_networks_are_refused(key, message):
    with pytest.raises(ValueError, match=message):
        find_layout([key])


def test_flgc_has_no_published_layout():
    network = Network('flgc', 'resnet', 5, depth=18, base_channels=8, groups=2)
    with pytest.raises(ValueError, match='flgc-resnet18 has no published layout'):
        PublishedLayout().theirs({}, network)
