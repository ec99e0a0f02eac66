"""What becomes of each layer of a network, for people and for programs."""

from dataclasses import asdict, dataclass, field


@dataclass
class LayerPlan:
    """How one layer is to be grouped.

    name: in the network. macs: of the dense layer, for one image. share: of them that is left, with
    gates by image open. groups: how many; 1 is dense. kept: share of the importance of its
    connections that is left, None where gates decide. gates: share of its channels that gates by
    image are to leave at the end, None where it has none; where heads agree, what would compute the
    others isn't done either. why_dense: why a layer of the scope stays as it was, or None.
    """

    name: str
    macs: float
    share: float = 1.0
    groups: int = 1
    kept: float | None = None
    gates: float | None = None
    why_dense: str | None = None


@dataclass
class Plan:
    """How a network is to be grouped.

    method, scope, align, importance: as asked for. target, reached: shares of the scope's MACs, the
    latter with gates by image open. detector: the share of the whole detector's. orders: of
    disjoint groups, what was kept and would have been, see
    :func:`~mmdet_groupconv.grouping.comparison.compare_orders`. input_size: (height, width) they
    are counted for.
    """

    method: str
    scope: str
    target: float
    reached: float
    detector: float
    input_size: tuple[int, int]
    align: int
    importance: str
    images: int
    layers: list[LayerPlan] = field(default_factory=list)
    orders: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)
