"""Configs that group a dense detector, and the ready ones for COCO, which are the same."""

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmdet_groupconv.engine.grouped_config import grouped_config, schedule

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
COUNTING = dict(type='MACRatioHook')
READY = sorted(CONFIGS.glob('*/*_whole_distill_1x_coco.py'))


def parts(name):
    """'retinanet_flgc-r50_fpn_whole_distill_1x_coco' -> 'retinanet', 'flgc', 'r50'."""
    detector, network, *_ = name.split('_')
    return detector, *network.split('-')


@pytest.fixture
def dense():
    return Config.fromfile(CONFIGS / 'retinanet/retinanet_r18_fpn_1x_coco.py')


def test_every_detector_method_and_backbone_is_ready():
    found = {parts(path.stem) for path in READY}
    assert len(found) == len(READY) == 2 * 4 * 3


@pytest.mark.parametrize('method', ['dgc', 'flgc', 'msgc', 'sgc'])
def test_ready_configs_are_what_the_tool_writes(method):
    paths = [path for path in READY if parts(path.stem)[1] == method]
    assert len(paths) == 6
    for path in paths:
        is_what_the_tool_writes(path)


def without(cfg, key):
    """For the tool judges each layer's by a checkpoint."""
    if not isinstance(cfg, dict):
        return cfg
    return {k: without(value, key) for k, value in cfg.items() if k != key}


def is_what_the_tool_writes(path):
    ready = Config.fromfile(path)
    detector, method, backbone = parts(path.stem)
    (distillation,) = [h for h in ready.custom_hooks if h['type'] == 'DistillationHook']
    assert (distillation['start'], distillation['stop']) == (0.0, 0.5)
    dense = Config.fromfile(distillation['config'])
    assert parts(Path(distillation['config']).stem.replace('_', '_dense-', 1))[::2] == (
        detector,
        backbone,
    )
    hook = schedule(dense, method, 0.5, 'detector')
    made = grouped_config(dense, method, 'detector', hook)
    assert without(ready.model.to_dict(), 'gate_factor') == made.model.to_dict()
    assert ready.optim_wrapper.optimizer.lr == made.optim_wrapper.optimizer.lr
    ours = [h for h in ready.custom_hooks if h['type'] not in ('DistillationHook', 'MACBudgetHook')]
    assert ours == [h for h in made.custom_hooks if h['type'] != 'MACBudgetHook']
    keys = (made.optim_wrapper.get('paramwise_cfg') or {}).get('custom_keys', {})
    assert dict(ready.optim_wrapper.paramwise_cfg.get('custom_keys', {})) == dict(keys)


def test_the_dense_config_stays_as_it_is(dense):
    before = dense.to_dict()
    grouped_config(dense, 'msgc', 'detector', schedule(dense, 'msgc', 0.5, 'detector'))
    assert dense.to_dict() == before


def test_the_backbone_alone(dense):
    made = grouped_config(dense, 'flgc', 'backbone', COUNTING)
    assert made.model.backbone.type == 'FLGCResNet'
    assert made.model.neck == dense.model.neck
    assert made.model.bbox_head == dense.model.bbox_head


def test_what_is_grouped_is_neither_frozen_nor_initialised_otherwise(dense):
    assert dense.model.backbone.frozen_stages == 1
    made = grouped_config(dense, 'sgc', 'detector', COUNTING)
    assert made.model.backbone.frozen_stages == 0
    assert made.model.backbone.init_cfg is None


def test_other_hooks_stay_and_ours_are_replaced(dense):
    dense.custom_hooks = [dict(type='MACRatioHook'), dict(type='NumClassCheckHook')]
    made = grouped_config(dense, 'fixed', 'detector', dict(type='DGCScheduleHook'))
    assert [hook['type'] for hook in made.custom_hooks] == ['NumClassCheckHook', 'DGCScheduleHook']


def test_the_half_of_a_separable_convolution_that_can_be_is_grouped():
    dense = Config.fromfile(CONFIGS / 'retinanet/retinanet_mbv2_fpn_1x_coco.py')
    made = grouped_config(dense, 'flgc', 'detector', COUNTING)
    assert made.model.neck.conv_cfg.type == 'SeparableConv2d'
    assert made.model.neck.conv_cfg.pointwise_cfg.type == 'FLGCConv2d'
    assert made.model.bbox_head.pred_cfg == made.model.neck.conv_cfg


def test_a_mask_head_is_grouped_with_its_detector():
    dense = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    head = grouped_config(dense, 'fixed', 'detector', COUNTING).model.roi_head.mask_head
    assert head.conv_cfg.type == 'FixedGroupConv2d'


@pytest.mark.parametrize(('optimizer', 'weight'), [('SGD', 30.0), ('AdamW', 5.0)])
def test_the_budgets_weight_goes_by_the_optimizer(dense, optimizer, weight):
    dense.optim_wrapper.optimizer.type = optimizer
    hook = schedule(dense, 'msgc', 0.4, 'detector')
    assert hook['weight'] == weight
    assert hook['target'] == 0.4


@pytest.mark.parametrize(
    ('method', 'optimizer', 'factor'),
    [('fixed', 'SGD', 1.0), ('sgc', 'AdamW', 2.0), ('msgc', 'SGD', 1.0), ('dgc', 'AdamW', 2.0)],
)
def test_the_rate_goes_by_what_filters_read_and_by_the_optimizer(dense, method, optimizer, factor):
    dense.optim_wrapper.optimizer.type = optimizer
    made = grouped_config(dense, method, 'detector', COUNTING)
    expected = factor * dense.optim_wrapper.optimizer.lr
    assert made.optim_wrapper.optimizer.lr == pytest.approx(expected)


@pytest.mark.parametrize(
    ('optimizer', 'rate', 'factor'),
    [('SGD', 1e-3, 5.0), ('AdamW', 1e-3, 1.0), ('AdamW', 5e-5, 10.0)],
)
def test_gates_learn_fast_enough_to_close(dense, optimizer, rate, factor):
    dense.optim_wrapper.optimizer.update(type=optimizer, lr=rate)
    made = grouped_config(dense, 'msgc', 'detector', COUNTING)
    keys = made.optim_wrapper.paramwise_cfg.custom_keys
    assert keys['maskgen'] == dict(lr_mult=factor, decay_mult=0.0)
