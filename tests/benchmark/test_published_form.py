import pytest
import torch
from torch.nn import functional as F

from mmdet_groupconv.backbones import MSGCMobileNetV2, MSGCResNet
from mmdet_groupconv.benchmark import to_published_form
from mmdet_groupconv.layers import DGCConv2d, FixedGroupConv2d, FLGCConv2d, MSGCConv2d, SGCConv2d

LAYERS = {
    'MSGC': lambda: MSGCConv2d(8, 12, 3, heads=4, attention=True),
    'MSGC, ragged': lambda: MSGCConv2d(8, 10, 3, heads=4),
    'DGC': lambda: DGCConv2d(8, 12, 3, heads=4),
    'DGC, ragged': lambda: DGCConv2d(8, 10, 1, heads=4),
    'FLGC': lambda: FLGCConv2d(8, 12, 3, groups=3),
    'SGC': lambda: SGCConv2d(8, 12, 3),
    'plain groups': lambda: FixedGroupConv2d(8, 12, 3, groups=4),
}


@pytest.mark.parametrize('name', LAYERS)
def test_outputs_are_the_same(name):
    torch.manual_seed(0)
    layer = LAYERS[name]().eval().double()
    x = torch.randn(3, 8, 7, 9, dtype=torch.float64)
    if isinstance(layer, DGCConv2d):
        layer.set_progress(1)
    torch.testing.assert_close(to_published_form(layer)(x), layer(x))


@pytest.mark.parametrize(
    'network', [lambda: MSGCResNet(18, base_channels=8), lambda: MSGCMobileNetV2(widen_factor=0.25)]
)
def test_networks_are_the_same(network):
    torch.manual_seed(0)
    network = network().double()
    network.eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for one, other in zip(to_published_form(network)(x), network(x), strict=True):
        torch.testing.assert_close(one, other)


def test_the_convolution_is_of_the_dense_cost(monkeypatch):
    layer = MSGCConv2d(8, 12, 3, heads=4).eval()
    seen, conv2d = [], F.conv2d

    def watch(x, weight, *args, **kwargs):
        seen.append((x.size(1), kwargs.get('groups', 1)))
        return conv2d(x, weight, *args, **kwargs)

    published = to_published_form(layer)
    monkeypatch.setattr(F, 'conv2d', watch)
    published(torch.randn(2, 8, 7, 7))
    assert (4 * 8, 4) in seen  # a masked copy of all channels for every head
