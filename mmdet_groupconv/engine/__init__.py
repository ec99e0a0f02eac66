"""MMEngine hooks: budgets and schedules of the grouped layers."""

from .checkpoint_hook import WholeCheckpointHook
from .dgc_schedule_hook import DGCScheduleHook
from .epoch_seed_hook import EpochSeedHook
from .mac_budget_hook import MACBudgetHook
from .mac_ratio_hook import MACRatioHook
from .self_grouping_hook import SelfGroupingHook

__all__ = [
    'DGCScheduleHook',
    'EpochSeedHook',
    'MACBudgetHook',
    'MACRatioHook',
    'SelfGroupingHook',
    'WholeCheckpointHook',
]
