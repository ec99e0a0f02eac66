"""A trained dense detector, grouped by a method for a budget of MACs."""

from dataclasses import dataclass

import numpy as np
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from mmengine.runner import load_state_dict
from torch import Tensor, nn

from ..analysis.detectors import forward_detector
from ..analysis.images import image_batches, image_paths
from ..analysis.macs import MacReport, count_macs
from ..checkpoints import check_fit, trimmed_keys
from ..grouping import (
    LayerPlan,
    Plan,
    Spaces,
    find_spaces,
    magnitude_importance,
    plan_clusters,
    plan_groups,
    start_clusters,
    start_gates,
    start_groups,
    taylor_importance,
    why_dense,
)
from ..layers import GroupedLayer
from .calibration import forward_passes, training_images, training_losses
from .grouped_config import MOST_GROUPS, grouped_config, schedule
from .launch import build_model
from .self_grouping import self_group_model, sgc_layers

_SMALL = 128  # pixels; enough to see which layer reads which
_ROUNDS = 5
_TOLERANCE = 0.003


@dataclass
class Settings:
    """What is asked for.

    method: one of METHODS. macs: share of the scope's that is to be left. scope: 'backbone' or
    'detector'. align: groups have multiples of so many channels and filters. importance: 'taylor'
    or 'magnitude'. images: how many training images judge the connections. folder: of images
    without labels to judge them by in their place, by magnitude. input_size: (height, width) that
    MACs are counted for.
    """

    method: str
    macs: float
    scope: str
    align: int
    importance: str
    images: int
    input_size: tuple[int, int]
    seed: int = 0
    folder: str | None = None


@dataclass
class GroupedDetector:
    """config: for the fine-tuning. model: where that starts. plan: what was done to each layer."""

    config: Config
    model: nn.Module
    plan: Plan


def group_detector(
    cfg: Config, state: dict[str, Tensor], source: str, settings: Settings
) -> GroupedDetector:
    """Group the detector of `cfg` with the weights `state`, those of the file `source`.

    Raises ValueError where the weights are another network's, where the method finds no layer, and,
    with the least that can be reached, where the MACs can't be met.
    """
    dense = build_model(cfg)
    check_fit(dense, state, source, may_add=trimmed_keys(dense))
    load_state_dict(dense, state)
    before = count_macs(dense, settings.input_size)
    config, model, budget = _grouped(cfg, settings, before)
    load_state_dict(model, state)
    importance = _importance(cfg, dense, _grouped_layers(model), settings)
    start = _START[settings.method]
    for _ in range(_ROUNDS):
        plans = start(dense, model, importance, before, budget, settings)
        plan = _plan(settings, before, count_macs(model, settings.input_size), plans)
        short = settings.macs - plan.reached
        if short <= _TOLERANCE:
            break
        # Channels that nobody reads any more save their filters, too.
        budget += short * _of_scope(before, settings.scope).original
    return GroupedDetector(config, model, plan)


def self_grouped_detector(
    cfg: Config,
    state: dict[str, Tensor],
    source: str,
    percentage: float,
    step: float,
    settings: Settings,
) -> GroupedDetector:
    """The same by SG-CNN's own steps (section 3): k-means, the same percentage in every layer.

    percentage: of connections that are pruned, in steps of `step`; the budget of `settings` doesn't
    count. Raises ValueError as :func:`group_detector` and for percentages out of range.
    """
    dense = build_model(cfg)
    check_fit(dense, state, source, may_add=trimmed_keys(dense))
    config = grouped_config(cfg, 'sgc', settings.scope, [dict(type='MACRatioHook')])
    model = build_model(config)
    load_state_dict(model, state)
    self_group_model(model, percentage, step, settings.seed)
    before, after = (count_macs(m, settings.input_size) for m in (dense, model))
    macs = {row.name: row.original for row in before.layers}
    plans = {
        name: LayerPlan(name, macs[name], 0.0, len(layer.mask.unique(dim=0)))
        for name, layer in sgc_layers(model).items()
    }
    return GroupedDetector(config, model, _plan(settings, before, after, plans))


def _grouped(cfg: Config, settings: Settings, before: MacReport) -> tuple[Config, nn.Module, float]:
    """The grouped config, its detector, and the MACs that its grouped layers may do."""
    hooks = [schedule(cfg, settings.method, settings.macs, settings.scope)]
    layer: dict = {}
    while True:
        config = grouped_config(cfg, settings.method, settings.scope, hooks, layer)
        model = build_model(config)
        if not _grouped_layers(model):
            raise ValueError(
                f'{settings.method} finds no layer to group in the {settings.scope} of '
                f'{type(model).__name__}'
            )
        opened = _of_scope(count_macs(model, settings.input_size), settings.scope)
        original = _of_scope(before, settings.scope).original
        budget = settings.macs * original - opened.always_on - opened.gate_nets
        if budget <= 0:
            least = (opened.always_on + opened.gate_nets) / original
            raise ValueError(
                f'--macs {settings.macs} of the {settings.scope} can not be met with '
                f'{settings.method}: the least is above {least:.3f}, what stays dense'
            )
        if settings.method != 'dgc' or layer:
            return config, model, budget
        layer = dict(gate_factor=round(min(1.0, budget / opened.masked), 4))


def _grouped_layers(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, GroupedLayer)]


def _of_scope(report: MacReport, scope: str) -> MacReport:
    return report.parts['backbone'] if scope == 'backbone' else report


def _importance(
    cfg: Config, dense: nn.Module, names: list[str], settings: Settings
) -> dict[str, np.ndarray]:
    if settings.folder is not None:
        batches = image_batches(cfg, image_paths(settings.folder)[: settings.images])
        return magnitude_importance(dense, names, forward_passes(dense, batches))
    batches = training_images(cfg, settings.images, settings.seed)
    if settings.importance == 'taylor':
        return taylor_importance(dense, names, training_losses(dense, batches))
    return magnitude_importance(dense, names, forward_passes(dense, batches))


def _spaces(dense: nn.Module) -> Spaces:
    image = next(dense.parameters()).new_zeros(1, 3, _SMALL, _SMALL)
    run = forward_detector if isinstance(dense, BaseDetector) else nn.Module.__call__
    return find_spaces(dense.eval(), lambda: run(dense, image))


def _start_regular(dense, model, importance, before, budget, settings) -> dict[str, LayerPlan]:
    spaces, macs = _spaces(dense), {row.name: row.original for row in before.layers}
    sizes = settings.align, MOST_GROUPS, settings.seed
    groups = plan_groups(importance, spaces, macs, budget, *sizes)
    plans = {}
    for name, chosen in groups.items():
        start_groups(model.get_submodule(name), chosen)
        reason = why_dense(spaces.layers[name], spaces, settings.align)
        plans[name] = LayerPlan(name, macs[name], 0.0, chosen.number, chosen.kept, reason)
    return plans


def _start_clusters(dense, model, importance, before, budget, settings) -> dict[str, LayerPlan]:
    macs = {row.name: row.original for row in before.layers}
    chosen = plan_clusters(importance, macs, budget, settings.align, seed=settings.seed)
    plans = {}
    for name, clusters in chosen.items():
        weights, layer = importance[name], model.get_submodule(name)
        plans[name] = LayerPlan(name, macs[name], 0.0, 1, 1.0)
        if clusters is not None:
            start_clusters(layer, clusters)
            kept = float(weights[clusters.mask].sum() / max(weights.sum(), 1e-300))
            plans[name] = LayerPlan(name, macs[name], 0.0, len(clusters.reads), kept)
    return plans


def _start_gates(dense, model, importance, before, budget, settings) -> dict[str, LayerPlan]:
    start_gates(model, importance)
    macs = {row.name: row.original for row in before.layers}
    return {name: LayerPlan(name, macs[name], 0.0, 1) for name in importance}


_START = dict(
    fixed=_start_regular,
    flgc=_start_regular,
    sgc=_start_clusters,
    msgc=_start_gates,
    dgc=_start_gates,
)


def _plan(
    settings: Settings, before: MacReport, after: MacReport, plans: dict[str, LayerPlan]
) -> Plan:
    rows = {row.name: row for row in after.layers}
    for row in before.layers:
        left = rows[row.name]
        plan = plans.setdefault(row.name, LayerPlan(row.name, row.original, 1.0, 1))
        plan.share = left.macs / row.original if row.original else 1.0
        plan.why_dense = plan.why_dense or left.note
    scope = _of_scope(after, settings.scope)
    return Plan(
        **{k: getattr(settings, k) for k in ('method', 'scope', 'align', 'importance', 'images')},
        target=settings.macs,
        reached=scope.macs / _of_scope(before, settings.scope).original,
        detector=after.macs / before.original,
        input_size=settings.input_size,
        layers=[plans[row.name] for row in before.layers],
    )
