"""What a config trains for."""

from mmengine.config import Config
from mmengine.registry import HOOKS

from ..engine import MACBudgetHook


def targets_of(cfg: Config) -> dict[str, float]:
    """The MAC ratios that a config trains for, by scope ('backbone', 'detector')."""
    hooks = cfg.get('custom_hooks') or []
    settings = [{k: v for k, v in hook.items() if k != 'priority'} for hook in hooks]
    budgets = [HOOKS.build(one) for one in settings if HOOKS.get(one['type']) is MACBudgetHook]
    return {hook.scope: hook.target for hook in budgets}
