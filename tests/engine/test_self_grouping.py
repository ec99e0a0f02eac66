"""Steps of self-grouping: clusters of filters, what each of them reads; layers and models."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmdet_groupconv.engine import self_grouping
from mmdet_groupconv.engine.self_grouping import (
    cluster,
    group_inputs,
    self_group,
    self_group_model,
    sgc_layers,
)
from mmdet_groupconv.layers import SGCConv2d, SGCLinear

PUBLISHED = pytest.mark.parametrize('index', range(2))


def random_rows(rows, columns, seed=0):
    return np.random.default_rng(seed).random((rows, columns))


def inertia(vectors, labels, centroids):
    return ((vectors - centroids[labels]) ** 2).sum()


def layer_of(filters=12, channels=8, groups=3, seed=0):
    torch.manual_seed(seed)
    return SGCConv2d(channels, filters, 3, groups=groups)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(SGCConv2d(12, 16, 3, groups=4), nn.Conv2d(16, 8, 1), SGCLinear(8, 6))


def slow_percentile(values, percentage):
    """Linear between the two values that the percentage falls between."""
    values = sorted(values)
    place = (len(values) - 1) * percentage / 100
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


@PUBLISHED
def test_published_steps_are_repeated(golden_sgc_layers, index):
    for step in golden_sgc_layers[index]['steps']:
        labels, mask = step['labels'].numpy(), step['mask_before'].double().numpy()
        centroids = step['centroids'].double().numpy()
        threshold, inputs = group_inputs(labels, centroids, mask, step['percentage'])
        assert threshold == pytest.approx(step['threshold'], abs=1e-5)
        assert np.array_equal(inputs, step['group_inputs'].numpy())
        assert np.array_equal(mask * inputs[labels], step['mask_after'].numpy())


@PUBLISHED
def test_layer_shrinks_as_the_published_one_does(golden_sgc_layers, index, monkeypatch):
    case = golden_sgc_layers[index]
    size = case['kernel_size']
    layer = SGCConv2d(
        case['in_channels'], case['out_channels'], size, padding=size // 2, bias=False
    )
    layer.weight.data.copy_(case['weight'])
    for step in case['steps']:
        assert torch.equal(layer.mask, step['mask_before'])
        # Its own random starts led to these clusters.
        found = step['labels'].numpy(), step['centroids'].double().numpy()
        monkeypatch.setattr(self_grouping, 'cluster', lambda *_, found=found: found)
        self_group(layer, step['percentage'])
        assert torch.equal(layer.mask, step['mask_after'])
    torch.testing.assert_close(layer(case['x']), case['y'], atol=1e-5, rtol=1e-5)


@PUBLISHED
def test_clusters_are_on_average_as_tight_as_the_published_ones(golden_sgc_layers, index):
    case = golden_sgc_layers[index]
    layer = SGCConv2d(case['in_channels'], case['out_channels'], case['kernel_size'])
    layer.weight.data.copy_(case['weight'])
    ratios = []
    for step in case['steps']:
        layer.mask.copy_(step['mask_before'])
        vectors = layer.importance().double().numpy()
        theirs = inertia(vectors, step['labels'].numpy(), step['centroids'].double().numpy())
        for seed in range(10):  # theirs depend on a seed as well
            ours = inertia(vectors, *cluster(vectors, case['groups'], seed))
            ratios.append(ours / theirs)
    assert np.mean(ratios) <= 1.02


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_group_inputs_equal_the_slow_formula(data):
    def draw(low, high):
        return data.draw(st.integers(low, high))

    groups, channels = draw(1, 4), draw(1, 5)
    filters = groups + draw(0, 5)
    rng = np.random.default_rng(draw(0, 999))
    labels = rng.permutation([*range(groups), *rng.integers(groups, size=filters - groups)])
    centroids = rng.integers(0, 5, (groups, channels)).astype(float)  # ties, too
    mask = (rng.random((filters, channels)) < 0.7).astype(float)
    percentage = draw(1, 99)

    threshold, inputs = group_inputs(labels, centroids, mask, percentage)

    pairs = [(k, c) for k in range(filters) for c in range(channels)]
    values = [centroids[labels[k], c] if mask[k, c] else 0 for k, c in pairs]
    assert threshold == pytest.approx(slow_percentile(values, percentage))
    for g in range(groups):
        first = labels.tolist().index(g)
        for c in range(channels):
            assert inputs[g, c] == (mask[first, c] == 1 and centroids[g, c] > threshold)


def test_a_step_by_hand():
    # Filters 0 and 2 are group 0; channel 2 of filter 2 is pruned already.
    labels, centroids = np.array([0, 1, 0]), np.array([[5.0, 2.0, 1.0], [1.0, 6.0, 3.0]])
    mask = np.array([[1.0, 1, 1], [1, 1, 1], [1, 1, 0]])
    # All values: 5 2 1, 1 6 3, 5 2 0; sorted 0 1 1 2 2 3 5 5 6; the 50th percentile is 2.
    threshold, inputs = group_inputs(labels, centroids, mask, 50)
    assert threshold == 2
    assert inputs.tolist() == [[True, False, False], [False, True, True]]


def test_what_the_first_member_lost_its_group_loses():
    labels, centroids = np.array([0, 0]), np.array([[5.0, 4.0, 3.0]])
    mask = np.array([[0.0, 1, 1], [1, 1, 1]])
    assert group_inputs(labels, centroids, mask, 10)[1].tolist() == [[False, True, True]]


def test_a_channel_exactly_at_the_threshold_is_dropped():
    threshold, inputs = group_inputs(np.array([0]), np.array([[1.0, 2, 3]]), np.ones((1, 3)), 50)
    assert threshold == 2
    assert inputs.tolist() == [[False, False, True]]


def test_connections_pruned_before_count_as_zeros():
    centroids, mask = np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 1, 0, 0]])
    # 0, 0, 1, 2 rather than 1, 2, 3, 4
    threshold, inputs = group_inputs(np.array([0]), centroids, mask, 50)
    assert threshold == 0.5
    assert inputs.tolist() == [[True, True, False, False]]


def test_clusters_are_a_local_optimum():
    vectors = random_rows(300, 2)
    for groups in (1, 2, 20):
        labels, centroids = cluster(vectors, groups, seed=0)
        distances = ((vectors[:, None] - centroids) ** 2).sum(axis=2)
        assert labels.shape == (300,)
        assert np.array_equal(labels, distances.argmin(axis=1)), groups
        for g in range(groups):
            np.testing.assert_allclose(centroids[g], vectors[labels == g].mean(axis=0))


def test_the_best_of_several_starts_is_taken(monkeypatch):
    vectors = random_rows(80, 2)
    several = [inertia(vectors, *cluster(vectors, 12, seed)) for seed in range(6)]
    monkeypatch.setattr(self_grouping, '_STARTS', 1)
    first = [inertia(vectors, *cluster(vectors, 12, seed)) for seed in range(6)]
    assert all(best <= one + 1e-9 for best, one in zip(several, first, strict=True))
    assert sum(several) < 0.98 * sum(first)


def test_clusters_are_the_same_for_the_same_seed():
    vectors = random_rows(60, 30)
    (labels, centroids), again = (cluster(vectors, 8, seed=1) for _ in range(2))
    assert np.array_equal(labels, again[0])
    assert np.array_equal(centroids, again[1])
    assert not np.array_equal(labels, cluster(vectors, 8, seed=2)[0])


def test_nobody_elses_random_numbers_are_used_or_disturbed():
    vectors = random_rows(60, 30)
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    first = cluster(vectors, 8, seed=1)[0]
    assert np.random.random() == expected
    assert np.array_equal(cluster(vectors, 8, seed=1)[0], first)


@pytest.mark.parametrize(
    ('vectors', 'groups', 'expected'),
    [
        (np.tile([1.0, 2, 3], (5, 1)), 4, 1),
        (np.repeat([[1.0, 2], [3, 4], [5, 5]], 3, axis=0), 5, 3),
        (np.zeros((6, 4)), 3, 1),
        (np.array([[1.0, 2], [3, 4]]), 16, 2),
        (np.array([[1.0, 2]]), 16, 1),
        (np.array([[1.0], [2], [3], [9]]), 1, 1),
    ],
    ids=['identical', 'few distinct', 'zeros', 'few rows', 'one row', 'one group'],
)
def test_clusters_never_outnumber_the_distinct_rows(vectors, groups, expected):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        labels, centroids = cluster(vectors, groups, seed=0)
    assert len(centroids) == expected
    assert np.unique(labels).tolist() == list(range(expected))
    if expected == len(np.unique(vectors, axis=0)):
        np.testing.assert_allclose(centroids[labels], vectors)


def test_a_cluster_that_lost_its_members_is_left_out(monkeypatch):
    def losing(vectors, *_, **__):
        warnings.warn('One of the clusters is empty.', stacklevel=1)
        return np.array([[1.0], [5.0], [9.0]]), np.array([0, 2, 2])

    monkeypatch.setattr(self_grouping, 'kmeans2', losing)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        labels, centroids = cluster(np.array([[1.0], [8], [10]]), 3, seed=0)
    assert labels.tolist() == [0, 1, 1]
    assert centroids.tolist() == [[1], [9]]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    filters=st.integers(1, 12),
    channels=st.integers(1, 8),
    groups=st.integers(1, 5),
    percentages=st.lists(st.integers(1, 99), min_size=1, max_size=4),
)
def test_masks_only_shrink(filters, channels, groups, percentages):
    layer = layer_of(filters, channels, groups)
    for percentage in percentages:  # in any order
        before = layer.mask.clone()
        self_group(layer, percentage)
        assert set(layer.mask.unique().tolist()) <= {0.0, 1.0}
        assert (layer.mask <= before).all()


def test_a_step_prunes_to_about_its_percentage():
    layer = layer_of(48, 32, groups=8)
    for percentage in (20, 50, 80):
        self_group(layer, percentage)
        assert 1 - layer.mask.mean().item() == pytest.approx(percentage / 100, abs=0.03)


def test_filters_of_a_cluster_read_the_same_channels():
    layer = layer_of(24, 16, groups=3)
    labels, _ = cluster(layer.importance().double().numpy(), 3, seed=0)
    self_group(layer, 50)
    for g in range(3):
        assert len(layer.mask[labels == g].unique(dim=0)) == 1
    assert len(layer.mask.unique(dim=0)) == 3


def test_what_a_filter_lost_it_does_not_get_back_from_its_cluster():
    layer = SGCConv2d(3, 3, 1, groups=1)
    layer.weight.data.copy_(torch.tensor([9.0, 5, 1])[None, :, None, None].expand(3, 3, 1, 1))
    layer.mask[1, 0] = 0
    self_group(layer, 40)
    # the centroid is (6, 5, 1), the values 0, 1, 1, 1, 5 ...: the first member keeps two channels
    assert layer.mask.tolist() == [[1, 1, 0], [0, 1, 0], [1, 1, 0]]


def test_importance_is_that_of_what_is_left():
    layer = SGCConv2d(2, 4, 1, groups=2)
    layer.weight.data.copy_(torch.tensor([[9.0, 1], [9, 1.1], [9, 5], [9, 5.1]])[:, :, None, None])
    layer.mask[1:3, 0] = 0  # else filters 0 and 1 were alike, and 2 and 3
    self_group(layer, 10)
    # (9, 1) and (9, 5.1) are one group, (0, 1.1) and (0, 5) the other
    assert layer.mask.tolist() == [[1, 1], [0, 1], [0, 1], [1, 1]]


@pytest.mark.parametrize('value', [0.0, 1.0], ids=['zeros', 'identical'])
def test_filters_that_do_not_differ_are_no_trouble(value):
    for percentage in (1, 50, 99):
        layer = layer_of()
        torch.nn.init.constant_(layer.weight, value)
        self_group(layer, percentage)
        assert layer.mask.sum() == 0, percentage  # nothing is above a threshold that all are at


def test_nothing_left_stays_nothing():
    layer = layer_of()
    layer.mask.zero_()
    self_group(layer, 50)
    assert layer.mask.sum() == 0


def test_steps_are_the_same_for_the_same_seed():
    one, two, other = (layer_of(40, 16, groups=6) for _ in range(3))
    for layer, seed in ((one, 1), (two, 1), (other, 2)):
        self_group(layer, 50, seed)
    assert torch.equal(one.mask, two.mask)
    assert not torch.equal(one.mask, other.mask)


def test_a_step_changes_the_mask_alone_and_in_place():
    layer = layer_of()
    mask, weight, bias = layer.mask, layer.weight.clone(), layer.bias.clone()
    self_group(layer, 50)
    assert layer.mask is mask
    assert mask.dtype is torch.float32
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer.bias, bias)


def test_linear_layers_are_grouped_by_their_weights():
    torch.manual_seed(0)
    linear, conv = SGCLinear(16, 24, groups=4), SGCConv2d(16, 24, 1, groups=4)
    conv.weight.data.copy_(linear.weight[..., None, None])
    for percentage in (30, 60):
        self_group(linear, percentage)
        self_group(conv, percentage)
    assert 0 < linear.mask.mean() < 0.5
    assert torch.equal(linear.mask, conv.mask)


def test_a_model_is_pruned_in_steps(model):
    expected = nn.ModuleList([SGCConv2d(12, 16, 3, groups=4), SGCLinear(8, 6)])
    for layer, like in zip(expected, (model[0], model[2]), strict=True):
        layer.load_state_dict(like.state_dict())
        for percentage in (20, 40, 50):
            self_group(layer, percentage, seed=3)
    self_group_model(model, 50, step=20, seed=3)
    assert list(sgc_layers(model)) == ['0', '2']
    for layer, like in zip(expected, (model[0], model[2]), strict=True):
        assert torch.equal(layer.mask, like.mask)


@pytest.mark.parametrize(('percentage', 'step'), [(0, 10), (100, 10), (50, 0), (50, 100)])
def test_numbers_out_of_range_are_named(model, percentage, step):
    with pytest.raises(ValueError, match=f'percentage={percentage}, step={step}'):
        self_group_model(model, percentage, step)
    assert model[0].mask.all()


def test_a_model_without_self_grouping_layers_is_refused():
    with pytest.raises(ValueError, match='Conv2d has no SGC layers'):
        self_group_model(nn.Conv2d(3, 3, 1), 50)
