import math

import pytest
import torch
from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmdet_groupconv.heads import GroupedRetinaHead, GroupedRPNHead, GroupedShared2FCBBoxHead
from mmdet_groupconv.layers import (
    DGCConv2d,
    FLGCConv2d,
    GroupedLayer,
    MaskGenerator,
    SeparableConv2d,
    SGCConv2d,
    SGCLinear,
)

CONV_CFGS = {
    'FLGC': dict(type='FLGCConv2d', groups=2),
    'DGC': dict(type='DGCConv2d', heads=2, pre_norm=False),
    'SGC': dict(type='SGCConv2d'),
    'MSGC': dict(type='MSGCConv2d', heads=2, attention=True),
    'Separable': dict(type='SeparableConv2d', pointwise_cfg=dict(type='MSGCConv2d')),
}
SGC = CONV_CFGS['SGC']
EACH_CFG = pytest.mark.parametrize('cfg', CONV_CFGS.values(), ids=CONV_CFGS)
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], scales=[4], strides=[8, 16])
ASSIGNER = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
SAMPLER = dict(type='RandomSampler', num=8, pos_fraction=0.5)
NMS = dict(type='nms', iou_threshold=0.5)
BOXES = torch.tensor([[6.0, 6.0, 42.0, 40.0], [20.0, 20.0, 60.0, 60.0]])


def features(channels=16):
    torch.manual_seed(0)
    return tuple(torch.randn(2, channels, size, size) for size in (8, 4))


def samples():
    """Two images of 64 pixels, a box in each."""
    made = []
    for label in (0, 1):
        size = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (64, 64))
        sample = DetDataSample(metainfo=dict(size, scale_factor=(1.0, 1.0)))
        boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([label]))
        made.append(sample)
    return made


def retina(cfg=SGC, head=GroupedRetinaHead, **kwargs):
    torch.manual_seed(0)
    own = dict(pred_cfg=cfg) if issubclass(head, GroupedRetinaHead) else {}
    sampler = dict(type='PseudoSampler')
    options = dict(
        feat_channels=16,
        stacked_convs=1,
        anchor_generator=ANCHORS,
        train_cfg=dict(assigner=ASSIGNER, sampler=sampler, allowed_border=-1, pos_weight=-1),
        test_cfg=ConfigDict(nms_pre=20, min_bbox_size=0, score_thr=0.0, nms=NMS, max_per_img=5),
    )
    return head(2, 16, **dict(options, **own, **kwargs))


def rpn(cfg=SGC, head=GroupedRPNHead, **kwargs):
    torch.manual_seed(0)
    own = dict(conv_cfg=cfg) if issubclass(head, GroupedRPNHead) else {}
    options = dict(
        feat_channels=16,
        anchor_generator=ANCHORS,
        train_cfg=dict(assigner=ASSIGNER, sampler=SAMPLER, allowed_border=-1, pos_weight=-1),
        test_cfg=ConfigDict(nms_pre=20, max_per_img=10, min_bbox_size=0, nms=NMS),
    )
    return head(16, **dict(options, **own, **kwargs))


def bbox(head=GroupedShared2FCBBoxHead):
    torch.manual_seed(0)
    own = dict(linear_cfg=dict(type='SGCLinear', groups=4))
    own = own if head is GroupedShared2FCBBoxHead else {}
    return head(in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=2, **own)


def roi_head(**bbox_head):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='StandardRoIHead',
            bbox_roi_extractor=dict(
                type='SingleRoIExtractor',
                roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
                out_channels=16,
                featmap_strides=[8, 16],
            ),
            bbox_head=dict(bbox_head, in_channels=16, fc_out_channels=32, num_classes=2),
            train_cfg=ConfigDict(assigner=ASSIGNER, sampler=SAMPLER, pos_weight=-1),
            test_cfg=ConfigDict(score_thr=0.0, nms=NMS, max_per_img=3),
        )
    )


def proposals():
    return [InstanceData(bboxes=BOXES, scores=torch.ones(2)) for _ in range(2)]


def check_gates_start(module):
    """Every layer that decides its gates does so as it does when it is new."""
    layers = [m for m in module.modules() if isinstance(m, GroupedLayer)]
    assert layers
    for layer in layers:
        if isinstance(layer, FLGCConv2d):
            assert layer.channel_logits.std().item() == pytest.approx(0.1, rel=0.3)
        if isinstance(layer, DGCConv2d):
            assert layer.saliency.fc2.bias.unique().tolist() == [1.0]
    for net in module.modules():
        if isinstance(net, MaskGenerator):
            assert net.conv[3].bias.unique().tolist() == [2.0]
            assert net.conv[3].weight.std() > 0.1  # not a head's 0.01


def close(ours, expected):
    for levels, expected_levels in zip(ours, expected, strict=True):
        for out, reference in zip(levels, expected_levels, strict=True):
            torch.testing.assert_close(out, reference, atol=1e-5, rtol=1e-5)


# RetinaHead.


def test_retina_is_the_hosts_with_the_same_weights():
    dense, ours = retina(head=RetinaHead), retina(conv_cfg=SGC)
    nn.init.normal_(dense.retina_cls.weight, std=0.1)
    keys = ours.load_state_dict(dense.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert all(key.endswith('.mask') for key in keys.missing_keys)
    close(ours(features()), dense(features()))


def test_retina_groups_both_predictions_and_leaves_the_tower():
    head = retina()
    assert type(head.retina_cls) is type(head.retina_reg) is SGCConv2d
    assert type(head.cls_convs[0].conv) is nn.Conv2d


@pytest.mark.parametrize('kind', [GroupedRetinaHead, RetinaHead])
def test_retina_keeps_the_gates_start(kind):
    for cfg in CONV_CFGS.values():
        head = retina(cfg, kind, conv_cfg=cfg)
        head.init_weights()
        check_gates_start(head)


@EACH_CFG
def test_retina_starts_at_the_prior(cfg):
    head = retina(cfg)
    head.init_weights()
    predictor = getattr(head.retina_cls, 'pointwise', head.retina_cls)
    # a foreground probability of 0.01
    assert predictor.bias.unique().tolist() == pytest.approx([-math.log(99)])
    assert predictor.weight.std().item() == pytest.approx(0.01, rel=0.3)


def test_retina_keeps_the_scale_of_depthwise_convolutions():
    head = retina(CONV_CFGS['Separable'], conv_cfg=CONV_CFGS['Separable'])
    head.init_weights()
    layers = [m for m in head.modules() if isinstance(m, SeparableConv2d)]
    assert len(layers) == 4
    for layer in layers:
        # fan_in = 3*3 of one channel
        assert layer.depthwise.weight.std().item() == pytest.approx(1 / 3, rel=0.3)


@EACH_CFG
def test_retina_trains(cfg):
    head = retina(cfg, conv_cfg=cfg).train()
    losses = head.loss(features(), samples())
    sum(sum(values) for values in losses.values()).backward()
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'


def test_retina_predicts():
    for cfg in CONV_CFGS.values():
        results = retina(cfg, conv_cfg=cfg).eval().predict(features(), samples())
        assert [len(result.bboxes) for result in results] == [5, 5], cfg


# RPNHead.


@pytest.mark.parametrize('num_convs', [1, 2])
def test_rpn_is_the_hosts_with_the_same_weights(num_convs):
    dense, ours = rpn(head=RPNHead, num_convs=num_convs), rpn(num_convs=num_convs)
    keys = ours.load_state_dict(dense.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert len(keys.missing_keys) == num_convs
    close(ours(features()), dense(features()))


@pytest.mark.parametrize('num_convs', [1, 2])
def test_rpn_groups_3x3_convolutions_alone(num_convs):
    grouped = [n for n, m in rpn(num_convs=num_convs).named_modules() if isinstance(m, SGCConv2d)]
    assert grouped == (['rpn_conv'] if num_convs == 1 else ['rpn_conv.0.conv', 'rpn_conv.1.conv'])


@pytest.mark.parametrize('num_convs', [1, 2])
def test_rpn_keeps_the_gates_start(num_convs):
    for cfg in CONV_CFGS.values():
        head = rpn(cfg, num_convs=num_convs)
        head.init_weights()
        check_gates_start(head)
        layer = head.rpn_conv if num_convs == 1 else head.rpn_conv[0].conv
        if not isinstance(layer, SeparableConv2d):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.3), cfg


@pytest.mark.parametrize(
    ('cfg', 'num_convs'),
    [(cfg, 1 + number % 2) for number, cfg in enumerate(CONV_CFGS.values())],
    ids=CONV_CFGS,
)
def test_rpn_trains_and_proposes(cfg, num_convs):
    head = rpn(cfg, num_convs=num_convs).train()
    losses, boxes = head.loss_and_predict(features(), samples(), head.test_cfg)
    sum(sum(values) for values in losses.values()).backward()
    assert set(losses) == {'loss_rpn_cls', 'loss_rpn_bbox'}
    assert all(0 < len(of_image) <= 10 for of_image in boxes)
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'


# Shared2FCBBoxHead.


def test_bbox_head_is_the_hosts_with_the_same_weights():
    dense, ours = bbox(Shared2FCBBoxHead), bbox()
    keys = ours.load_state_dict(dense.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert keys.missing_keys == ['shared_fcs.0.mask', 'shared_fcs.1.mask']
    x = torch.randn(3, 16, 7, 7)
    for out, expected in zip(ours(x), dense(x), strict=True):
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_bbox_head_groups_its_shared_layers():
    head = bbox()
    assert [type(fc) for fc in head.shared_fcs] == [SGCLinear, SGCLinear]
    assert [fc.clusters for fc in head.shared_fcs] == [4, 4]
    assert type(head.fc_cls) is type(bbox(Shared2FCBBoxHead).fc_cls)


def test_bbox_head_is_initialised_as_the_hosts():
    head = bbox()
    head.init_weights()
    # Xavier, uniform: the bound is sqrt(6 / (in + out)), the deviation that / sqrt(3)
    assert head.shared_fcs[1].weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)
    assert head.shared_fcs[1].bias.count_nonzero() == 0


def test_bbox_head_prunes():
    head, x = bbox(), torch.randn(3, 16, 7, 7)
    before = head(x)[0]
    head.shared_fcs[0].mask[:, ::2] = 0
    assert not torch.equal(head(x)[0], before)


def test_bbox_head_trains():
    head = roi_head(type='GroupedShared2FCBBoxHead', linear_cfg=dict(type='SGCLinear'))
    losses = head.loss(features(), proposals(), samples())
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f'no gradient for {name}'


def test_bbox_head_predicts():
    head = roi_head(type='GroupedShared2FCBBoxHead', linear_cfg=dict(type='SGCLinear')).eval()
    results = head.predict(features(), proposals(), samples())
    assert [len(result.bboxes) for result in results] == [3, 3]


# All of them.


@pytest.mark.parametrize('make', [retina, rpn])
def test_initialising_again_changes_nothing(make):
    head = make(CONV_CFGS['MSGC'])
    head.init_weights()
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head.init_weights()
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


@pytest.mark.parametrize('make', [retina, rpn])
def test_trained_gates_are_loaded(make, tmp_path):
    trained = make(CONV_CFGS['MSGC'])
    for parameter in trained.parameters():
        nn.init.normal_(parameter)
    torch.save(trained.state_dict(), tmp_path / 'head.pth')
    checkpoint = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    head = make(CONV_CFGS['MSGC'], init_cfg=checkpoint)
    head.init_weights()
    expected = trained.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in head.state_dict().items())


@pytest.mark.parametrize('make', [retina, rpn])
def test_dense_weights_leave_the_gates_at_their_start(make, tmp_path):
    torch.save(make().state_dict(), tmp_path / 'head.pth')
    checkpoint = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    first = dict(type='Normal', layer='Conv2d', std=0.01)
    head = make(CONV_CFGS['MSGC'], init_cfg=[first, checkpoint])
    head.init_weights()
    check_gates_start(head)


@pytest.mark.parametrize(
    ('kind', 'argument'),
    [
        (GroupedRetinaHead, dict(num_classes=2, pred_cfg=SGC)),
        (GroupedRPNHead, dict(conv_cfg=SGC)),
        (GroupedShared2FCBBoxHead, dict(linear_cfg=dict(type='SGCLinear'), num_classes=2)),
    ],
)
def test_is_built_by_name(kind, argument):
    head = MODELS.build(dict(type=kind.__name__, in_channels=16, **argument))
    assert type(head) is kind
