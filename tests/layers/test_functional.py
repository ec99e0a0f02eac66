from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_groupconv.layers import connection, functional, grouped_conv2d
from mmdet_groupconv.layers.functional import filter_means

CHANNELS = 5
# Filters and map. Folding writes K*kh*kw weights an image, multiplying features G*H*W a channel:
# 6*3*3 = 54 <= 1*8*7 = 56 folds with any number of groups below,
# 24*1*1 = 24 > 4*2*2 = 16 multiplies the features with any kernel below.
FORMS = {'folded': (6, (15, 16)), 'features': (24, (2, 2))}
# kernel, stride, padding, dilation
GEOMETRIES = {
    '1x1': ((1, 1), 1, 0, 1),
    '3x3': ((3, 3), 1, 1, 1),
    'strided': ((3, 3), 2, 1, 1),
    'dilated': ((3, 3), 1, 2, 2),
    'all unequal': ((3, 2), (1, 2), (2, 0), (2, 1)),
    'column': ((5, 1), (2, 1), (2, 0), 1),
}
ASSIGNS = ['1 head', '2 heads', '3 heads', 'interleaved', 'ragged', 'one-hot']


def reference(x, weight, gate, group, bias=None, stride=1, padding=0, dilation=1):
    """The definition in float64, filter by filter and tap by tap.

    group: each filter's group, or its row of the matrix.
    """
    (sh, sw), (ph, pw), (dh, dw) = (
        value if isinstance(value, tuple) else (value, value)
        for value in (stride, padding, dilation)
    )
    x, weight, gate = x.double(), weight.double(), gate.double()
    batch, channels, height, width = x.shape
    filters, _, kh, kw = weight.shape
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    padded = x.new_zeros(batch, channels, height + 2 * ph, width + 2 * pw)
    padded[:, :, ph : ph + height, pw : pw + width] = x
    y = x.new_zeros(batch, filters, rows, columns)
    for b, k, u, v in product(range(batch), range(filters), range(kh), range(kw)):
        shifted = padded[b, :, u * dh :: sh, v * dw :: sw][:, :rows, :columns]
        gates = gate[b if len(gate) > 1 else 0]  # [G, C]
        strength = group[k].double() @ gates if torch.is_tensor(group) else gates[group[k]]
        y[b, k] += ((strength * weight[k, :, u, v])[:, None, None] * shifted).sum(dim=0)
    return y if bias is None else y + bias.double()[:, None, None]


def make_assign(kind, filters):
    """What is handed over, the number of groups, and each filter's group."""
    if kind.endswith(('head', 'heads')):
        heads = int(kind[0])
        return None, heads, [k // (filters // heads) for k in range(filters)]
    if kind == 'interleaved':
        group = [k % 2 for k in range(filters)]
        return torch.tensor(group), 2, group
    # Group 2 of 4 is empty; the others have different sizes in any order.
    group = ([0, 3, 3, 1, 3, 0] * filters)[:filters]
    assign = torch.tensor(group)
    return (assign if kind == 'ragged' else F.one_hot(assign, 4).float()), 4, group


def make_inputs(filters, size, kernel, groups, gate_batch, dtype=torch.float32):
    x = torch.randn(2, CHANNELS, *size, dtype=dtype)
    weight = torch.randn(filters, CHANNELS, *kernel, dtype=dtype)
    gate = torch.randn(gate_batch, groups, CHANNELS, dtype=dtype)
    gate = gate * (torch.rand_like(gate) < 0.6)
    return x, weight, gate, torch.randn(filters, dtype=dtype)


@pytest.fixture
def used(monkeypatch):
    """The names of the private forms that were called."""
    calls = []
    for name in ('_folded', '_equal_heads', '_groups_in_any_order'):
        original = getattr(functional, name)

        def spy(*args, name=name, original=original):
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(functional, name, spy)
    return calls


def assert_equals_the_definition(form, geometry, assign_kind, gate_batch):
    torch.manual_seed(0)
    case = form, geometry
    (filters, size), (kernel, *geometry) = FORMS[form], GEOMETRIES[geometry]
    assign, groups, group = make_assign(assign_kind, filters)
    x, weight, gate, bias = make_inputs(filters, size, kernel, groups, gate_batch)
    y = grouped_conv2d(x, weight, gate, assign, bias, *geometry)
    expected = reference(x, weight, gate, group, bias, *geometry)
    torch.testing.assert_close(
        y.double(), expected, atol=1e-5, rtol=1e-5, msg=lambda text: f'{case}: {text}'
    )


@pytest.mark.parametrize('assign_kind', ASSIGNS)
def test_equals_the_definition_with_a_gate_an_image(assign_kind):
    for form, geometry in product(FORMS, GEOMETRIES):
        assert_equals_the_definition(form, geometry, assign_kind, gate_batch=2)


@pytest.mark.parametrize('assign_kind', ASSIGNS)
def test_equals_the_definition_with_one_gate_for_every_image(assign_kind):
    for geometry in GEOMETRIES:
        assert_equals_the_definition('folded', geometry, assign_kind, gate_batch=1)


@pytest.mark.parametrize('form', FORMS)
def test_equals_the_definition_where_nothing_is_to_be_learnt(form):
    for assign_kind in ASSIGNS:
        with torch.no_grad():
            assert_equals_the_definition(form, 'all unequal', assign_kind, gate_batch=2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_value_and_gradients_equal_the_definitions_for_any_shape(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    torch.manual_seed(draw(0, 99))
    batch, channels, heads = draw(1, 3), draw(1, 4), draw(1, 3)
    filters, kernel = heads * draw(1, 4), (draw(1, 3), draw(1, 3))
    size = draw(kernel[0], 6), draw(kernel[1], 6)
    sides = zip(size, kernel, strict=True)
    stride, padding = (draw(1, 3), draw(1, 3)), (draw(0, 2), draw(0, 2))
    # as far as the map goes
    dilation = tuple(draw(1, 1 if k == 1 else (side - 1) // (k - 1)) for side, k in sides)
    geometry = stride, padding, dilation
    kind = data.draw(st.sampled_from(['heads', 'interleaved', 'ragged', 'one-hot']))
    if kind == 'heads':
        assign, group = None, [k // (filters // heads) for k in range(filters)]
    elif kind == 'interleaved':
        group = [k % heads for k in range(filters)]
        assign = torch.tensor(group)
    else:
        group = [draw(0, heads - 1) for _ in range(filters)]
        assign = torch.tensor(group)
    gate_batch = data.draw(st.sampled_from([1, batch]))
    learned = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in (
            (batch, channels, *size),
            (filters, channels, *kernel),
            (gate_batch, heads, channels),
            (filters,),
        )
    ]
    x, weight, gate, bias = learned
    if kind == 'one-hot':
        assign = group = F.one_hot(assign, heads).double().requires_grad_()
        learned.append(assign)

    y = grouped_conv2d(x, weight, gate, assign, bias, *geometry)
    expected = reference(x, weight, gate, group, bias, *geometry)
    torch.testing.assert_close(y, expected)
    upstream = torch.randn_like(y)
    for ours, definitions in zip(
        torch.autograd.grad(y, learned, upstream),
        torch.autograd.grad(expected, learned, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, definitions)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('assign_kind', ['2 heads', 'interleaved', 'ragged', 'one-hot'])
def test_gradients_are_those_of_small_steps(form, assign_kind):
    torch.manual_seed(0)
    # As in FORMS but small: 4*4*3*2 = 96 <= 2*9*8 folds, 4*10*3*2 > 4*3*3*2 does not.
    filters, size = {'folded': (4, (9, 8)), 'features': (10, (3, 3))}[form]
    kernel, *geometry = GEOMETRIES['all unequal']
    assign, groups, _ = make_assign(assign_kind, filters)
    x, weight, gate, bias = make_inputs(filters, size, kernel, groups, 2, torch.float64)
    learned = [tensor.requires_grad_() for tensor in (x, weight, gate, bias)]
    if assign_kind == 'one-hot':
        learned.append(assign.double().requires_grad_())

    def call(x, weight, gate, bias, matrix=assign):
        return grouped_conv2d(x, weight, gate, matrix, bias, *geometry)

    assert torch.autograd.gradcheck(call, learned, fast_mode=True)


@pytest.mark.parametrize(
    ('form', 'assign_kind', 'expected'),
    [
        ('folded', '1 head', '_folded'),
        ('folded', '3 heads', '_folded'),
        ('folded', 'ragged', '_folded'),
        ('folded', 'one-hot', '_folded'),
        ('features', '1 head', '_equal_heads'),
        ('features', '3 heads', '_equal_heads'),
        ('features', 'ragged', '_groups_in_any_order'),
        ('features', 'interleaved', '_groups_in_any_order'),
        ('features', 'one-hot', '_folded'),  # the only form that reaches the matrix
    ],
)
def test_the_smaller_tensor_is_the_one_multiplied(used, form, assign_kind, expected):
    filters, size = FORMS[form]
    assign, groups, _ = make_assign(assign_kind, filters)
    for name, (kernel, *geometry) in GEOMETRIES.items():
        used.clear()
        x, weight, gate, bias = make_inputs(filters, size, kernel, groups, 2)
        grouped_conv2d(x, weight, gate, assign, bias, *geometry)
        assert used[0] == expected, name


@pytest.mark.parametrize(('kind', 'further'), [('interleaved', ['_equal_heads']), ('ragged', [])])
def test_groups_of_one_size_are_one_convolution_in_any_order(used, kind, further):
    filters, size = FORMS['features']
    assign, groups, _ = make_assign(kind, filters)
    x, weight, gate, bias = make_inputs(filters, size, (1, 1), groups, 2)
    grouped_conv2d(x, weight, gate, assign, bias)
    assert used[1:] == further


@pytest.mark.parametrize(
    ('stride', 'width'),
    # 2*3*3 = 18 weights a channel, 1*3*24 = 72 features
    # with a stride of (2, 2), features count four times: 1*3*6*4 = 72
    [(1, 24), (2, 6)],
)
def test_folding_starts_where_features_are_four_times_the_weights(used, stride, width):
    for size in (width - 1, width):
        x, weight, gate = torch.ones(2, 3, 3, size), torch.ones(2, 3, 3, 3), torch.ones(2, 1, 3)
        grouped_conv2d(x, weight, gate, stride=stride)
    assert used == ['_equal_heads', '_folded']


def test_one_gate_for_every_image_needs_neither_form(used):
    grouped_conv2d(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 1, 1), torch.ones(1, 2, 3))
    assert used == []


@pytest.mark.parametrize('form', FORMS)
def test_channels_last_input_and_weight_give_the_same(form):
    torch.manual_seed(0)
    filters, size = FORMS[form]
    x, weight, gate, bias = make_inputs(filters, size, (3, 3), 2, 2)
    last = [tensor.to(memory_format=torch.channels_last) for tensor in (x, weight)]
    torch.testing.assert_close(
        grouped_conv2d(*last, gate, None, bias, 1, 1),
        grouped_conv2d(x, weight, gate, None, bias, 1, 1),
    )


def in_every_way():
    """The case in words, and inputs, with a gate of ones: one for both images, or one each."""
    for case in product(FORMS, ASSIGNS, [1, 2]):
        form, assign_kind, gate_batch = case
        filters, size = FORMS[form]
        assign, groups, _ = make_assign(assign_kind, filters)
        x, weight, _, bias = make_inputs(filters, size, (3, 3), groups, 2)
        yield case, x, weight, torch.ones(gate_batch, groups, CHANNELS), assign, bias


def test_closed_gate_gives_the_bias_alone():
    for case, x, weight, gate, assign, bias in in_every_way():
        y = grouped_conv2d(x, weight, torch.zeros_like(gate), assign, bias, 1, 1)
        assert torch.equal(y, bias[:, None, None].expand_as(y)), case


def test_open_gate_equals_the_dense_convolution():
    for case, x, weight, gate, assign, bias in in_every_way():
        y = grouped_conv2d(x, weight, gate, assign, bias, 2, 1)
        assert torch.allclose(y, F.conv2d(x, weight, bias, 2, 1), atol=1e-5, rtol=1e-5), case


@pytest.mark.parametrize('size', [(9, 9), (1, 1)], ids=['folded', 'features'])
def test_heads_that_read_their_own_block_equal_torch_groups(size):
    for heads in (2, 4):
        x, weight = torch.randn(2, 8, *size), torch.randn(12, 8, 3, 3)
        channels, filters = 8 // heads, 12 // heads
        gate = torch.eye(heads).repeat_interleave(channels, dim=1).expand(2, heads, 8)
        packed = torch.cat(  # what torch stores for groups=heads: [12, 8 / heads, 3, 3]
            [
                weight[h * filters : (h + 1) * filters, h * channels : (h + 1) * channels]
                for h in range(heads)
            ]
        )
        expected = F.conv2d(x, packed, padding=1, groups=heads)
        y = grouped_conv2d(x, weight, gate, padding=1)
        assert torch.allclose(y, expected, atol=1e-5, rtol=1e-5), heads


def test_connection_spreads_each_group_over_its_filters():
    gate = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    first, second = [1.0, 0.0], [0.0, 2.0]
    assert connection(gate, None, 4).tolist() == [[first, first, second, second]]
    assert connection(gate, torch.tensor([1, 0, 1]), 3).tolist() == [[second, first, second]]
    matrix = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert connection(gate, matrix, 3).tolist() == [[second, first, second]]


@pytest.mark.parametrize(
    ('assign', 'expected'),
    [
        (None, [3 / 4, 12 / 4]),
        (torch.tensor([0, 1, 0, 1]), [5 / 4, 10 / 4]),
        (torch.tensor([1, 1, 1, 0]), [8 / 4, 7 / 4]),
        (torch.tensor([1, 1, 1, 1]), [0, 15 / 4]),
        (torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]]), [5 / 4, 10 / 4]),
    ],
    ids=['heads', 'interleaved', 'ragged', 'empty group', 'one-hot'],
)
def test_filter_means_sum_by_group_over_all_filters(assign, expected):
    values = torch.tensor([1.0, 2, 4, 8], dtype=torch.float64)
    assert filter_means(values, torch.ones(1, 2, 3), assign).tolist() == expected


def test_filter_means_are_differentiable_in_the_matrix():
    matrix = torch.eye(2).requires_grad_()
    values = torch.tensor([1.0, 5], dtype=torch.float64)
    filter_means(values, torch.ones(1, 2, 3), matrix)[1].backward()
    # group 1's mean is sum_k values[k] * matrix[k, 1] / 2
    assert matrix.grad.tolist() == [[0, 0.5], [0, 2.5]]


@pytest.mark.parametrize(
    ('shapes', 'message'),
    [
        (
            dict(x=(2, 3, 8, 8)),
            r'x has shape \(2, 3, 8, 8\), expected \[B, 4, H, W\]',
        ),
        (
            dict(x=(4, 8, 8)),
            r'x has shape \(4, 8, 8\), expected \[B, 4, H, W\]',
        ),
        (
            dict(gate=(3, 2, 4)),
            r'gate has shape \(3, 2, 4\), expected \[2 or 1, groups, 4\]',
        ),
        (
            dict(gate=(2, 2, 5)),
            r'gate has shape \(2, 2, 5\), expected \[2 or 1, groups, 4\]',
        ),
        (
            dict(gate=(2, 4)),
            r'gate has shape \(2, 4\), expected \[2 or 1, groups, 4\]',
        ),
        (
            dict(gate=(2, 4, 4)),
            'heads=4 does not divide out_channels=6',
        ),
        (
            dict(assign=(5,)),
            r'assign is .* of shape \(5,\), expected int64 \[6\] or float \[6, 2\]',
        ),
        (
            dict(assign=(6, 3)),
            r'assign is .* of shape \(6, 3\), expected int64 \[6\] or float \[6, 2\]',
        ),
    ],
)
def test_error_names_what_was_found_and_expected(shapes, message):
    shapes = dict(dict(x=(2, 4, 8, 8), weight=(6, 4, 3, 3), gate=(2, 2, 4)), **shapes)
    with pytest.raises(ValueError, match=message):
        grouped_conv2d(**{name: torch.zeros(shape) for name, shape in shapes.items()})


@pytest.mark.parametrize('value', [-1, 2])
def test_a_filter_of_no_group_is_an_error(value):
    assign = torch.zeros(24, dtype=torch.int64)
    assign[3] = value
    with pytest.raises(ValueError, match=r'assign has values .* expected 0 \.\.\. 1'):
        grouped_conv2d(
            torch.zeros(2, 3, 2, 2), torch.zeros(24, 3, 1, 1), torch.ones(2, 2, 3), assign
        )


@pytest.mark.parametrize(
    'assign',
    [torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4)],
    ids=['int matrix', 'float list'],
)
def test_assign_of_the_wrong_kind_is_an_error(assign):
    with pytest.raises(ValueError, match=r'expected int64 \[4\] or float \[4, 2\]'):
        grouped_conv2d(
            torch.zeros(2, 3, 2, 2), torch.zeros(4, 3, 1, 1), torch.ones(2, 2, 3), assign
        )


def test_padding_same_is_understood():
    x, weight = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    y = grouped_conv2d(x, weight, torch.ones(2, 2, 3), padding='same')
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, weight, padding=1))


def test_an_empty_batch_gives_an_empty_batch():
    y = grouped_conv2d(torch.zeros(0, 3, 9, 9), torch.zeros(4, 3, 3, 3), torch.ones(0, 2, 3))
    assert y.shape == (0, 4, 7, 7)
