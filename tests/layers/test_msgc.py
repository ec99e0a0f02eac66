import itertools

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import initialize
from torch import nn

from mmdet_groupconv.layers import (
    AttentionGenerator,
    GatePool,
    MaskGenerator,
    MSGCConv2d,
    add_gate_nets,
    gate_nets,
    make_gate,
)

NETS = [MaskGenerator, AttentionGenerator]
PUBLISHED = {
    # 16 channels in, 16 // 4 hidden, 2 heads * 8 channels out
    'conv.0.weight': (4, 16, 1, 1),
    'conv.1.weight': (4,),
    'conv.1.bias': (4,),
    'conv.3.weight': (16, 4, 1, 1),
    'conv.3.bias': (16,),
}


@pytest.fixture
def pooled():
    torch.manual_seed(0)
    return torch.randn(3, 16, 1, 1)


@pytest.mark.parametrize('net_type', NETS)
def test_parameters_have_the_published_names_and_shapes(net_type):
    net = net_type(16, 8, heads=2, reduction=4)
    assert {name: tuple(p.shape) for name, p in net.named_parameters()} == PUBLISHED


def test_at_least_one_hidden_channel():
    assert MaskGenerator(4, 8, heads=1, reduction=8).conv[0].out_channels == 1


@pytest.mark.parametrize('net_type', NETS)
def test_output_is_batch_heads_channels(net_type, pooled):
    assert net_type(16, 8, heads=2, reduction=4)(pooled).shape == (3, 2, 8)


def test_heads_are_contiguous_in_the_last_convolution(pooled):
    net = MaskGenerator(16, 8, heads=2, reduction=4).eval()
    nn.init.zeros_(net.conv[3].weight)
    with torch.no_grad():
        net.conv[3].bias.copy_(torch.cat([torch.full((8,), -1.0), torch.ones(8)]))
    assert torch.equal(net(pooled)[:, 0], torch.zeros(3, 8))
    assert torch.equal(net(pooled)[:, 1], torch.ones(3, 8))


def test_masks_start_almost_open():
    net = MaskGenerator(16, 8, heads=2, reduction=4)
    assert torch.equal(net.conv[3].bias, torch.full((16,), 2.0))


@pytest.mark.parametrize('training', [True, False])
def test_attention_starts_as_exactly_1(pooled, training):
    net = AttentionGenerator(16, 8, heads=2, reduction=4).train(training)
    assert torch.equal(net(pooled), torch.ones(3, 2, 8))


def test_attention_may_be_any_number(pooled):
    net = AttentionGenerator(16, 8, heads=2, reduction=4).eval()
    nn.init.normal_(net.conv[3].weight)
    values = net(pooled)
    torch.testing.assert_close(values, net.conv(pooled).view(3, 2, 8))
    assert values.unique().numel() > 8


def test_weights_are_he_initialised():
    torch.manual_seed(0)
    net = MaskGenerator(512, 512, heads=4, reduction=4)
    # fan_out, gain sqrt(2): 128 hidden filters sqrt(2/128) = 0.125, 2048 outputs sqrt(2/2048)
    assert net.conv[0].weight.std().item() == pytest.approx(0.125, rel=0.02)
    assert net.conv[3].weight.std().item() == pytest.approx(0.03125, rel=0.02)


@pytest.mark.parametrize('net_type', NETS)
def test_init_weights_undoes_a_hosts_initialisation(net_type):
    net = net_type(16, 8, heads=2, reduction=4)
    expected = net.conv[3].bias.clone()
    nn.init.zeros_(net.conv[3].bias)
    net.init_weights()
    assert torch.equal(net.conv[3].bias, expected)


@pytest.mark.parametrize('training', [True, False])
def test_masks_are_exactly_0_or_1(pooled, training):
    net = MaskGenerator(16, 64, heads=2, reduction=4).train(training)
    nn.init.zeros_(net.conv[3].bias)
    assert net(pooled).unique().tolist() == [0.0, 1.0]


def test_evaluation_opens_where_the_logit_is_not_negative(pooled):
    net = MaskGenerator(16, 8, heads=2, reduction=4).eval()
    nn.init.zeros_(net.conv[3].bias)
    expected = (net.conv(pooled) >= 0).float().view(3, 2, 8)
    assert torch.equal(net(pooled), expected)


def test_training_reaches_every_parameter(pooled):
    net = MaskGenerator(16, 8, heads=2, reduction=4)
    net(pooled).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'


@pytest.mark.parametrize('net_type', NETS)
def test_autocast_changes_nothing(net_type, pooled):
    net = net_type(16, 64, heads=2, reduction=4)
    for case in itertools.product((torch.bfloat16, torch.float16), (True, False)):
        dtype, training = case
        net.train(training)
        handed_over = pooled.to(dtype)  # by a convolution under autocast
        torch.manual_seed(1)
        expected = net(handed_over.float())
        torch.manual_seed(1)
        with torch.autocast('cpu', dtype=dtype):
            values = net(handed_over)
        assert values.dtype is torch.float32, case
        assert torch.equal(values, expected), case


@pytest.mark.parametrize('net_type', NETS)
def test_one_image_in_training_raises(net_type, pooled):
    net = net_type(16, 8, heads=2, reduction=4)
    with pytest.raises(ValueError, match=r'batch of 1 image, expected 2 or more.*norm_eval=True'):
        net(pooled[:1])


@pytest.mark.parametrize('net_type', NETS)
def test_one_image_in_training_is_fine_with_the_norm_in_eval_mode(net_type, pooled):
    net = net_type(16, 8, heads=2, reduction=4)
    net.conv[1].eval()
    assert net(pooled[:1]).shape == (1, 2, 8)


@pytest.mark.parametrize('net_type', NETS)
def test_one_image_in_evaluation_is_fine(net_type, pooled):
    assert net_type(16, 8, heads=2, reduction=4).eval()(pooled[:1]).shape == (1, 2, 8)


def test_gate_pool_is_the_mean_over_the_map():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4)
    torch.testing.assert_close(GatePool()(x), x.mean(dim=(2, 3), keepdim=True))


@pytest.mark.parametrize(
    ('attention', 'names'), [(False, ['maskgen2']), (True, ['maskgen2', 'attgen2'])]
)
def test_nets_are_added_under_their_published_names(attention, names):
    block = nn.Module()
    add_gate_nets(block, '2', 16, 8, 2, 4, attention)
    assert [name for name, _ in block.named_children()] == names


def test_gate_without_attention_has_no_strength(pooled):
    block = nn.Module()
    add_gate_nets(block, '2', 16, 8, 2, 4, False)
    gate = make_gate(gate_nets(block, '2'), pooled)
    assert gate.strength is None
    assert gate.value is gate.mask


def test_gate_with_attention_is_mask_times_strength(pooled):
    block = nn.Module()
    add_gate_nets(block, '', 16, 8, 2, 4, True)
    block.eval()
    nn.init.normal_(block.attgen.conv[3].weight)
    nn.init.zeros_(block.maskgen.conv[3].bias)
    gate = make_gate(gate_nets(block, ''), pooled)
    assert torch.equal(gate.mask, block.maskgen(pooled))
    assert torch.equal(gate.strength, block.attgen(pooled))
    assert torch.equal(gate.value, gate.mask * gate.strength)


def opened(*args, **kwargs):
    """A layer whose gates are open, whatever it sees."""
    layer = MSGCConv2d(*args, **kwargs).eval()
    nn.init.zeros_(layer.maskgen.conv[3].weight)
    return layer


def undecided(*args, **kwargs):
    """A layer whose gates depend on the image."""
    torch.manual_seed(0)
    layer = MSGCConv2d(*args, **kwargs).eval()
    nn.init.zeros_(layer.maskgen.conv[3].bias)
    return layer


def gates_of(layer, *inputs):
    gates = []
    handle = layer.register_gate_hook(lambda _, gate, *__: gates.append(gate))
    for x in inputs:
        layer(x)
    handle.remove()
    return gates


@pytest.mark.parametrize(('filters', 'heads'), [(8, 4), (7, 3), (6, 1)])
def test_open_gates_leave_the_dense_convolution(filters, heads):
    for attention in (True, False):
        layer = opened(8, filters, 3, heads=heads, attention=attention, stride=2, padding=1)
        x = torch.randn(2, 8, 7, 6)
        expected = F.conv2d(x, layer.weight, layer.bias, 2, 1)
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ('filters', 'group'), [(8, [0, 0, 0, 0, 1, 1, 1, 1]), (5, [0, 0, 0, 1, 1])]
)
@pytest.mark.parametrize('attention', [True, False])
def test_each_filter_reads_what_its_head_does(attention, filters, group):
    layer = undecided(6, filters, 3, heads=2, attention=attention)
    if attention:
        nn.init.normal_(layer.attgen.conv[3].weight)
    x = torch.randn(3, 6, 5, 5)
    (gate,) = gates_of(layer, x)
    assert 0 < gate.mask.mean() < 1
    value = gate.mask * gate.strength if attention else gate.mask
    expected = torch.cat(
        [
            F.conv2d(x * value[:, g, :, None, None], layer.weight[k : k + 1], layer.bias[k : k + 1])
            for k, g in enumerate(group)
        ],
        dim=1,
    )
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_gates_differ_by_image_and_call():
    layer = undecided(16, 8, 1)
    first, second = (torch.randn(2, 16, size, size) for size in (6, 3))
    one, two = gates_of(layer, first, second)
    assert one.mask.shape == two.mask.shape == (2, 4, 16)
    assert not torch.equal(one.mask[0], one.mask[1])
    assert not torch.equal(one.mask, two.mask)


@pytest.mark.parametrize('training', [True, False])
def test_an_images_gate_does_not_depend_on_its_batch(training):
    layer = undecided(16, 8, 1, attention=True).train(training)
    nn.init.normal_(layer.attgen.conv[3].weight)
    x = torch.randn(3, 16, 4, 4)
    whole, alone = gates_of(layer, x, x[1:2])
    torch.testing.assert_close(whole.strength[1:2], alone.strength)


@pytest.mark.parametrize('channels', [4, 16])  # 4 channels: hardly a hidden one to normalise over
def test_layer_trains_on_one_image(channels):
    torch.manual_seed(0)
    layer = MSGCConv2d(channels, 8, 3, attention=True)
    nn.init.normal_(layer.attgen.conv[3].weight)
    layer(torch.randn(1, channels, 5, 5)).square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_layer_without_boxes_has_no_output():
    assert MSGCConv2d(8, 6, 3)(torch.zeros(0, 8, 5, 5)).shape == (0, 6, 3, 3)


def test_layers_state_is_the_dense_one_and_its_nets():
    dense = {'weight', 'bias'}
    added = set(MSGCConv2d(8, 6, 3, attention=True).state_dict()) - dense
    assert {key.split('.')[0] for key in added} == {'maskgen', 'attgen'}


def test_init_cfg_reaches_the_weight_but_not_the_nets():
    torch.manual_seed(0)
    layer = MSGCConv2d(64, 64, 3, attention=True)
    before = {name: p.clone() for name, p in layer.named_parameters() if 'gen' in name}
    initialize(layer, dict(type='Normal', layer='Conv2d', std=0.01))
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    for name, value in before.items():
        assert torch.equal(layer.get_parameter(name), value), name


def test_init_gates_opens_them():
    layer = undecided(16, 8, 1, attention=True)
    nn.init.normal_(layer.attgen.conv[3].weight)
    layer.init_gates()
    assert torch.equal(layer.maskgen.conv[3].bias, torch.full((64,), 2.0))
    assert torch.equal(layer.attgen.conv[3].weight, torch.zeros_like(layer.attgen.conv[3].weight))


def test_more_heads_than_channels_raise():
    with pytest.raises(ValueError, match='MSGCConv2d has 8 -> 3 channels for 4 heads'):
        MSGCConv2d(8, 3, 1)
    assert MSGCConv2d.why_dense(8, 3, attention=True) == '8 -> 3 channels for 4 heads'
    assert MSGCConv2d.why_dense(8, 4) is None


IMPORTANCE = torch.tensor([[0.3, 9.0, 0.1, 0.2], [5.0, 7.0, 8.0, 6.0]])


def test_gates_start_by_rank_of_importance_in_each_head():
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    net.start_from_importance(IMPORTANCE)
    # from 1 to 3 in three steps of 2/3: ranks 2, 3, 0, 1 and 0, 2, 3, 1
    expected = torch.tensor([7 / 3, 3, 1, 5 / 3, 1, 7 / 3, 3, 5 / 3])
    torch.testing.assert_close(net.conv[3].bias.detach(), expected)


def test_what_the_budget_does_not_keep_starts_the_closest_to_being_closed():
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    net.start_from_importance(IMPORTANCE, kept=0.5)
    expected = torch.tensor([1.0, 3.0, 0.2, 0.8, 0.2, 1.0, 3.0, 0.8])
    torch.testing.assert_close(net.conv[3].bias.detach(), expected)


@pytest.mark.parametrize('training', [True, False])
def test_gates_start_open_whatever_the_image(training):
    net = MaskGenerator(16, 4, heads=2, reduction=4).train(training)
    net.noise = 0.0
    for kept in (0.0, 0.5, 1.0):
        net.start_from_importance(IMPORTANCE, kept)
        assert torch.equal(net(1e3 * torch.randn(5, 16, 1, 1)), torch.ones(5, 2, 4)), kept


@pytest.mark.parametrize('noise', [0.0, 1.0])
def test_a_mask_that_is_held_is_there_for_every_image_whatever_is_learned(pooled, noise):
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    net.noise = noise
    mask = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 0]])
    assert net.held is None
    net.hold(mask)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    for _ in range(5):
        assert torch.equal(net(pooled), mask.expand(len(pooled), 2, 4))
        optimizer.zero_grad()
        (1e3 * net(pooled)).sum().backward()
        optimizer.step()
    assert torch.equal(net.eval()(pooled), mask.expand(len(pooled), 2, 4))
    assert torch.equal(net.held, mask)


def test_gates_that_start_by_importance_learn_all_parameters(pooled):
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    net.noise = 0.0
    net.start_from_importance(IMPORTANCE)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(2):  # the first layer's turn comes when the last one's weights have left zero
        optimizer.zero_grad()
        net(pooled).sum().backward()
        optimizer.step()
    for name, parameter in net.named_parameters():
        assert parameter.grad.count_nonzero() > 0, f'no gradient for {name}'


def test_a_pressure_on_all_gates_closes_the_least_important_first(pooled):
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    net.noise = 0.0
    net.start_from_importance(IMPORTANCE)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    while (mask := net(pooled)).mean() > 0.5:
        optimizer.zero_grad()
        mask.mean().backward()
        optimizer.step()
    assert mask[0].tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ('importance', 'message'),
    [
        (torch.ones(4, 2), r'importance has shape \(4, 2\), expected \(2, 4\)'),
        (torch.ones(8), r'importance has shape \(8,\), expected \(2, 4\)'),
        (IMPORTANCE / 0, 'importance has values that are not finite'),
    ],
)
def test_importance_of_another_shape_or_not_finite_is_refused(importance, message):
    net = MaskGenerator(16, 4, heads=2, reduction=4)
    before = net.conv[3].bias.clone()
    with pytest.raises(ValueError, match=message):
        net.start_from_importance(importance)
    assert torch.equal(net.conv[3].bias, before)


@pytest.mark.parametrize(('filters', 'heads'), [(8, 4), (7, 3)])
def test_a_layer_starts_as_the_dense_convolution(filters, heads):
    layer = MSGCConv2d(8, filters, 3, heads=heads, attention=True, padding=1)
    layer.maskgen.noise = 0.0
    layer.maskgen.start_from_importance(torch.rand(heads, 8))
    x = 5 * torch.randn(2, 8, 7, 6)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
