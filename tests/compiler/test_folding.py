"""Norms go into weights; what can't be folded is left alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_groupconv.compiler.chain import Chain
from mmdet_groupconv.compiler.folding import StaysEagerError, can_fold, units_of
from mmdet_groupconv.compiler.fused import RELU
from mmdet_groupconv.compiler.gated import GatedConv, SelfGatedConv
from mmdet_groupconv.compiler.static import StaticConv
from mmdet_groupconv.compiler.unit import DepthwiseConv, Normalise, Prepare
from mmdet_groupconv.layers import (
    DGCConv2d,
    FixedGroupConv2d,
    FLGCConv2d,
    Gate,
    GroupedConv2d,
    MSGCConv2d,
    SeparableConv2d,
    SGCConv2d,
)

CLOSE = dict(rtol=1e-9, atol=1e-9)
several = settings(max_examples=40, deadline=None, derandomize=True)


def a_norm(channels, **kwargs):
    norm = nn.BatchNorm2d(channels, **kwargs)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    if norm.affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm.double().eval()


def randomised(layer):
    """Gates that differ by image or group."""
    if isinstance(layer, FLGCConv2d):
        nn.init.normal_(layer.channel_logits)
        nn.init.normal_(layer.filter_logits)
    elif isinstance(layer, SGCConv2d):
        layer.mask.copy_(torch.rand(layer.mask.shape) > 0.5)
    elif isinstance(layer, DGCConv2d):
        layer.set_progress(1)
        nn.init.normal_(layer.norm.running_mean)
    elif isinstance(layer, MSGCConv2d):
        nn.init.normal_(layer.maskgen.conv[3].weight)
        nn.init.normal_(layer.maskgen.conv[3].bias)
    return layer.double().eval()


@several
@given(
    bias=st.booleans(),
    affine=st.booleans(),
    norm=st.booleans(),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
    activation=st.booleans(),
)
def test_a_convolution_and_what_follows(
    bias, affine, norm, stride, padding, dilation, groups, activation
):
    conv = nn.Conv2d(
        4, 6, 3, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    ).double()
    norm = a_norm(6, affine=affine, eps=1e-2) if norm else None
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    expected = conv(x) if norm is None else norm(conv(x))
    (unit,) = units_of(conv, norm, *([RELU] if activation else []))
    y = Chain([unit])(x)
    torch.testing.assert_close(y, F.relu(expected) if activation else expected, **CLOSE)


LAYERS = {
    'depthwise': (lambda: nn.Conv2d(8, 8, 3, groups=8), [DepthwiseConv]),
    'one channel': (lambda: nn.Conv2d(1, 1, 3), [StaticConv]),
    'depth multiplied': (lambda: nn.Conv2d(4, 8, 3, groups=4), [StaticConv]),
    'FLGC': (lambda: FLGCConv2d(8, 8, 3, groups=3), [StaticConv]),
    'SGC': (lambda: SGCConv2d(8, 8, 3, groups=3), [StaticConv]),
    'fixed groups': (lambda: FixedGroupConv2d(8, 8, 3, groups=3), [StaticConv]),
    'MSGC': (lambda: MSGCConv2d(8, 8, 3, heads=2, attention=True), [SelfGatedConv]),
    'ragged MSGC': (lambda: MSGCConv2d(8, 8, 3, heads=3), [SelfGatedConv]),
    'DGC': (lambda: DGCConv2d(8, 8, 3, heads=2), [Normalise, SelfGatedConv]),
    'separable': (lambda: SeparableConv2d(8, 8, 3), [DepthwiseConv, StaticConv]),
    'separable 1x1': (lambda: SeparableConv2d(8, 8, 1), [StaticConv]),
    'separable MSGC': (
        lambda: SeparableConv2d(8, 8, 3, pointwise=MSGCConv2d),
        [DepthwiseConv, SelfGatedConv],
    ),
}


@pytest.mark.parametrize('name', LAYERS)
@torch.no_grad()
def test_each_kind_of_layer_has_its_units(name):
    torch.manual_seed(0)
    make, kinds = LAYERS[name]
    layer = randomised(make())
    channels = 1 if name == 'one channel' else 4 if name == 'depth multiplied' else 8
    norm = a_norm(1 if name == 'one channel' else 8)
    units = units_of(layer, norm, RELU)
    assert [type(unit) for unit in units] == kinds
    x = torch.randn(2, channels, 6, 5, dtype=torch.float64)
    torch.testing.assert_close(Chain(units)(x), F.relu(norm(layer(x))), **CLOSE)


@torch.no_grad()
def test_gates_of_the_host_are_those_of_contiguous_heads():
    layer = GroupedConv2d(6, 8, 3).double()
    (unit,) = units_of(layer, heads=4)
    assert isinstance(unit, GatedConv)
    gate = Gate((torch.rand(2, 4, 6) > 0.5).double())
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(Chain([unit])(x, [gate]), layer(x, gate), **CLOSE)


@torch.no_grad()
def test_frozen_gates_are_connections():
    layer = GroupedConv2d(6, 8, 3).double()
    layer.frozen = Gate((torch.rand(1, 4, 6) > 0.5).double(), torch.rand(1, 4, 6).double())
    (unit,) = units_of(layer, heads=4)
    assert isinstance(unit, StaticConv)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(Chain([unit])(x), layer(x, layer.frozen), **CLOSE)


def test_half_precision_layers_keep_their_precision():
    layer = GroupedConv2d(6, 8, 3).bfloat16()
    layer.frozen = Gate(torch.ones(1, 4, 6))  # float32, as gates are
    (unit,) = units_of(layer)
    assert unit.weight.dtype == torch.bfloat16


class WithPrepare(MSGCConv2d):
    def prepare(self, x):
        return 2 * x.relu()


class WithModules(MSGCConv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.first = nn.GroupNorm(2, self.in_channels)

    def before(self):
        return self.first, nn.Tanh()


class StaticWithPrepare(SGCConv2d):
    def prepare(self, x):
        return 2 * x.relu()


@pytest.mark.parametrize('kind', [WithPrepare, WithModules, StaticWithPrepare])
@torch.no_grad()
def test_what_a_layer_does_before_its_convolution_is_done(kind):
    torch.manual_seed(0)
    layer = randomised(kind(8, 8, 3))
    units = units_of(layer)
    assert type(units[0]) is Prepare
    x = torch.randn(2, 8, 6, 5, dtype=torch.float64)
    before = x.clone()
    torch.testing.assert_close(Chain(units)(x), layer(x), **CLOSE)
    assert torch.equal(x, before)


class OtherConv(nn.Conv2d):
    """One that may well compute something else."""


class OwnForward(FLGCConv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class OwnConvolve(DGCConv2d):
    def convolve(self, x, gate):
        return 2 * super().convolve(x, gate)


class LearnedGroups(MSGCConv2d):
    def decide(self, pooled):
        return super().decide(pooled)._replace(assign=torch.rand(8, 4))


@pytest.mark.parametrize(
    ('conv', 'reason'),
    [
        (OtherConv(4, 4, 3), 'OtherConv is not known'),
        (nn.Conv2d(4, 4, 3, padding_mode='reflect', padding=1), r'padding=\(1, 1\) with reflect'),
        (nn.Conv2d(4, 4, 3, padding='same'), "padding='same' with zeros"),
        (nn.ConvTranspose2d(4, 4, 3), 'ConvTranspose2d is not known'),
        (nn.Linear(4, 4), 'Linear is not known'),
        (GroupedConv2d(4, 4, 3), 'its gates come from a host that is not known'),
        (OwnForward(4, 4, 3), 'OwnForward has a forward of its own'),
        (OwnConvolve(4, 4, 3), 'OwnConvolve has a convolve of its own'),
        (LearnedGroups(8, 8, 3), 'its gates come with the image, its groups from a matrix'),
        (SeparableConv2d(4, 4, 3, pointwise=OtherConv), 'OtherConv is not known'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_compute_something_else_stays_eager(conv, reason):
    with pytest.raises(StaysEagerError, match=reason):
        units_of(conv)


def test_norms_that_are_a_fixed_scale_and_shift_fold():
    for norm in (None, nn.Identity(), nn.BatchNorm2d(4), nn.SyncBatchNorm(4)):
        assert can_fold(norm), norm
        assert len(units_of(nn.Conv2d(4, 4, 1), norm)) == 1


@pytest.mark.parametrize(
    'norm',
    [
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.ReLU(),
    ],
    ids=repr,
)
def test_other_norms_do_not_fold(norm):
    assert not can_fold(norm)
    with pytest.raises(StaysEagerError, match=f'its {type(norm).__name__} is no fixed scale'):
        units_of(nn.Conv2d(4, 4, 1), norm)


def test_the_layer_is_left_as_it_was():
    for name, (make, _) in LAYERS.items():
        layer = make()
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        # Without a norm the weight is nothing but a copy.
        for norm in (None, a_norm(1 if name == 'one channel' else 8).float()):
            for unit in units_of(layer, norm):
                for tensor in (*unit.parameters(), *unit.buffers()):
                    if tensor.dtype.is_floating_point:
                        tensor.data.zero_()
        after = layer.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[key], value) for key, value in before.items()), name
