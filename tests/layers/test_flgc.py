import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.layers import FLGCConv2d


def layer_of(channel_logits, filter_logits, kernel=1, **kwargs):
    """A layer in float64 with the given rows of S and T."""
    torch.manual_seed(0)
    channels, filters = torch.tensor(channel_logits), torch.tensor(filter_logits)
    layer = FLGCConv2d(len(channels), len(filters), kernel, groups=channels.size(1), **kwargs)
    layer.double()
    with torch.no_grad():
        layer.channel_logits.copy_(channels)
        layer.filter_logits.copy_(filters)
    return layer


def slow(layer, x):
    """Filter by filter, channel by channel: a filter reads the channels of its own group."""
    geometry = layer.stride, layer.padding, layer.dilation
    y = []
    for k, wanted in enumerate(layer.filter_logits.tolist()):
        group = wanted.index(max(wanted))
        weight = layer.weight[k : k + 1]
        total = 0 * F.conv2d(x, weight, None, *geometry)
        for c, offered in enumerate(layer.channel_logits.tolist()):
            if offered.index(max(offered)) == group:
                total = total + F.conv2d(x[:, c : c + 1], weight[:, c : c + 1], None, *geometry)
        y.append(total if layer.bias is None else total + layer.bias[k])
    return torch.cat(y, dim=1)


def through_softmax(logits, gradient):
    """What a gradient of the rows' softmax is to the logits, entry by entry."""
    soft = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    rows, groups = logits.shape
    out = torch.zeros_like(logits)
    for i in range(rows):
        for a in range(groups):
            for b in range(groups):
                out[i, a] += gradient[i, b] * soft[i, b] * (float(a == b) - soft[i, a])
    return out


def one_hot(logits):
    return F.one_hot(logits.argmax(dim=1), logits.size(1)).double()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_value_equals_the_formula(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    torch.manual_seed(draw(0, 99))
    channels, filters = draw(1, 7), draw(1, 7)
    geometry = dict(stride=draw(1, 2), padding=draw(0, 2), dilation=draw(1, 2))
    groups = draw(1, min(channels, filters))
    layer = FLGCConv2d(
        channels, filters, draw(1, 3), groups=groups, bias=data.draw(st.booleans()), **geometry
    ).double()
    x = torch.randn(draw(1, 3), channels, draw(5, 8), draw(5, 8), dtype=torch.float64)
    torch.testing.assert_close(layer(x), slow(layer, x))


@pytest.mark.parametrize('groups', [1, 3, 5, 7])
def test_value_and_gradients_equal_the_formula(groups):
    torch.manual_seed(0)
    layer = FLGCConv2d(9, 8, 3, groups=groups, stride=2, padding=1).double()
    x = torch.randn(2, 9, 5, 6, dtype=torch.float64, requires_grad=True)
    s, t = layer.channel_logits.detach(), layer.filter_logits.detach()
    y = layer(x)
    upstream = torch.randn_like(y)
    y.backward(upstream)

    torch.testing.assert_close(y, slow(layer, x))
    weight = layer.weight.detach()
    mask = torch.einsum('kg,cg->kc', one_hot(t), one_hot(s))
    masked = (weight * mask[..., None, None]).requires_grad_()
    leaf = x.detach().requires_grad_()
    F.conv2d(leaf, masked, None, 2, 1).backward(upstream)
    of_mask = torch.einsum('kcuv,kcuv->kc', masked.grad, weight)
    of_s = through_softmax(s, torch.einsum('kc,kg->cg', of_mask, one_hot(t)))
    of_t = through_softmax(t, torch.einsum('kc,cg->kg', of_mask, one_hot(s)))
    torch.testing.assert_close(x.grad, leaf.grad)
    torch.testing.assert_close(layer.weight.grad, masked.grad * mask[..., None, None])
    torch.testing.assert_close(layer.bias.grad, upstream.sum(dim=(0, 2, 3)))
    torch.testing.assert_close(layer.channel_logits.grad, of_s)
    torch.testing.assert_close(layer.filter_logits.grad, of_t)


def test_gradients_of_three_channels_worked_out_by_hand():
    ln3 = math.log(3)  # softmax of (0, ln 3) is (1/4, 3/4)
    layer = layer_of([[0, ln3], [ln3, 0], [0, ln3]], [[ln3, 0], [0, ln3]], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]])[..., None, None])
    y = layer(torch.tensor([1.0, 2, 3], dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    # filter 0 is of group 0 and reads channel 1: 2*2; filter 1 channels 0 and 2: 4*1 + 6*3
    assert y.tolist() == [4, 22]

    (y * torch.tensor([1.0, 10])).sum().backward()
    # to the mask: upstream * weight * x = (1, 4, 9) of filter 0, (40, 100, 180) of filter 1;
    # channel 0 would give 1 to group 0's filter and 40 to group 1's, and so on. A softmax of two
    # passes on 1/4 * 3/4 of the difference.
    differences = [[1 - 40, 40 - 1], [4 - 100, 100 - 4], [9 - 180, 180 - 9]]
    expected = torch.tensor(differences).double() * 3 / 16
    torch.testing.assert_close(layer.channel_logits.grad, expected)
    # filter 0 would get 4 from group 0's channel, 1 + 9 from group 1's; filter 1 100 and 40 + 180
    differences = [[4 - 10, 10 - 4], [100 - 220, 220 - 100]]
    expected = torch.tensor(differences).double() * 3 / 16
    torch.testing.assert_close(layer.filter_logits.grad, expected)


def test_gradient_reaches_every_entry_of_a_row():
    torch.manual_seed(0)
    layer = FLGCConv2d(9, 8, 3, groups=5)
    layer(torch.randn(2, 9, 5, 5)).square().sum().backward()
    for logits in (layer.channel_logits, layer.filter_logits):
        assert (logits.grad != 0).all()


@pytest.mark.parametrize('moved', ['channel_logits', 'filter_logits'])
def test_optimiser_steps_move_members_to_groups_that_they_were_not_in(moved):
    # Channel 0 and filter 1 belong together, but start apart. Each one's present group has no use
    # for it (weights of 0), so a gradient of the winning entry alone would be 0.
    layer = layer_of([[0.1, 0.0], [0.0, 0.1]], [[0.1, 0.0], [0.0, 0.1]], bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0]])[..., None, None])
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    target = x[:, :1].repeat(1, 2, 1, 1) * torch.tensor([0.0, 1.0])[:, None, None]
    logits = getattr(layer, moved)
    before = logits.argmax(dim=1).tolist()
    optimizer = torch.optim.SGD([logits], lr=0.2)
    for _ in range(5):
        optimizer.zero_grad()
        (layer(x) - target).square().mean().backward()
        optimizer.step()
    assert before == [0, 1]
    assert logits.argmax(dim=1).tolist() == ([1, 1] if moved == 'channel_logits' else [0, 0])
    torch.testing.assert_close(layer(x), target)


def test_filters_of_a_group_without_channels_give_the_bias_alone():
    layer = layer_of([[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], kernel=3)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    y = layer(x)
    assert torch.equal(y[:, 1], layer.bias[1].expand(2, 3, 3))
    dense = F.conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(y[:, [0, 2]], dense[:, [0, 2]])


def test_channels_of_a_group_without_filters_are_not_read():
    layer = layer_of([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]])
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    other = x + torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    assert torch.equal(layer(x), layer(other))
    expected = F.conv2d(x[:, :1], layer.weight[:, :1], layer.bias)
    torch.testing.assert_close(layer(x), expected)


def test_channels_and_filters_in_no_common_group_give_the_bias_alone():
    layer = layer_of([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]])
    y = layer(torch.randn(2, 2, 5, 5, dtype=torch.float64))
    assert torch.equal(y, layer.bias[:, None, None].expand_as(y))


def test_one_group_is_the_dense_convolution():
    layer = FLGCConv2d(6, 5, 3, groups=1, padding=1)
    x = torch.randn(2, 6, 5, 5)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)


def test_groups_out_of_range_raise():
    for groups in (0, 5, -1, 2.0):
        message = f'groups={groups} of FLGCConv2d with 4 -> 6 channels, expected an integer of 1 to'
        with pytest.raises(ValueError, match=message):
            FLGCConv2d(4, 6, 1, groups=groups)


def test_filters_limit_the_groups_too():
    with pytest.raises(ValueError, match=r'groups=4 .* expected an integer of 1 to 3'):
        FLGCConv2d(8, 3, 1, groups=4)


def test_gate_is_one_for_all_images_and_exactly_one_hot():
    layer, gates = FLGCConv2d(8, 6, 1, groups=3), []
    layer.register_gate_hook(lambda _, gate, *__: gates.append(gate))
    layer(torch.randn(2, 8, 3, 3))
    (gate,) = gates
    assert layer.static_gate
    assert torch.equal(gate.mask[0].t(), one_hot(layer.channel_logits).float())
    assert torch.equal(gate.assign, one_hot(layer.filter_logits).float())


def test_its_logits_come_on_top_of_the_dense_state():
    state = FLGCConv2d(8, 6, 1, groups=3).state_dict()
    assert set(state) == {'weight', 'bias', 'channel_logits', 'filter_logits'}


def test_groups_start_at_random():
    torch.manual_seed(0)
    layer = FLGCConv2d(64, 64, 1, groups=4)
    for logits in (layer.channel_logits, layer.filter_logits):
        assert logits.argmax(dim=1).unique().tolist() == [0, 1, 2, 3]
        assert logits.std().item() == pytest.approx(0.1, rel=0.2)


def test_trains_under_autocast():
    torch.manual_seed(0)
    layer = FLGCConv2d(8, 6, 3, groups=3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = layer(torch.randn(2, 8, 5, 5))
    y.float().square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


def test_begins_with_given_groups_which_gradients_can_still_change():
    torch.manual_seed(0)
    layer = FLGCConv2d(6, 8, 1, groups=4)
    channels, filters = torch.randperm(6) // 3, torch.randperm(8) // 4  # two of the four
    layer.start_from_groups(channels, filters)
    assert torch.equal(layer.channel_logits.argmax(dim=1), channels)
    assert torch.equal(layer.filter_logits.argmax(dim=1), filters)
    layer(torch.randn(2, 6, 3, 3)).square().sum().backward()
    within = layer.filter_logits.grad[:, :2].abs()
    assert (within > 1e-6).all()
    assert (layer.filter_logits.grad[:, 2:].abs() < 1e-20).all()  # groups that nobody is in
