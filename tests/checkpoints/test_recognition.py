import pytest
import torch
from mmdet.registry import MODELS
from torchvision import models

from mmdet_groupconv.checkpoints import NETWORKS, Network
from mmdet_groupconv.checkpoints.recognition import describe

SMALL = dict(num_classes=5, depth=18, base_channels=8)


@pytest.mark.parametrize(
    'network',
    [
        Network('dense', 'resnet', **SMALL),
        Network('dense', 'resnet', 7, depth=101, base_channels=8),
        Network('msgc', 'resnet', **SMALL, heads=2, attention=True),
        Network('msgc', 'resnet', 5, depth=50, base_channels=8, heads=4, attention=False),
        Network('dgc', 'resnet', **SMALL, heads=2),
        Network('flgc', 'resnet', **SMALL, groups=3),
        Network('sgc', 'resnet', **SMALL, masked_fc=True),
        Network('msgc', 'mobilenetv2', 5, widen_factor=0.5, heads=4, attention=True),
        Network('dgc', 'mobilenetv2', 5, widen_factor=0.35, heads=4),
        Network('sgc', 'mobilenetv2', 5, widen_factor=1.4, masked_fc=False),
    ],
    ids=lambda network: network.name,
)
def test_a_networks_own_state_tells_what_it_is(network):
    assert describe(network.build().state_dict()) == network


@pytest.mark.parametrize('name', ['resnet34', 'resnet152', 'mobilenet_v2'])
def test_torchvisions_sizes(name):
    with torch.device('meta'):
        theirs = getattr(models, name)()
    layer = dict(resnet34='layer4.2.conv2', resnet152='layer3.35.conv2')
    network = {
        'resnet34': Network('dense', 'resnet', 1000, depth=34, base_channels=64),
        'resnet152': Network('dense', 'resnet', 1000, depth=152, base_channels=64),
        'mobilenet_v2': Network('dense', 'mobilenetv2', 1000, widen_factor=1.0),
    }[name]
    state = theirs.state_dict()
    if name in layer:
        state = {k if k.startswith('fc.') else f'backbone.{k}': v for k, v in state.items()}
        assert describe(state) == network
    with torch.device('meta'):
        ours = network.build()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_configs_say_what_is_unusual_only():
    config = Network('msgc', 'resnet', 5, depth=18, base_channels=64, heads=4, attention=True)
    assert config.config() == dict(type='MSGCResNet', depth=18, heads=4, attention=True)
    small = Network('dense', 'mobilenetv2', 5, widen_factor=0.5)
    assert small.config() == dict(type='MobileNetV2', out_indices=(7,), widen_factor=0.5)
    assert MODELS.build(small.config()).out_indices == (7,)


def test_a_few_missing_blocks_do_not_change_the_depth():
    state = Network('dense', 'resnet', 5, depth=34, base_channels=8).build().state_dict()
    left = {key: value for key, value in state.items() if '.layer3.' not in key}
    assert describe(left).depth == 34


def test_a_given_name_is_kept():
    state = Network('dense', 'resnet', **SMALL).build().state_dict()
    network = describe(state, 'msgc-resnet50')
    assert network == Network(
        'msgc', 'resnet', 5, depth=50, base_channels=8, heads=4, attention=False
    )
    assert network.name == 'msgc-resnet50'
    assert describe(state, 'dgc-mobilenetv2').name == 'dgc-mobilenetv2'
    assert len(NETWORKS) == 30


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match='no blocks of a ResNet or a MobileNetV2'):
        describe({'backbone.stages.0.weight': torch.zeros(1)})
