"""A trained dense detector, grouped by a method for a budget of MACs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn

from ..checkpoints import check_fit, trimmed_keys
from ..datasets.images import image_batches, image_paths
from ..grouping import (
    Clusters,
    GroupPlanner,
    Groups,
    LayerPlan,
    MeasuredLoss,
    Plan,
    Refit,
    Spaces,
    compare_orders,
    find_spaces,
    gate_shares,
    gates_by_image,
    magnitude_importance,
    mean_loss,
    output_change,
    output_slopes,
    start_gates,
    start_groups,
    taylor_importance,
    why_dense,
)
from ..layers import GroupedLayer
from ..macs import MacReport, count_macs, forward_detector
from .calibration import forward_passes, training_images, training_losses
from .grouped_config import BY_IMAGE, MOST_GROUPS, grouped_config, schedule
from .launch import build_model
from .self_grouping import self_group_model, sgc_layers

_SMALL = 128  # pixels; enough to see which layer reads which
_ROUNDS = 5
_MEASURED_ON = 4  # images: each layer's loss is measured for several numbers of groups
_FITTED_ON = 16  # images, whose maps have thousands of positions
_TOLERANCE = 0.003
_FAR = 1e4  # of a gate's logit, whatever the image


@dataclass
class Settings:
    """What is asked for.

    method: one of METHODS. macs: share of the scope's that is to be left. scope: 'backbone' or
    'detector'. align: groups have multiples of so many channels and filters. importance: 'taylor',
    or 'magnitude'. images: how many training images judge the connections. folder: of images
    without labels to judge them by in their place, by what they change of the outputs. input_size:
    (height, width) that MACs are counted for.
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

    @property
    def labelled(self) -> bool:
        """Whether labels judge: else the change of outputs does."""
        return self.importance == 'taylor' and self.folder is None


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
    dense.load_state_dict(state, strict=False)
    before = count_macs(dense, settings.input_size)
    config, model, budget = _grouped(cfg, settings, before)
    model.load_state_dict(state, strict=False)
    names = _grouped_layers(model)
    importance = _importance(cfg, dense, names, settings)
    macs = {row.name: row.original for row in before.layers}
    plans = {name: LayerPlan(name, macs[name]) for name in names}
    static = _static(importance, model)
    if settings.method in BY_IMAGE:  # layers that none can gate (fully connected) are grouped, too
        whole = sum(macs[name] for name in static)
        budget = settings.macs * whole
        opened = count_macs(model, settings.input_size)
        gated = {row.name: float(row.always_on + row.masked) for row in opened.layers}
        surplus = _above(settings, before, opened) - (whole - budget)
        shares = gate_shares(model, importance, gated, surplus)
        start_gates(model, importance, shares)
        if settings.method == 'dgc':
            factors = {name: round(share, 4) for name, share in shares.items()}
            config.custom_hooks[-1].update(gate_factors=factors)
    chosen = _grouping(cfg, dense, before, model, static, budget, settings)
    spaces = _spaces(dense)
    for name, groups in chosen.items():
        if groups is not None:
            plans[name].groups, plans[name].kept = groups.number, groups.kept
        elif name not in sgc_layers(model):
            plans[name].why_dense = why_dense(spaces.layers[name], spaces, settings.align)
    plan = _plan(settings, before, count_macs(model, settings.input_size), plans)
    disjoint = {name: groups for name, groups in chosen.items() if isinstance(groups, Groups)}
    plan.orders = compare_orders(static, spaces, disjoint, settings.seed)
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
    config = grouped_config(cfg, 'sgc', settings.scope, dict(type='MACRatioHook'))
    model = build_model(config)
    model.load_state_dict(state, strict=False)
    self_group_model(model, percentage, step, settings.seed)
    before, after = (count_macs(m, settings.input_size) for m in (dense, model))
    macs = {row.name: row.original for row in before.layers}
    plans = {
        name: LayerPlan(name, macs[name], groups=len(layer.mask.unique(dim=0)))
        for name, layer in sgc_layers(model).items()
    }
    return GroupedDetector(config, model, _plan(settings, before, after, plans))


def _grouped(cfg: Config, settings: Settings, before: MacReport) -> tuple[Config, nn.Module, float]:
    """The grouped config, its detector, and the MACs that its grouped layers may do."""
    hook = schedule(cfg, settings.method, settings.macs, settings.scope)
    config = grouped_config(cfg, settings.method, settings.scope, hook)
    model = build_model(config)
    if not _grouped_layers(model):
        raise ValueError(
            f'{settings.method} finds no layer to group in the {settings.scope} of '
            f'{type(model).__name__}'
        )
    opened = _of_scope(count_macs(model, settings.input_size), settings.scope)
    original = _of_scope(before, settings.scope).original
    least = opened.always_on + opened.gate_nets
    if settings.method == 'msgc':  # what only closed gates would read is not computed
        closed = _closed(build_model(config), settings.input_size)
        least -= float(_of_scope(closed, settings.scope).unread)
    budget = settings.macs * original - least
    if budget <= 0:
        raise ValueError(
            f'--macs {settings.macs} of the {settings.scope} can not be met with '
            f'{settings.method}: the least is above {least / original:.3f}, what stays dense'
        )
    return config, model, budget


def _closed(model: nn.Module, input_size: tuple[int, int]) -> MacReport:
    """MACs with all of MSGC's gates closed, in place."""
    for conv in gates_by_image(model):
        nn.init.constant_(conv.generator.conv[3].bias, -_FAR)
    image = next(model.parameters()).new_zeros(1, 3, *input_size)
    return count_macs(model, input_size, image)


def _grouped_layers(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, GroupedLayer)]


def _of_scope(report: MacReport, scope: str) -> MacReport:
    return report.parts['backbone'] if scope == 'backbone' else report


def _above(settings: Settings, before: MacReport, now: MacReport) -> float:
    """By how many MACs more than asked for the scope does."""
    target = settings.macs * _of_scope(before, settings.scope).original
    return float(_of_scope(now, settings.scope).macs) - target


def _static(importance: dict[str, np.ndarray], model: nn.Module) -> dict[str, np.ndarray]:
    """Of the layers whose groups are the same for every image."""
    names = _grouped_layers(model)
    return {n: importance[n] for n in names if model.get_submodule(n).static_gate}


def _grouping(
    cfg: Config,
    dense: nn.Module,
    before: MacReport,
    model: nn.Module,
    importance: dict[str, np.ndarray],
    budget: float,
    settings: Settings,
) -> dict[str, Groups | Clusters | None]:
    """The best groups of a model's static layers for a budget, and put into them."""
    if not importance:
        return {}
    images = list(_images(cfg, settings, min(settings.images, _FITTED_ON)))
    refit = Refit(dense, importance, forward_passes(dense, images))
    loss = _measured_loss(model, refit, importance, images[:_MEASURED_ON], settings)
    macs = {row.name: row.original for row in before.layers}
    sizes = settings.align, MOST_GROUPS, settings.seed
    planner = GroupPlanner(importance, _spaces(dense), macs, loss, sgc_layers(model), *sizes)
    return _start(model, planner, refit, budget, before, settings)


def _importance(
    cfg: Config, dense: nn.Module, names: list[str], settings: Settings
) -> dict[str, np.ndarray]:
    batches = _images(cfg, settings, settings.images)
    if settings.importance == 'magnitude':
        return magnitude_importance(dense, names, forward_passes(dense, batches))
    if settings.labelled:
        losses = training_losses(dense, batches)
    else:
        losses = output_slopes(forward_passes(dense, batches), settings.seed)
    return taylor_importance(dense, names, losses)


def _measured_loss(
    model: nn.Module,
    refit: Refit,
    layers: Iterable[str],
    images: list[dict],
    settings: Settings,
) -> MeasuredLoss:
    """Of the grouped model's static layers."""
    if settings.labelled:
        evaluate = mean_loss(lambda: training_losses(model, images))
    else:
        evaluate = output_change(forward_passes(model, images))
    return MeasuredLoss(model, layers, refit, evaluate)


def _images(cfg: Config, settings: Settings, number: int) -> Iterator[dict]:
    if settings.folder is None:
        return training_images(cfg, number, settings.seed)
    return image_batches(cfg, image_paths(settings.folder)[:number])


def _spaces(dense: nn.Module) -> Spaces:
    image = next(dense.parameters()).new_zeros(1, 3, _SMALL, _SMALL)
    run = forward_detector if isinstance(dense, BaseDetector) else nn.Module.__call__
    return find_spaces(dense.eval(), lambda: run(dense, image))


def _start(
    model: nn.Module,
    planner: GroupPlanner,
    refit: Refit,
    budget: float,
    before: MacReport,
    settings: Settings,
) -> dict[str, Groups | Clusters | None]:
    """Put the best groups for the budget into the model's layers; returns them."""
    whole = _of_scope(before, settings.scope).original
    tried = {}
    for _ in range(_ROUNDS):
        chosen = planner.plan(budget)
        start_groups(model, chosen, refit)
        short = -_above(settings, before, count_macs(model, settings.input_size))
        tried[abs(short)] = chosen
        if abs(short) <= _TOLERANCE * whole:
            return chosen
        # Channels that nobody reads any more save their filters, too.
        budget += short
    best = tried[min(tried)]
    start_groups(model, best, refit)
    return best


def _plan(
    settings: Settings, before: MacReport, after: MacReport, plans: dict[str, LayerPlan]
) -> Plan:
    rows = {row.name: row for row in after.layers}
    for row in before.layers:
        left = rows[row.name]
        plan = plans.setdefault(row.name, LayerPlan(row.name, row.original))
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
