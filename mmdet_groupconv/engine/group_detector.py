"""A trained dense detector, grouped by a method for a budget of MACs."""

from dataclasses import dataclass

import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from rich.progress import track
from torch import Tensor, nn

from ..checkpoints import check_fit, trimmed_keys
from ..grouping import (
    Clusters,
    GroupPlanner,
    Groups,
    LayerPlan,
    Plan,
    Refit,
    Spaces,
    compare_orders,
    compensate,
    find_spaces,
    gate_shares,
    start_gates,
    start_groups,
    why_dense,
)
from ..grouping.importance import Importance
from ..layers import GroupedLayer
from ..macs import forward_detector
from .calibration import forward_passes
from .grouped_config import BY_IMAGE, MOST_GROUPS, grouped_config, schedule
from .judging import Judge
from .launch import build_model
from .mac_share import MacShare
from .self_grouping import self_group_model, sgc_layers

_SMALL = 128  # pixels; enough to see which layer reads which
_UNKNOWN = 800, 1344  # of images that nothing was judged by: COCO's
_ROUNDS = 5
_MEASURED_ON = 4  # images: each layer's loss is measured for several numbers of groups
_FITTED_ON = 16  # images, whose maps have thousands of positions
_TOLERANCE = 0.003


@dataclass
class Settings:
    """What is asked for.

    method: one of METHODS. macs: share of the scope's that is to be left. scope: 'backbone' or
    'detector'. align: groups have multiples of so many channels and filters. importance: 'taylor',
    or 'magnitude'. images: how many training images judge the connections. folder: of images
    without labels to judge them by in their place, by what they change of the outputs. input_size:
    (height, width) that MACs are counted for; None for that of the images.
    """

    method: str
    macs: float
    scope: str
    align: int
    importance: str
    images: int
    input_size: tuple[int, int] | None
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
    dense = _dense(cfg, state, source)
    judge = Judge(cfg, settings.importance, settings.folder, settings.seed)
    size = settings.input_size or judge.input_size(dense, settings.images)
    share = MacShare(dense, settings.macs, settings.scope, size)
    hook = schedule(cfg, settings.method, settings.macs, settings.scope)
    config = grouped_config(cfg, settings.method, settings.scope, hook)
    torch.manual_seed(settings.seed)  # of what dense weights don't give: gate nets
    model = build_model(config)
    names = [name for name, m in model.named_modules() if isinstance(m, GroupedLayer)]
    if not names:
        raise ValueError(
            f'{settings.method} finds no layer to group in the {settings.scope} of '
            f'{type(model).__name__}'
        )
    budget = share.for_groups(model, settings.method)
    model.load_state_dict(state, strict=False)
    importance = judge.connections(dense, names, settings.images)
    static = {n: v for n, v in importance.items() if model.get_submodule(n).static_gate}
    kept: dict[str, float] = {}
    if settings.method in BY_IMAGE:  # layers that none can gate (fully connected) are grouped, too
        whole = sum(share.macs[name] for name in static)
        budget = settings.macs * whole
        kept = _start_gates(model, share, importance, whole - budget)
        if settings.method == 'dgc':
            factors = {name: round(part, 4) for name, part in kept.items()}
            config.custom_hooks[-1].update(gate_factors=factors)
    spaces = _spaces(dense)
    chosen = _start_groups(dense, model, share, judge, static, spaces, budget, settings)
    if settings.method not in BY_IMAGE:
        _fit_in_turn(dense, model, chosen, judge, settings)
    plans = _layer_plans(chosen, model, share, spaces, settings)
    plans |= {name: LayerPlan(name, share.macs[name], gates=part) for name, part in kept.items()}
    plan = _plan(settings, share, model, plans)
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
    size = settings.input_size or _UNKNOWN
    share = MacShare(_dense(cfg, state, source), settings.macs, settings.scope, size)
    config = grouped_config(cfg, 'sgc', settings.scope, dict(type='MACRatioHook'))
    model = build_model(config)
    model.load_state_dict(state, strict=False)
    self_group_model(model, percentage, step, settings.seed)
    plans = {
        name: LayerPlan(name, share.macs[name], groups=len(layer.mask.unique(dim=0)))
        for name, layer in sgc_layers(model).items()
    }
    return GroupedDetector(config, model, _plan(settings, share, model, plans))


def _dense(cfg: Config, state: dict[str, Tensor], source: str) -> nn.Module:
    dense = build_model(cfg)
    check_fit(dense, state, source, may_add=trimmed_keys(dense))
    dense.load_state_dict(state, strict=False)
    return dense


def _start_gates(
    model: nn.Module, share: MacShare, importance: Importance, otherwise: float
) -> dict[str, float]:
    """Gates that save what is to go, but `otherwise`; returns what each layer keeps."""
    opened = share.count(model)
    macs = {row.name: float(row.always_on + row.masked) for row in opened.layers}
    kept = gate_shares(model, importance, macs, share.excess(opened) - otherwise)
    start_gates(model, importance, kept)
    return kept


def _start_groups(
    dense: nn.Module,
    model: nn.Module,
    share: MacShare,
    judge: Judge,
    importance: Importance,
    spaces: Spaces,
    budget: float,
    settings: Settings,
) -> dict[str, Groups | Clusters | None]:
    """The best groups of a model's static layers for a budget, and put into them."""
    if not importance:
        return {}
    images = _fitting_images(judge, settings)
    refit = Refit(dense, importance, forward_passes(dense, track(images, 'noting inputs')))
    loss = judge.groups(model, refit, importance, images[:_MEASURED_ON])
    sizes = settings.align, MOST_GROUPS, settings.seed
    planner = GroupPlanner(importance, spaces, share.macs, loss, sgc_layers(model), *sizes)
    tried = {}
    for _ in range(_ROUNDS):
        chosen = planner.plan(budget)
        start_groups(model, chosen, refit)
        if settings.method in BY_IMAGE:  # other layers' gates are open yet, and no measure
            return chosen
        short = -share.excess(share.count(model))
        tried[abs(short)] = chosen
        if abs(short) <= _TOLERANCE * share.whole:
            break
        # Channels that nobody reads any more save their filters, too.
        budget += short
    best = tried[min(tried)]
    if best is not chosen:
        start_groups(model, best, refit)
    return best


def _fit_in_turn(
    dense: nn.Module,
    model: nn.Module,
    chosen: dict[str, Groups | Clusters | None],
    judge: Judge,
    settings: Settings,
) -> None:
    """All that is grouped, but in a RoI head, whose boxes aren't the dense one's any more."""
    masks = {
        name: torch.from_numpy(groups.mask)
        for name, groups in chosen.items()
        if groups is not None and not name.startswith('roi_head.')
    }
    images = _fitting_images(judge, settings)
    runs = forward_passes(dense, images), lambda: forward_passes(model, images)
    compensate(dense, model, masks, *runs, settings.seed)


def _fitting_images(judge: Judge, settings: Settings) -> list[dict]:
    return list(judge.images(min(settings.images, _FITTED_ON)))


def _spaces(dense: nn.Module) -> Spaces:
    image = next(dense.parameters()).new_zeros(1, 3, _SMALL, _SMALL)
    run = forward_detector if isinstance(dense, BaseDetector) else nn.Module.__call__
    return find_spaces(dense.eval(), lambda: run(dense, image))


def _layer_plans(
    chosen: dict[str, Groups | Clusters | None],
    model: nn.Module,
    share: MacShare,
    spaces: Spaces,
    settings: Settings,
) -> dict[str, LayerPlan]:
    plans = {name: LayerPlan(name, share.macs[name]) for name in chosen}
    for name, groups in chosen.items():
        if groups is not None:
            plans[name].groups, plans[name].kept = groups.number, groups.kept
        elif name not in sgc_layers(model):
            plans[name].why_dense = why_dense(spaces.layers[name], spaces, settings.align)
    return plans


def _plan(
    settings: Settings, share: MacShare, model: nn.Module, plans: dict[str, LayerPlan]
) -> Plan:
    after = share.count(model)
    rows = {row.name: row for row in after.layers}
    for name, macs in share.macs.items():
        plan = plans.setdefault(name, LayerPlan(name, macs))
        plan.share = rows[name].macs / macs if macs else 1.0
        plan.why_dense = plan.why_dense or rows[name].note
    return Plan(
        **{k: getattr(settings, k) for k in ('method', 'scope', 'align', 'importance', 'images')},
        target=settings.macs,
        reached=share.of_scope(after).macs / share.whole,
        detector=after.macs / share.dense.original,
        input_size=share.input_size,
        layers=[plans[name] for name in share.macs],
    )
