"""What the base of the hooks logs, on a tiny RetinaNet."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_groupconv.engine import MACRatioHook
from mmdet_groupconv.macs import MacMeter, count_macs

NAMES = 'mac_ratio', 'mac_ratio_detector'


@pytest.fixture
def cfg(tiny_cfg):
    tiny_cfg.custom_hooks = [dict(type='MACRatioHook')]
    return tiny_cfg


def by_hand(runner, loader, forward):
    """Ratios ``[batches, 2]`` and images a batch."""
    ratios, images = [], []
    with MacMeter(runner.model) as meter, torch.no_grad():
        for batch in loader:
            forward(batch)
            macs = meter.take()
            ratios.append([float(macs.part('backbone').ratio), float(macs.ratio)])
            images.append(len(batch['inputs']))
    return torch.tensor(ratios), torch.tensor(images)


def test_a_dense_detector_has_a_ratio_of_one_everywhere(cfg, train, scalars):
    cfg.model.backbone.type = 'ResNet'
    runner, _ = train(cfg)
    for name in NAMES:
        assert scalars(runner, f'train/{name}') == [1.0] * 4
        assert scalars(runner, f'val/{name}') == [1.0]


def test_a_static_grouping_has_the_ratio_that_a_meter_finds(cfg, train, scalars):
    cfg.model.backbone.type = 'FixedGroupResNet'
    runner, _ = train(cfg)
    model = runner.model.eval()

    def losses(batch):
        return model(**model.data_preprocessor(batch), mode='loss')

    in_training, _ = by_hand(runner, runner.train_dataloader, losses)
    in_validation, _ = by_hand(runner, runner.val_dataloader, model.val_step)  # larger images
    for column, name in enumerate(NAMES):
        assert scalars(runner, f'train/{name}') == pytest.approx(in_training[:, column].tolist())
        mean = float(in_validation[:, column].mean())
        assert scalars(runner, f'val/{name}') == pytest.approx([mean])
    backbone, detector = in_training[0]
    assert backbone < detector < 1


def test_groups_in_the_neck_alone_leave_the_backbone_s_ratio(cfg, train, scalars):
    cfg.model.backbone.type = 'ResNet'
    cfg.model.neck.conv_cfg = dict(type='MSGCConv2d', heads=2)
    runner, _ = train(cfg)
    assert scalars(runner, 'train/mac_ratio') == scalars(runner, 'val/mac_ratio') * 4 == [1.0] * 4
    for mode in ('train', 'val'):
        assert all(ratio != 1 for ratio in scalars(runner, f'{mode}/mac_ratio_detector'))


def test_test_metrics_are_means_over_images_not_batches(cfg):
    cfg.randomness = dict(seed=0)
    cfg.test_dataloader.batch_size = 3  # 3 images and 1
    runner = Runner.from_cfg(cfg)
    with torch.no_grad():  # gates that depend on the image
        for name, parameter in runner.model.named_parameters():
            if name.endswith('conv.3.bias') and 'maskgen' in name:
                parameter.zero_()
    metrics = runner.test()
    runner.model.eval()
    ratios, images = by_hand(runner, runner.test_dataloader, runner.model.test_step)
    assert images.tolist() == [3, 1]
    means = (ratios * images[:, None]).sum(dim=0) / 4
    assert (ratios[0] - ratios[1]).abs().min() > 1e-4
    assert [metrics[name] for name in NAMES] == pytest.approx(means.tolist())


def test_what_backward_computes_again_is_not_kept(cfg, monkeypatch):
    cfg.model.backbone.update(type='DGCResNet', with_cp=True)
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    taken = []
    monkeypatch.setattr(MacMeter, '_add', lambda *args: taken.append(args))
    data = runner.model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    calls = count_calls(runner.model.backbone.layer1[0].conv1)
    losses = runner.model.train()(**data, mode='loss')
    counted = len(taken)
    losses['loss_cls'][0].backward()
    assert len(calls) == 2  # once again in backward
    assert len(taken) == counted


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


def test_a_failed_forward_pass_leaves_nothing_behind(cfg, scalars):
    cfg.model.backbone.type = 'FixedGroupResNet'
    runner = Runner.from_cfg(cfg)
    runner.call_hook('before_run')
    data = runner.model.data_preprocessor(next(iter(runner.train_dataloader)), training=True)
    expected = runner.model(**data, mode='loss')
    with pytest.raises(AttributeError):  # in the head, after the backbone was counted
        runner.model(data['inputs'], [None, None], mode='loss')
    again = runner.model(**data, mode='loss')
    assert [float(again[name]) for name in NAMES] == [float(expected[name]) for name in NAMES]
    runner.call_hook('after_run')
    assert NAMES[0] not in runner.model(**data, mode='loss')


def test_training_counts_a_roi_head_for_as_many_boxes_as_evaluation_may_have(tiny_detector):
    model = tiny_detector('faster-rcnn', 'flgc').train()  # fully connected layers are dense yet
    model.roi_head.bbox_sampler.num = 8
    shapes = dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape'), (64, 64))
    samples = [DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0))) for _ in range(2)]
    for sample in samples:
        boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0]))
    hook = MACRatioHook()
    hook.before_run(SimpleNamespace(model=model))
    losses = model(torch.randn(2, 3, 64, 64), samples, mode='loss')
    found = float(losses['mac_ratio_detector'])
    assert found == pytest.approx(count_macs(model, (64, 64)).ratio, abs=1e-6)
    assert model.test_cfg.rpn.max_per_img > model.roi_head.bbox_sampler.num
