"""MMEngine hooks: budgets and schedules of the grouped backbones."""

from .mac_budget_hook import MACBudgetHook

__all__ = ['MACBudgetHook']
