"""Where fine-tuning starts: gates ranked by importance, groups in layers."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.grouping import (
    Groups,
    gates_by_image,
    regular_clusters,
    start_gates,
    start_groups,
)
from mmdet_groupconv.layers import DGCConv2d, FixedGroupConv2d, FLGCConv2d, MSGCConv2d, SGCConv2d


@pytest.mark.parametrize('filters', [8, 18])
def test_each_head_ranks_channels_by_what_its_own_filters_read(filters):
    network = nn.ModuleDict(
        dict(msgc=MSGCConv2d(6, filters, 1), dgc=DGCConv2d(6, filters, 1, pre_norm=False))
    )
    importance = np.random.default_rng(0).random((filters, 6))
    contiguous = network['msgc'].assign  # of ragged heads; None for equal ones
    if contiguous is None:
        contiguous = torch.arange(filters) * 4 // filters
    start_gates(network, dict(msgc=importance, dgc=importance))
    for biases, assign in (
        (network['msgc'].maskgen.conv[3].bias, contiguous),
        (network['dgc'].saliency.fc2.bias, network['dgc'].assign),
    ):
        for head, found in enumerate(biases.detach().view(4, 6)):
            wanted = torch.from_numpy(importance[(assign == head).numpy()].sum(axis=0))
            assert torch.equal(found.argsort(), wanted.argsort())


def test_layers_without_importance_are_left_alone():
    network = nn.ModuleDict(dict(msgc=MSGCConv2d(6, 8, 1)))
    before = network['msgc'].maskgen.conv[3].bias.clone()
    start_gates(network, {})
    assert torch.equal(network['msgc'].maskgen.conv[3].bias, before)


def test_groups_and_clusters_are_put_into_their_layers():
    layers = dict(
        fixed=FixedGroupConv2d(4, 4, 1, groups=4),
        flgc=FLGCConv2d(4, 4, 1, groups=4),
        sgc=SGCConv2d(4, 4, 1),
        dense=FixedGroupConv2d(4, 4, 1, groups=4),
        open=SGCConv2d(4, 4, 1),
    )
    halves = Groups(2, np.array([1, 0, 1, 0]), np.array([0, 0, 1, 1]), 0.5)
    clusters = regular_clusters(np.random.default_rng(0).random((4, 4)), 2, 3)
    plan = dict(fixed=halves, flgc=halves, sgc=clusters, dense=None, open=None)
    weights = {name: torch.randn_like(layer.weight) for name, layer in layers.items()}
    start_groups(nn.ModuleDict(layers), plan, lambda name, groups: weights[name])
    assert all(torch.equal(layer.weight, weights[name]) for name, layer in layers.items())
    assert layers['fixed'].channel_groups.tolist() == [1, 0, 1, 0]
    assert layers['flgc'].filter_logits.argmax(dim=1).tolist() == [0, 0, 1, 1]
    assert torch.equal(layers['sgc'].mask, torch.from_numpy(clusters.mask).float())
    assert layers['dense'].equal_groups == 1
    assert (layers['open'].mask == 1).all()


def test_heads_agree_on_what_is_not_computed_where_nobody_reads_it():
    backbone = MODELS.build(dict(type='MSGCMobileNetV2', widen_factor=0.5))
    generators = {conv.name: conv.generator for conv in gates_by_image(backbone)}
    name = 'layer4.1.linear_conv.conv'
    filters, channels, *_ = backbone.get_submodule(name).weight.shape
    importance = np.random.default_rng(0).random((filters, channels))
    start_gates(backbone, {name: importance})
    heads = generators[name].conv[3].bias.detach().view(generators[name].heads, channels)
    together = torch.from_numpy(importance.sum(axis=0)).argsort()
    assert torch.equal(heads.argsort(dim=1), together.expand_as(heads))
