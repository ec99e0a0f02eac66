import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.model import initialize

from mmdet_groupconv.layers import DGCConv2d, SaliencyNet

PRE_NORM = pytest.mark.parametrize('pre_norm', [True, False])
GOLDEN = pytest.mark.parametrize('golden_dgc_layer', range(4), indirect=True)


def random_layer(*args, **kwargs):
    """In evaluation, with norm statistics and saliencies that differ, some of them zero."""
    torch.manual_seed(0)
    layer = DGCConv2d(*args, **kwargs).eval()
    with torch.no_grad():
        layer.saliency.fc2.weight.normal_()
        layer.saliency.fc2.bias.normal_()
        if layer.norm is not None:
            layer.norm.running_mean.normal_()
            layer.norm.running_var.uniform_(0.5, 2)
            layer.norm.weight.normal_()
            layer.norm.bias.normal_()
    return layer


def constant_saliency(layer, values):
    """Make every image's saliencies `values`, a list a head."""
    with torch.no_grad():
        layer.saliency.fc2.weight.zero_()
        layer.saliency.fc2.bias.copy_(torch.tensor(values).flatten())


def gate_of(layer, x):
    gates = []
    handle = layer.register_gate_hook(lambda _, gate, *__: gates.append(gate))
    layer(x)
    handle.remove()
    return gates[0]


def slow(layer, x, heads):
    """The layer in evaluation and in float64: image by image, head by head."""
    state = {key: value.detach().double() for key, value in layer.state_dict().items()}
    x = x.double()
    norm = layer.norm
    if norm is not None:
        statistics = state['norm.running_mean'], state['norm.running_var']
        x = F.batch_norm(x, *statistics, state['norm.weight'], state['norm.bias']).relu()
    squeeze = state['saliency.fc1.weight'].flatten(1).chunk(heads)
    excite = state['saliency.fc2.weight'].flatten(1).chunk(heads)
    bias = state['saliency.fc2.bias'].chunk(heads)
    y = []
    for image in x:
        pooled = image.mean(dim=(1, 2))
        if norm is None:
            pooled = (pooled - pooled.mean()) / (pooled.var(unbiased=False) + 1e-5).sqrt()
        filters = []
        for k in range(layer.out_channels):
            h = k % heads
            saliency = (excite[h] @ (squeeze[h] @ pooled).relu() + bias[h]).relu()
            dropped = int(layer.inactive)
            if dropped:
                saliency = saliency * (saliency > saliency.sort().values[dropped - 1])
            read = (image * saliency[:, None, None])[None]
            geometry = layer.stride, layer.padding, layer.dilation
            filters.append(F.conv2d(read, state['weight'][k : k + 1], None, *geometry)[0, 0])
        y.append(torch.stack(filters))
    y = torch.stack(y)
    return y if layer.bias is None else y + state['bias'][:, None, None]


@GOLDEN
def test_equals_the_published_layer(golden_dgc_layer):
    published, layer = golden_dgc_layer
    assert len(published['cases']) == 3
    for case in published['cases']:
        layer.inactive.fill_(case['inactive_channels'])
        torch.testing.assert_close(layer(published['x']), case['y'], atol=1e-5, rtol=1e-5)


@GOLDEN
def test_saliencies_are_the_published_ones(golden_dgc_layer):
    published, layer = golden_dgc_layer
    l1 = gate_of(layer, published['x']).strength.mean(dim=(0, 2)).sum()
    assert l1.item() == pytest.approx(published['cases'][0]['lasso'], abs=1e-5)


@GOLDEN
def test_schedule_is_the_published_one(golden_dgc_layer):
    published, layer = golden_dgc_layer
    for progress, inactive in published['schedule']:
        layer.set_progress(progress)
        assert int(layer.inactive) == inactive, progress


def test_channels_are_dropped_linearly_between_a_twelfth_and_three_quarters():
    layer, counts = DGCConv2d(32, 8, 1, gate_factor=0.25), []
    for progress in (0, 1 / 12, 0.1, 0.4, 0.6, 0.749, 0.75, 1):
        layer.set_progress(progress)
        counts.append(int(layer.inactive))
    # 32 * (1 - 0.25) = 24 at the end, 24 * 1.5 * (p - 1/12) before
    assert counts == [0, 0, 1, 11, 19, 24, 24, 24]


@pytest.mark.parametrize(
    ('start', 'stop', 'expected'),
    # 24 in the end: of the way from 0.2 to 0.6, 0.3 is a quarter and 0.5 three quarters
    [(0.2, 0.6, [0, 0, 6, 18, 24, 24]), (0.3, 0.3, [0, 0, 24, 24, 24, 24])],
)
def test_the_schedule_may_be_another(start, stop, expected):
    layer, counts = DGCConv2d(32, 8, 1, gate_factor=0.25), []
    for progress in (0, 0.2, 0.3, 0.5, 0.6, 1):
        layer.set_progress(progress, start, stop)
        counts.append(int(layer.inactive))
    assert counts == expected


def test_progress_back_to_the_start_drops_nothing():
    layer = DGCConv2d(32, 8, 1)
    for progress in (1, 0):
        layer.set_progress(progress)
    assert int(layer.inactive) == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_equals_the_slow_formula(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    heads = draw(1, 4)
    channels, filters = draw(max(heads, 2), 9), draw(heads, 9)  # heads need not divide them
    geometry = dict(stride=draw(1, 2), padding=draw(0, 2), dilation=draw(1, 2))
    switches = dict(bias=data.draw(st.booleans()), pre_norm=data.draw(st.booleans()))
    layer = random_layer(channels, filters, draw(1, 3), heads=heads, **geometry, **switches)
    layer.inactive.fill_(draw(0, channels))
    x = torch.randn(draw(1, 3), channels, draw(5, 8), draw(5, 8))
    expected = slow(layer, x, heads)
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-4, rtol=1e-4)


def test_filters_of_ragged_heads_are_interleaved():
    layer = DGCConv2d(4, 7, 1, heads=3)
    assert layer.assign.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_channels_as_salient_as_the_last_dropped_one_are_dropped_too():
    layer = DGCConv2d(4, 4, 1, heads=1)
    constant_saliency(layer, [[3.0, 1.0, 1.0, 2.0]])
    left = [1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]
    for inactive, kept in enumerate(left):
        layer.inactive.fill_(inactive)
        mask = gate_of(layer, torch.randn(2, 4, 3, 3)).mask
        assert mask.tolist() == [[kept]] * 2, inactive


def test_kept_channels_are_multiplied_by_their_saliency():
    layer = DGCConv2d(2, 2, 1, heads=2, pre_norm=False, bias=False).eval()
    constant_saliency(layer, [[3.0, 1.0], [0.5, 2.0]])
    layer.inactive.fill_(1)
    x = torch.randn(2, 2, 3, 3)
    expected = torch.stack(
        [3 * layer.weight[0, 0] * x[:, 0], 2 * layer.weight[1, 1] * x[:, 1]], dim=1
    )
    torch.testing.assert_close(layer(x), expected)


def test_each_image_has_its_own_gate():
    layer = random_layer(32, 8, 1)
    layer.inactive.fill_(16)
    x = torch.randn(3, 32, 1, 1) + torch.randn(3, 32, 4, 4)
    masks = gate_of(layer, x).mask
    assert not torch.equal(masks[0], masks[1])
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]), atol=1e-5, rtol=1e-5)


@PRE_NORM
def test_gradients_reach_the_saliency_net(pre_norm):
    layer = random_layer(16, 8, 3, pre_norm=pre_norm).train()
    layer.inactive.fill_(8)
    layer(torch.randn(2, 16, 5, 5)).square().sum().backward()
    for name, parameter in layer.saliency.named_parameters():
        assert parameter.grad.count_nonzero() > 0, name


def test_dropped_channels_get_no_gradient_but_that_of_the_saliency_itself():
    layer = DGCConv2d(4, 4, 1, heads=1)
    constant_saliency(layer, [[4.0, 1.0, 2.0, 3.0]])
    layer.inactive.fill_(2)
    x = torch.randn(2, 4, 3, 3)
    layer(x).sum().backward()
    assert (layer.saliency.fc2.bias.grad != 0).tolist() == [True, False, False, True]
    layer.zero_grad()
    gate_of(layer, x).strength.sum().backward()
    assert layer.saliency.fc2.bias.grad.tolist() == [2, 2, 2, 2]


def test_inactive_is_kept_in_checkpoints():
    layer, other = DGCConv2d(8, 8, 1), DGCConv2d(8, 8, 1)
    layer.set_progress(1)
    other.load_state_dict(layer.state_dict())
    assert int(other.inactive) == 6


def test_only_its_own_state_comes_on_top_of_the_dense_one():
    added = {key for key in DGCConv2d(8, 8, 1).state_dict() if not key.startswith('norm.')}
    saliency = {f'saliency.{key}' for key in ('fc1.weight', 'fc2.weight', 'fc2.bias')}
    assert added == {'weight', 'bias', 'inactive'} | saliency


def test_without_pre_norm_there_is_none():
    layer = DGCConv2d(8, 8, 1, pre_norm=False)
    assert layer.norm is None
    assert not any(key.startswith('norm') for key in layer.state_dict())


def test_without_pre_norm_the_output_scales_as_the_input_does():
    layer = random_layer(8, 8, 3, pre_norm=False, bias=False)
    layer.inactive.fill_(4)
    x = 10 * torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(layer(7 * x), 7 * layer(x), atol=1e-2, rtol=1e-3)


@PRE_NORM
def test_saliencies_of_1_leave_the_dense_convolution(pre_norm):
    layer = random_layer(8, 6, 3, heads=2, padding=1, pre_norm=pre_norm)
    constant_saliency(layer, [[1.0] * 8] * 2)
    x = torch.randn(2, 8, 5, 5)
    read = layer.norm(x).relu() if pre_norm else x
    expected = F.conv2d(read, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_no_boxes_give_no_output():
    assert DGCConv2d(8, 6, 3, heads=2).eval()(torch.zeros(0, 8, 5, 5)).shape == (0, 6, 3, 3)


def test_saliencies_are_computed_in_float32_under_autocast():
    layer = random_layer(8, 8, 1)
    x = torch.randn(2, 8, 4, 4)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        gate = gate_of(layer, x)
    assert gate.strength.dtype is torch.float32
    assert torch.equal(gate.strength, gate_of(layer, x).strength)


def test_narrow_layers_are_squeezed_half_as_much():
    for channels, hidden in ((96, 6), (80, 5), (64, 8), (4, 1)):
        net = SaliencyNet(channels, heads=3, squeeze_rate=16)
        assert net.fc1.weight.shape == (3 * hidden, channels, 1, 1)
        assert net.fc2.weight.shape == (3 * channels, hidden, 1, 1)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(heads=5), '4 -> 8 channels for 5 heads'),
        (dict(heads=0), 'heads=0 of DGCConv2d, expected an integer of 1 or more'),
        (dict(gate_factor=0), r'gate_factor=0 of DGCConv2d, expected a share in \(0, 1\]'),
        (dict(gate_factor=1.5), r'gate_factor=1.5 of DGCConv2d'),
        (dict(squeeze_rate=1), 'squeeze_rate=1 of DGCConv2d, expected an integer of 2 or more'),
    ],
)
def test_numbers_out_of_range_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        DGCConv2d(4, 8, 1, **arguments)


def test_says_why_it_should_stay_dense():
    assert DGCConv2d.why_dense(3, 8, heads=4, gate_factor=0.5) == '3 -> 8 channels for 4 heads'
    assert DGCConv2d.why_dense(4, 8, heads=4) is None


def test_init_cfg_reaches_the_weight_but_not_the_saliency_net():
    layer = DGCConv2d(64, 64, 3)
    before = {name: p.clone() for name, p in layer.saliency.named_parameters()}
    initialize(layer, dict(type='Normal', layer='Conv2d', std=0.01))
    assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
    for name, parameter in layer.saliency.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_init_gates_undoes_a_hosts_initialisation():
    layer = random_layer(8, 8, 1)
    layer.init_gates()
    assert torch.equal(layer.saliency.fc2.bias, torch.ones(32))
    assert torch.equal(layer.norm.weight, torch.ones(8))
    assert torch.equal(layer.norm.running_mean, torch.zeros(8))


IMPORTANCE = torch.tensor([[0.3, 9.0, 0.1, 0.2], [5.0, 7.0, 8.0, 6.0]])


def started(**kwargs):
    layer = DGCConv2d(4, 6, 3, heads=2, padding=1, pre_norm=False, **kwargs)
    dense = layer.weight.detach().clone()
    layer.start_from_importance(IMPORTANCE)
    return layer, dense


def test_saliencies_start_by_rank_of_importance_in_each_head():
    layer, _ = started()
    saliency = gate_of(layer, torch.randn(3, 4, 5, 5)).strength
    # from 0.75 to 1.25 in three steps of 1/6: ranks 2, 3, 0, 1 and 0, 2, 3, 1
    expected = torch.tensor([[13, 15, 9, 11], [9, 13, 15, 11]]) / 12
    torch.testing.assert_close(saliency.detach(), expected.expand(3, 2, 4))


@pytest.mark.parametrize('training', [True, False])
def test_a_layer_starts_as_the_dense_convolution(training):
    layer, dense = started()
    layer.train(training)
    x = 5 * torch.randn(2, 4, 7, 6)
    expected = F.conv2d(x, dense, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_the_least_important_channels_are_the_first_to_be_dropped():
    layer, _ = started(gate_factor=0.5)
    layer.set_progress(1)
    mask = gate_of(layer, torch.randn(2, 4, 3, 3)).mask
    assert mask.tolist() == [[[1, 1, 0, 0], [0, 1, 1, 0]]] * 2


def test_what_is_left_works_as_it_did_in_the_dense_convolution():
    layer, dense = started(gate_factor=0.5)
    layer.set_progress(1)
    x = torch.randn(2, 4, 5, 5)
    kept = torch.tensor([[1.0, 1, 0, 0], [0, 1, 1, 0]])[layer.assign][..., None, None]
    expected = F.conv2d(x, dense * kept, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


def test_a_second_start_has_the_outputs_of_the_first():
    layer, _ = started()
    x = torch.randn(2, 4, 5, 5)
    before = layer(x)
    layer.start_from_importance(IMPORTANCE.flip(0))
    torch.testing.assert_close(layer(x), before, atol=1e-5, rtol=1e-5)


def test_a_layer_that_starts_by_importance_learns_all_parameters():
    layer, _ = started()
    layer.inactive.fill_(1)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    for _ in range(2):  # fc1's turn comes when fc2's weights have left zero
        optimizer.zero_grad()
        layer(torch.randn(2, 4, 5, 5)).square().sum().backward()
        optimizer.step()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.count_nonzero() > 0, f'no gradient for {name}'


@pytest.mark.parametrize('importance', [torch.ones(4, 2), IMPORTANCE / 0])
def test_importance_that_does_not_fit_is_refused_and_changes_nothing(importance):
    layer = DGCConv2d(4, 6, 3, heads=2)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    with pytest.raises(ValueError, match='importance has'):
        layer.start_from_importance(importance)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
