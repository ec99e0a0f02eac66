import pytest
import torch
from torch import nn

from mmdet_groupconv.layers import (
    AttentionGenerator,
    GatePool,
    MaskGenerator,
    add_gate_nets,
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


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('net_type', NETS)
def test_autocast_changes_nothing(net_type, dtype, training, pooled):
    net = net_type(16, 64, heads=2, reduction=4).train(training)
    pooled = pooled.to(dtype)  # what a convolution under autocast hands over
    torch.manual_seed(1)
    expected = net(pooled.float())
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=dtype):
        values = net(pooled)
    assert values.dtype is torch.float32
    assert torch.equal(values, expected)


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
    gate = make_gate(block, '2', pooled)
    assert gate.strength is None
    assert gate.value is gate.mask


def test_gate_with_attention_is_mask_times_strength(pooled):
    block = nn.Module()
    add_gate_nets(block, '', 16, 8, 2, 4, True)
    block.eval()
    nn.init.normal_(block.attgen.conv[3].weight)
    nn.init.zeros_(block.maskgen.conv[3].bias)
    gate = make_gate(block, '', pooled)
    assert torch.equal(gate.mask, block.maskgen(pooled))
    assert torch.equal(gate.strength, block.attgen(pooled))
    assert torch.equal(gate.value, gate.mask * gate.strength)
