"""DGC: dynamic group convolution, arXiv 2007.04242."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_flag, check_integer, check_number
from .conv import SelfGatedConv2d, too_few_channels
from .functional import connection
from .gate import Gate
from .gate_net import GateConv2d, GateNet, GatePool

START, STOP = 1 / 12, 3 / 4


class SaliencyNet(GateNet):
    """How much each head wants each channel (section 3.1): ``relu(fc2(relu(fc1(pooled))))``.

    All heads side by side: `fc1` holds their squeezing layers, `fc2` is grouped by head.
    squeeze_rate: of the hidden layer, halved below 80 channels.
    """

    def __init__(self, channels: int, heads: int, squeeze_rate: int) -> None:
        super().__init__()
        self.heads = heads
        hidden = max(channels // (squeeze_rate // 2 if channels < 80 else squeeze_rate), 1)
        self.fc1 = GateConv2d(channels, heads * hidden, bias=False)
        self.fc2 = GateConv2d(heads * hidden, heads * channels, groups=heads)
        self.init_weights()

    def init_weights(self) -> None:
        """Start close to 1, so that a dense network's features are about kept.

        A saliency multiplies what it is computed from. Where it starts far from 1, norms in
        evaluation mode let that grow from layer to layer.
        """
        nn.init.kaiming_normal_(self.fc1.weight)
        nn.init.normal_(self.fc2.weight, std=0.01)
        nn.init.ones_(self.fc2.bias)

    def start_from_importance(self, importance: Tensor) -> None:
        """Start with saliencies from 0.75 to 1.25, by rank of `importance` within each head.

        The same for every image, far enough apart for a few hundred steps' noise to keep the order
        and near enough for the images to change it. importance: see :class:`DGCConv2d`.
        """
        steps = torch.linspace(0.75, 1.25, importance.size(-1))
        self._start_by_rank(self.fc2, importance, steps)

    def decide(self, pooled: Tensor) -> Tensor:
        """See :class:`GateNet`."""
        return self.fc2(self.fc1(pooled).relu()).relu()


class DGCConv2d(SelfGatedConv2d, nn.Conv2d):
    """BN, ReLU, saliency, then a convolution whose heads read their most salient channels.

    Filter k belongs to head ``k mod heads``. The gate's strength is the saliency, its mask what is
    left after the `inactive` least salient channels of a head and image are dropped (section 3.2).

    heads: at most as many as channels. gate_factor: share of channels that a head reads at the
    end. squeeze_rate: see :class:`SaliencyNet`. pre_norm: False leaves out the BN and ReLU, for
    layers that are shared over feature levels, whose statistics no one BN can hold, or whose input
    must keep its sign; then the pooled input is normalised image by image. Other arguments:
    ``nn.Conv2d``'s.

    Raises ValueError for numbers out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        *,
        heads: int = 4,
        gate_factor: float = 0.25,
        squeeze_rate: int = 16,
        pre_norm: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, **kwargs)
        reason = too_few_channels(in_channels, out_channels, heads, 'DGCConv2d')
        if reason:
            raise ValueError(f'DGCConv2d has {reason}')
        check_gate_factor(gate_factor, 'DGCConv2d')
        check_integer('squeeze_rate', squeeze_rate, 'DGCConv2d', 2)
        check_flag('pre_norm', pre_norm, 'DGCConv2d')
        self.gate_factor = gate_factor
        self.norm = nn.BatchNorm2d(in_channels) if pre_norm else None
        self.relu = nn.ReLU(inplace=True)
        self.gate_pool = GatePool()
        self.saliency = SaliencyNet(in_channels, heads, squeeze_rate)
        self.register_buffer('inactive', torch.zeros((), dtype=torch.int64))
        self.register_buffer('assign', torch.arange(out_channels) % heads, persistent=False)
        self.sizes = tuple(self.assign.bincount(minlength=heads).tolist())

    @classmethod
    def why_dense(cls, in_channels: int, out_channels: int, heads: int = 4, **_) -> str | None:
        """See :class:`GroupedConv2d`."""
        return too_few_channels(in_channels, out_channels, heads, cls.__name__)

    def init_gates(self) -> None:
        """Norm as identity, saliencies around 1."""
        self.saliency.init_weights()
        if self.norm is not None:
            self.norm.reset_parameters()

    @torch.no_grad()
    def start_from_importance(self, importance: Tensor) -> None:
        """Start with a dense network's outputs, and drop first what matters least to it (ours).

        The saliencies start by rank of `importance`, and the weights are divided by them: while no
        channel is dropped, the layer gives what it gave. Its saliencies have to be at a start
        still, its weights to be loaded.

        importance: ``[heads, in_channels]``, more for what matters more. Raises ValueError for
        another shape and for values that are not finite.
        """
        before = self.saliency.fc2.bias.clone()
        self.saliency.start_from_importance(importance)
        change = (before / self.saliency.fc2.bias).view(1, *importance.shape)
        self.weight.mul_(connection(change, self.assign, self.out_channels)[0, ..., None, None])

    def set_progress(self, progress: float, start: float = START, stop: float = STOP) -> None:
        """Drop as many channels as the schedule says at `progress` (0 ... 1) of the training.

        None until `start`, then linearly more until `stop`, then ``C * (1 - gate_factor)``.
        """
        dropped = self.in_channels * (1 - self.gate_factor)
        if progress >= stop:
            self.inactive.fill_(round(dropped))
        elif progress > start:
            self.inactive.fill_(round(dropped / (stop - start) * (progress - start)))
        else:
            self.inactive.zero_()

    def before(self) -> Sequence[nn.Module]:
        """See :class:`SelfGatedConv2d`."""
        return () if self.norm is None else (self.norm, self.relu)

    def decide(self, pooled: Tensor) -> Gate:
        """See :class:`SelfGatedConv2d`."""
        if self.norm is None:  # else the output would grow with the square of the input
            pooled = F.layer_norm(pooled.flatten(1), (self.in_channels,))[..., None, None]
        saliency = self.saliency(pooled)
        mask = self._most_salient(saliency.detach())
        return Gate(mask, saliency, self.assign, self.sizes)

    def _most_salient(self, saliency: Tensor) -> Tensor:
        # Without reading `inactive`, which lives on the device: the host would have to wait.
        ascending = saliency.sort(dim=-1).values
        last = (self.inactive - 1).clamp(min=0).expand(*saliency.shape[:2], 1)
        threshold = ascending.gather(-1, last)
        return ((saliency > threshold) | (self.inactive == 0)).to(saliency.dtype)


def check_gate_factor(value: float, owner: str, name: str = 'gate_factor') -> None:
    """Raise ValueError unless a head can read that share of the channels."""
    check_number(name, value, owner, 'a share in (0, 1]', lambda v: 0 < v <= 1)
