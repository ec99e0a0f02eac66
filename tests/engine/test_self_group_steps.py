"""The steps of self-grouping on single layers."""

import numpy as np
import pytest
import torch
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


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(SGCConv2d(12, 16, 3, groups=4), nn.Conv2d(16, 8, 1), SGCLinear(8, 6))


@pytest.mark.parametrize('index', range(2))
def test_steps_equal_the_published_ones(golden_sgc_layers, index, monkeypatch):
    case = golden_sgc_layers[index]
    layer = SGCConv2d(case['in_channels'], case['out_channels'], case['kernel_size'])
    layer.weight.data.copy_(case['weight'])
    for step in case['steps']:
        labels, centroids = step['labels'].numpy(), step['centroids'].double().numpy()
        mask = step['mask_before'].double().numpy()
        threshold, inputs = group_inputs(labels, centroids, mask, step['percentage'])
        assert threshold == pytest.approx(step['threshold'], abs=1e-5)
        assert np.array_equal(inputs, step['group_inputs'].bool().numpy())
        # K-means' random starts are the publication's own: its clusters are taken as they are.
        monkeypatch.setattr(self_grouping, 'cluster', lambda *_, c=(labels, centroids): c)
        self_group(layer, step['percentage'])
        assert torch.equal(layer.mask, step['mask_after'].float())


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


def test_clusters_of_vectors_that_fall_apart():
    vectors = np.array([[0.0, 0], [9, 9], [0, 1], [9, 8], [0, 0]])
    labels, centroids = cluster(vectors, 2, seed=0)
    assert labels[0] == labels[2] == labels[4] != labels[1] == labels[3]
    assert centroids[labels[1]].tolist() == [9, 8.5]


def test_no_more_clusters_than_different_vectors():
    labels, centroids = cluster(np.array([[1.0, 2], [1, 2], [3, 4]]), 16, seed=0)
    assert len(centroids) == 2
    assert labels[0] == labels[1] != labels[2]


def test_clusters_repeat_with_the_seed():
    vectors = np.random.default_rng(0).random((60, 30))
    one, two, other = (cluster(vectors, 8, seed)[0].tolist() for seed in (1, 1, 2))
    assert one == two != other


def test_steps_shrink_masks_to_the_percentage(model):
    layer = model[0]
    shares, masks = [], [layer.mask.clone()]
    for percentage in (10, 30, 60):
        self_group(layer, percentage)
        shares.append(float(layer.mask.mean()))
        masks.append(layer.mask.clone())
    assert shares == pytest.approx([0.9, 0.7, 0.4], abs=0.04)
    assert all((later <= earlier).all() for earlier, later in zip(masks, masks[1:], strict=False))
    assert len(masks[1].unique(dim=0)) <= 4  # a row a cluster


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
