"""What configs of the installed package are marked with finds its modules."""

import mmdet.registry
import pytest
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import HOOKS, MODELS

from mmdet_groupconv.registry import REGISTRIES, SCOPE


def test_every_registry_of_mmdetection_has_a_child_of_our_scope():
    assert {'MODELS', 'HOOKS', 'DATASETS', 'TRANSFORMS', 'METRICS'} <= set(REGISTRIES)
    for name, registry in REGISTRIES.items():
        assert registry.parent is getattr(mmdet.registry, name)
        assert registry.scope == SCOPE


@pytest.mark.parametrize(
    ('registry', 'cfg'),
    [
        (MODELS, dict(type='MSGCResNet', depth=18)),
        (MODELS, dict(type='FPN', in_channels=[8, 8], out_channels=8, num_outs=2)),
        (MODELS, dict(type='ReLU')),
        (HOOKS, dict(type='MACBudgetHook')),
        (HOOKS, dict(type='NumClassCheckHook')),
        (HOOKS, dict(type='IterTimerHook')),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '',
)
def test_its_scope_finds_ours_mmdetections_and_mmengines(registry, cfg):
    built = registry.build(dict(cfg, _scope_=SCOPE))
    assert type(built).__name__ == cfg['type']


def test_mmengine_takes_configs_from_the_package():
    assert MODULE2PACKAGE[SCOPE] == 'mmdet_groupconv'
