"""For MMEngine's runner: budgets and schedules of the grouped layers, checkpoints, precision."""

from .checkpoint_hook import WholeCheckpointHook
from .cpu_amp import CPUAmpOptimWrapper
from .dgc_schedule_hook import DGCScheduleHook
from .distillation_hook import DistillationHook
from .epoch_seed_hook import EpochSeedHook
from .freeze_gates_hook import FreezeGatesHook
from .mac_budget_hook import MACBudgetHook
from .mac_ratio_hook import MACRatioHook
from .self_grouping_hook import SelfGroupingHook

__all__ = [
    'CPUAmpOptimWrapper',
    'DGCScheduleHook',
    'DistillationHook',
    'EpochSeedHook',
    'FreezeGatesHook',
    'MACBudgetHook',
    'MACRatioHook',
    'SelfGroupingHook',
    'WholeCheckpointHook',
]
