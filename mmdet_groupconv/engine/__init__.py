"""MMEngine hooks: budgets and schedules of the grouped layers."""

from .checkpoint_hook import WholeCheckpointHook
from .dgc_schedule_hook import DGCScheduleHook
from .epoch_seed_hook import EpochSeedHook
from .gate_pictures_hook import GatePicturesHook
from .mac_budget_hook import MACBudgetHook
from .mac_ratio_hook import MACRatioHook
from .self_grouping_hook import SelfGroupingHook

__all__ = [
    'DGCScheduleHook',
    'EpochSeedHook',
    'GatePicturesHook',
    'MACBudgetHook',
    'MACRatioHook',
    'SelfGroupingHook',
    'WholeCheckpointHook',
]
