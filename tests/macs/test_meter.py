import copy

import pytest
import torch
from torch import nn

from mmdet_groupconv.backbones.msgc_resnet import MSGCBasicBlock, MSGCBottleneck
from mmdet_groupconv.layers import (
    DGCConv2d,
    FixedGroupConv2d,
    FLGCConv2d,
    Gate,
    GatePool,
    GroupedConv2d,
    MaskGenerator,
    MSGCConv2d,
    SGCLinear,
)
from mmdet_groupconv.macs import MacMeter, MacReport


class Gated(nn.Module):
    """A 3x3 convolution, 4 -> 6 channels, with norm; on a 4x5 map."""

    def __init__(self):
        super().__init__()
        self.conv = GroupedConv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x, gate):
        return self.norm(self.conv(x, gate))


class Pair(nn.Module):
    """Two 1x1 convolutions, 2 -> 4 -> 2 channels; the second alone reads the first's output."""

    readers = {'second': ('first',)}  # noqa: RUF012

    def __init__(self, first):
        super().__init__()
        self.first = first(2, 4, 1, bias=False)
        self.second = GroupedConv2d(4, 2, 1, bias=False)

    def forward(self, x, second, *first):
        return self.second(self.first(x, *first), second)


class Called(nn.Module):
    """`layer` called `times` times, one after the other."""

    def __init__(self, layer, times):
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x, *args):
        for _ in range(self.times):
            x = self.layer(x, *args)
        return x


def metered(network, *args):
    with MacMeter(network) as meter:
        network(*args)
    return meter.take()


def gate_of(*heads):
    """One gate for every image: a list of 0/1 a head."""
    return Gate(torch.tensor([heads], dtype=torch.float32))


def hooks_left(network):
    return [
        hook
        for module in network.modules()
        for hooks in (module._forward_hooks, getattr(module, '_gate_hooks', {}))
        for hook in hooks.values()
    ]


def small_block(block_type=MSGCBasicBlock, attention=False, **kwargs):
    torch.manual_seed(0)
    channels = 8 * block_type.expansion
    return block_type(channels, 8, heads=2, attention=attention, **kwargs)


def images(channels=8, batch=3):
    torch.manual_seed(1)
    return torch.randn(batch, channels, 6, 5)


@pytest.mark.parametrize('golden_msgc_block', range(6), indirect=True)
def test_masked_and_unread_macs_are_the_published_ones(golden_msgc_block):
    case, block = golden_msgc_block
    macs = metered(block, case['x'])
    assert float(macs.masked) == pytest.approx(float(case['macs_masked']), rel=1e-6)
    assert float(macs.unread) == pytest.approx(float(case['macs_bonus']), rel=1e-6)


def test_open_gates_cost_the_dense_layer():
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), gate_of([1, 1, 1, 1], [1, 1, 1, 1]))
    # 3*3*4 inputs * 6 filters * 20 pixels = 4320, and 6*20 = 120 for the norm
    assert macs.original == 4440
    assert float(macs.masked) == 4440


def test_each_head_costs_the_channels_that_it_reads():
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), gate_of([1, 1, 0, 0], [1, 1, 1, 1]))
    # head 0: half of its 3 filters' 2220, head 1: all of 2220
    assert float(macs.masked) == 1110 + 2220
    assert float(macs.layers[0].density) == 0.75


def test_masked_is_the_mean_over_images():
    mask = torch.zeros(2, 2, 4)
    mask[0] = 1
    mask[1, 0, 0] = 1
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), Gate(mask))
    # image 0: 4440; image 1: one of eight, 4440/8 = 555
    assert float(macs.masked) == (4440 + 555) / 2


def test_strength_adds_the_multiplied_map_for_each_head():
    mask = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 1, 1]]])
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), Gate(mask, torch.ones(1, 2, 4)))
    # 2 heads * 4 channels * 20 pixels = 160 when open; 3/4 of it and of 4440 are
    assert float(macs.masked) == 0.75 * (4440 + 160)
    assert macs.original == 4440


def test_strength_itself_is_not_counted():
    mask = torch.ones(1, 2, 4)
    faint, strong = (
        metered(Gated(), torch.ones(1, 4, 4, 5), Gate(mask, torch.full((1, 2, 4), value)))
        for value in (0.1, 5.0)
    )
    assert float(faint.macs) == float(strong.macs)


@pytest.mark.parametrize(
    ('layer', 'shape', 'expected'),
    [
        # 3*3*4/2 inputs * 6 filters * 2*3 pixels (stride 2 of 4*5)
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 4, 5), 18 * 6 * 6),
        # 4 an output: 4 channels * 2*3 pixels
        (nn.MaxPool2d(3, stride=2, padding=1), (2, 4, 4, 5), 4 * 4 * 6),
        # its input
        (nn.AdaptiveAvgPool2d(1), (2, 4, 4, 5), 4 * 20),
        (nn.Linear(7, 3), (2, 7), 7 * 3),
        # 5 vectors an image
        (nn.Linear(7, 3), (2, 5, 7), 5 * 7 * 3),
        # a norm that no convolution comes before
        (nn.BatchNorm2d(4), (2, 4, 4, 5), 4 * 20),
        (nn.ReLU(), (2, 4, 4, 5), 0),
    ],
    ids=['conv', 'max-pool', 'global pool', 'linear', 'linear on vectors', 'norm', 'relu'],
)
def test_macs_of_one_dense_layer(layer, shape, expected):
    macs = metered(nn.Sequential(layer), torch.randn(shape))
    assert macs.original == macs.always_on == macs.macs == expected


def test_norm_belongs_to_the_convolution_before_it():
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    rows = metered(network, torch.randn(2, 2, 4, 5)).layers
    # 2*3*20 and the norm's 3*20
    assert [(row.name, row.original) for row in rows] == [('0', 120 + 60)]


def test_norm_of_something_else_has_its_own_row():
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.BatchNorm2d(3))
    rows = metered(network, torch.randn(2, 2, 4, 5)).layers
    assert [(row.name, row.original) for row in rows] == [('0', 120), ('2', 60)]


@pytest.mark.parametrize('name', ['downsample', 'linear_conv'])
def test_norm_of_shortcut_and_of_projection_is_not_counted(name):
    network = nn.Sequential()
    network.add_module(name, nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    assert metered(network, torch.randn(2, 2, 4, 5)).original == 120


def test_autocast_counts_the_same():
    # Norms are recognised by the tensor that they get, which autocast may replace.
    block, x = small_block().eval(), images()
    expected = metered(block, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        macs = metered(block, x)
    assert macs.original == expected.original
    assert [row.name for row in macs.layers] == [row.name for row in expected.layers]


def test_shared_layer_counts_at_every_call():
    conv = nn.Conv2d(2, 2, 1)
    assert metered(Called(conv, 2), torch.randn(1, 2, 4, 5)).original == 2 * 2 * 2 * 20


def test_shared_gated_layer_counts_at_every_call():
    layer = GroupedConv2d(2, 2, 1)
    macs = metered(Called(layer, 2), torch.randn(1, 2, 4, 5), gate_of([1, 0], [1, 1]))
    # 2*2*20 = 80 a call, three quarters of it
    assert macs.original == 160
    assert float(macs.masked) == 120


def test_unread_channels_of_a_dense_source_are_subtracted():
    # second: nobody reads channels 2 and 3 of first's 4
    macs = metered(Pair(nn.Conv2d), torch.randn(1, 2, 4, 5), gate_of([1, 0, 0, 0], [1, 1, 0, 0]))
    # first: 2*4*20 = 160, half unread
    assert float(macs.unread) == 80
    assert macs.always_on == 160


def test_unread_channels_of_a_gated_source_are_subtracted_from_what_its_heads_cost():
    first = gate_of([1, 0], [1, 1])
    second = gate_of([1, 0, 0, 0], [1, 1, 0, 0])
    macs = metered(Pair(GroupedConv2d), torch.randn(1, 2, 4, 5), second, first)
    # first's head 0 owns filters 0 and 1, both read; head 1 owns 2 and 3, both unread: 80 of 160
    assert float(macs.unread) == 80
    # first: 40 + 80; second: 4*2*20 = 160, of which 3 of 8 connections
    assert float(macs.masked) == 120 + 60
    assert float(macs.macs) == 180 - 80


def test_unread_is_the_mean_over_images():
    mask = torch.ones(2, 1, 4)
    mask[1, 0, 1:] = 0
    macs = metered(Pair(nn.Conv2d), torch.randn(2, 2, 4, 5), Gate(mask))
    # image 0: nothing; image 1: 3 of 4 channels of 160
    assert float(macs.unread) == 60


def test_unread_pairs_the_calls_of_a_shared_block():
    block = Pair(nn.Conv2d)
    with MacMeter(block) as meter:
        for mask, height in ([1, 1, 1, 1], 4), ([0, 0, 0, 1], 8):
            block(torch.randn(1, 2, height, 5), gate_of(mask, mask))
    # 160, of which none is unread, then three quarters of 320
    assert float(meter.take().unread) == 240


def test_gate_nets_are_counted_apart():
    network = nn.Sequential(GatePool(), MaskGenerator(8, 16, heads=2, reduction=4)).eval()
    macs = metered(network, torch.randn(2, 8, 4, 5))
    # pooling 8*20, (8 + 1 for the norm) * 2 hidden, 2 hidden * 2 heads * 16 channels
    assert macs.gate_nets == 160 + 18 + 64
    assert macs.original == macs.always_on == 0


def test_total_is_the_sum_of_its_parts():
    block = small_block(attention=True).eval()
    for net in (block.maskgen1, block.maskgen2):
        nn.init.normal_(net.conv[3].bias)
    macs = metered(block, images())
    total = macs.always_on + macs.masked - macs.unread + macs.gate_nets
    assert macs.unread > 0
    assert float(macs.macs) == float(total)
    assert float(macs.ratio) == float(total) / macs.original


def test_gradient_of_the_ratio_is_each_connections_share():
    mask = torch.ones(2, 2, 4, requires_grad=True)
    metered(Gated(), torch.randn(2, 4, 4, 5), Gate(mask)).ratio.backward()
    # 2 images, 2 heads, 4 channels: each of the 16 connections is a sixteenth
    torch.testing.assert_close(mask.grad, torch.full((2, 2, 4), 1 / 16))


@pytest.mark.parametrize('block_type', [MSGCBasicBlock, MSGCBottleneck])
def test_gradient_of_the_ratio_reaches_every_mask_net(block_type):
    block = small_block(block_type)
    metered(block, images(8 * block_type.expansion)).ratio.backward()
    for name, parameter in block.named_parameters():
        assert (parameter.grad is not None) == ('maskgen' in name), name


def test_no_gradient_flows_through_unread():
    block = small_block()
    nn.init.zeros_(block.maskgen2.conv[3].bias)
    macs = metered(block, images())
    assert float(macs.unread) > 0
    assert not macs.unread.requires_grad
    assert macs.masked.requires_grad


def test_no_gradient_flows_through_what_a_dense_source_saves():
    mask = torch.tensor([[[1.0, 0, 0, 0], [1, 1, 0, 0]]], requires_grad=True)
    macs = metered(Pair(nn.Conv2d), torch.randn(1, 2, 4, 5), Gate(mask))
    assert float(macs.unread) == 80
    assert not macs.unread.requires_grad


def test_nothing_is_recorded_outside_of_the_context():
    block = small_block().eval()
    with MacMeter(block) as meter:
        block(images())
    meter.take()
    block(images())
    assert meter.take().layers == []


@pytest.mark.parametrize('fails', [False, True])
def test_no_handle_is_left_behind(fails):
    block = small_block().eval()
    x = images(channels=7 if fails else 8)
    try:
        with MacMeter(block):
            assert hooks_left(block)
            block(x)
    except RuntimeError:
        assert fails
    assert hooks_left(block) == []


def test_meter_can_be_used_again():
    block = small_block().eval()
    meter, counts = MacMeter(block), []
    for _ in range(2):
        with meter:
            block(images())
        counts.append(float(meter.take().macs))
    assert counts[0] == counts[1] > 0


def test_take_forgets_what_it_returned():
    block = small_block().eval()
    with MacMeter(block) as meter:
        counts = []
        for _ in range(2):
            block(images())
            counts.append(float(meter.take().macs))
    assert counts[0] == counts[1] > 0


def test_reset_forgets_what_checkpointing_recomputes():
    block = small_block(with_cp=True).train()
    x = images().requires_grad_()
    with MacMeter(block) as meter:
        counts = []
        for _ in range(2):
            torch.manual_seed(2)
            y = block(x)
            counts.append(float(meter.take().macs.detach()))
            y.sum().backward()
            assert meter._calls  # the residual branch was computed, and counted, once more
            meter.reset()
    assert counts[0] == counts[1] > 0


def test_metered_network_can_be_copied():
    block = small_block().eval()
    with MacMeter(block):
        expected = block(images())
    assert torch.equal(copy.deepcopy(block)(images()), expected)


def in_groups(channels, filters, groups, **kwargs):
    """An FLGC layer whose channels and filters are in the given groups."""
    layer = FLGCConv2d(len(channels), len(filters), 1, groups=groups, bias=False, **kwargs)
    with torch.no_grad():
        for logits, members in (
            (layer.channel_logits, channels),
            (layer.filter_logits, filters),
        ):
            logits.copy_(nn.functional.one_hot(torch.tensor(members), groups))
    return layer


def test_ragged_groups_cost_filters_times_channels_read():
    macs = metered(FixedGroupConv2d(5, 7, 1, groups=3), torch.randn(2, 5, 4, 5))
    # 3, 2 and 2 filters that read 2, 2 and 1 channels, on 20 pixels
    assert float(macs.masked) == pytest.approx((3 * 2 + 2 * 2 + 2 * 1) * 20)
    assert macs.original == 5 * 7 * 20
    assert float(macs.layers[0].density) == pytest.approx(12 / 35)


@pytest.mark.parametrize(
    'assign',
    [
        torch.tensor([1, 0, 1, 1, 1, 0]),
        torch.tensor([[0.0, 1], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]]),
    ],
    ids=['integers', 'one-hot'],
)
def test_groups_in_any_order_cost_filters_times_channels_read(assign):
    gate = gate_of([1, 0, 0, 0], [1, 1, 1, 0])._replace(assign=assign)
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), gate)
    # 2 filters read 1 channel, 4 filters read 3: 14 of 24 connections of 4440
    assert float(macs.masked) == pytest.approx(4440 * 14 / 24)


def test_strength_multiplies_the_map_once_a_group_whatever_its_size():
    mask = torch.tensor([[[1.0, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]])
    assign = torch.tensor([0, 0, 0, 0, 0, 1])  # nobody is in group 2
    gate = Gate(mask, torch.ones(1, 3, 4), assign)
    macs = metered(Gated(), torch.randn(2, 4, 4, 5), gate)
    # 5 filters read 2 channels, 1 reads 4: 14 of 24; the map is 2 + 4 channels of 20 pixels
    assert float(macs.masked) == pytest.approx(4440 * 14 / 24 + 6 * 20)


def test_flgc_costs_each_groups_filters_times_its_channels():
    layer = in_groups([0, 0, 0, 1, 2], [0, 1, 1, 1], groups=3)
    macs = metered(layer, torch.randn(2, 5, 4, 5))
    # |K_g| |C_g|: 1 * 3 + 3 * 1 + 0 * 1
    assert float(macs.masked.detach()) == pytest.approx(6 * 20)
    assert macs.original == 5 * 4 * 20


def test_gradient_of_masked_reaches_flgcs_logits():
    layer = in_groups([0, 0, 0, 1], [0, 1, 1], groups=2)
    metered(layer, torch.randn(2, 4, 4, 5)).masked.backward()
    for logits in (layer.channel_logits, layer.filter_logits):
        assert (logits.grad != 0).all()
    # A channel is cheaper in group 0, with its one filter; a filter in group 1, with one channel.
    assert (layer.channel_logits.grad[:, 0] < 0).all()
    assert (layer.filter_logits.grad[:, 1] < 0).all()


def test_no_gradient_flows_through_what_unread_filters_of_flgc_save():
    network = Pair(nn.Conv2d)
    network.first = in_groups([0, 1], [0, 0, 1, 1], groups=2)
    macs = metered(network, torch.randn(1, 2, 4, 5), gate_of([1, 0, 1, 1], [1, 0, 1, 1]))
    # nobody reads channel 1, which reads one channel itself
    assert float(macs.unread) == pytest.approx(20)
    assert not macs.unread.requires_grad


def test_linear_layers_are_grouped_too():
    layer = SGCLinear(6, 4)
    layer.mask[1:] = 0
    macs = metered(nn.Sequential(layer), torch.randn(3, 6))
    assert (macs.original, float(macs.masked)) == (24, 6)


def test_channels_that_only_an_empty_group_reads_are_unread():
    second = Gate(torch.tensor([[[1.0, 0, 0, 0], [1, 1, 1, 1]]]), assign=torch.tensor([0, 0]))
    macs = metered(Pair(nn.Conv2d), torch.randn(1, 2, 4, 5), second)
    # three of first's four channels, 160 together
    assert float(macs.unread) == 120


def test_unread_filters_of_ragged_groups_are_subtracted_from_what_theirs_cost():
    first = gate_of([1, 0], [1, 1])._replace(assign=torch.tensor([1, 0, 1, 1]))
    second = gate_of([1, 0, 0, 1], [1, 0, 0, 1])
    macs = metered(Pair(GroupedConv2d), torch.randn(1, 2, 4, 5), second, first)
    # unread are filter 1, which reads one channel, and filter 2, which reads two
    assert float(macs.unread) == pytest.approx(3 * 20)


@pytest.mark.parametrize('reader', [MSGCConv2d, DGCConv2d])
def test_what_a_gate_is_made_from_is_never_unread(reader):
    network = Pair(nn.Conv2d)
    network.second = reader(4, 2, 1, heads=2, bias=False)
    network.forward = lambda x: network.second(network.first(x))
    if reader is DGCConv2d:
        network.second.set_progress(1)
    else:
        nn.init.constant_(network.second.maskgen.conv[3].bias, -9.0)
        network.second.eval()
    macs = metered(network, torch.randn(2, 2, 4, 5))
    assert float(macs.masked) < 4 * 2 * 20
    assert macs.unread == 0


def test_what_a_layers_own_gate_takes_to_decide_is_no_host_work():
    macs = metered(MSGCConv2d(8, 6, 3, heads=2, padding=1).eval(), torch.randn(2, 8, 4, 5))
    assert macs.original == 9 * 8 * 6 * 20
    # pooling 8*20, (8 + 1 for the norm) * 2 hidden, 2 hidden * 2 heads * 8 channels
    assert macs.gate_nets == 160 + 18 + 32


class Boxes(nn.Module):
    """A convolution of images, then `layer` of boxes."""

    def __init__(self, layer):
        super().__init__()
        self.images, self.boxes = nn.Conv2d(2, 3, 1), layer

    def forward(self, x, boxes, *gate):
        self.images(x)
        return self.boxes(boxes, *gate)


def test_boxes_count_by_image():
    mask = torch.ones(7, 2, 4)
    mask[:, 0] = 0
    network = Boxes(GroupedConv2d(4, 6, 1))
    macs = metered(network, torch.randn(2, 2, 4, 5), torch.randn(7, 4, 3, 3), Gate(mask))
    # 4*6*9 a box, 3.5 boxes an image, half of the connections
    assert macs.always_on == 2 * 3 * 20
    assert macs.original == macs.always_on + 3.5 * 216
    assert float(macs.masked) == 3.5 * 108


def test_boxes_of_dense_and_linear_layers_count_by_image():
    network = Boxes(nn.Sequential(nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(54, 5)))
    macs = metered(network, torch.randn(2, 2, 4, 5), torch.randn(7, 4, 3, 3))
    assert macs.original == 2 * 3 * 20 + 3.5 * (4 * 6 * 9 + 54 * 5)


def test_no_boxes_cost_nothing():
    network = Boxes(GroupedConv2d(4, 6, 1))
    gate = Gate(torch.ones(0, 2, 4))
    macs = metered(network, torch.randn(2, 2, 4, 5), torch.randn(0, 4, 3, 3), gate)
    assert float(macs.macs) == macs.original == 2 * 3 * 20


def test_no_boxes_leave_nothing_unread():
    network = Boxes(Pair(GroupedConv2d))
    gates = Gate(torch.ones(0, 2, 4)), Gate(torch.ones(0, 2, 2))
    macs = metered(network, torch.randn(2, 2, 4, 5), torch.randn(0, 2, 3, 3), *gates)
    assert float(macs.unread) == 0


def test_part_is_one_childs_rows():
    network = nn.Module()
    network.neck, network.neck2 = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 1)
    network.backbone = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    network.forward = lambda x: network.neck2(network.neck(network.backbone(x)))
    macs = metered(network, torch.randn(2, 2, 4, 5))
    assert [row.name for row in macs.part('backbone').layers] == ['backbone.0', 'backbone.1']
    assert macs.part('backbone').original == 2 * 2 * 2 * 20
    assert macs.part('neck').original == 2 * 3 * 20
    assert macs.part('head').original == 0


def test_open_gates_opens_those_that_depend_on_the_image_alone():
    network = nn.Sequential(
        MSGCConv2d(4, 4, 1, heads=2, bias=False),
        FixedGroupConv2d(4, 4, 1, groups=2, bias=False),
        MSGCConv2d(4, 4, 1, heads=2, bias=False),
    ).eval()
    nn.init.constant_(network[0].maskgen.conv[3].bias, -9.0)
    network[2].frozen = Gate(torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 0]]]))
    with MacMeter(network) as meter:
        network(torch.randn(2, 4, 4, 5))
        meter.open_gates()
    rows = [row for row in meter.take().layers if row.density is not None]
    assert [float(row.density) for row in rows] == [1, 0.5, 0.125]


def test_nothing_has_a_ratio_of_one():
    assert MacReport([]).ratio == 1.0


def test_layers_can_be_counted_for_another_number_of_boxes():
    network = Boxes(nn.Sequential(nn.Conv2d(4, 6, 1), nn.Flatten(), nn.Linear(54, 5)))
    with MacMeter(network) as meter:
        network(torch.randn(2, 2, 4, 5), torch.randn(7, 4, 3, 3))
        meter.count_for('boxes', 100)
    assert meter.take().original == 2 * 3 * 20 + 100 * (4 * 6 * 9 + 54 * 5)


def test_what_a_meter_is_told_not_to_count_is_not_counted():
    block = small_block().eval()
    with MacMeter(block) as meter:
        meter.counting = False
        block(images())
    assert meter.take().layers == []


def test_a_plain_report_needs_no_network():
    report = metered(small_block(), images())
    plain = report.plain()
    assert report.macs.requires_grad
    assert plain.macs == pytest.approx(float(report.macs))
    assert type(plain.macs) is float
