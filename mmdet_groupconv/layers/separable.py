"""Depthwise separable convolution, as one layer."""

from collections.abc import Callable

from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """A depthwise convolution, then a 1x1 one: a light stand-in for ``nn.Conv2d``.

    With a kernel of 1 there is nothing to do depthwise, and the 1x1 convolution is all.

    pointwise: makes the 1x1 convolution from (in_channels, out_channels, 1, bias=...); a grouped
    one, say. Other arguments: ``nn.Conv2d``'s.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        pointwise: Callable[..., nn.Module] = nn.Conv2d,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(f'groups={groups} of a separable convolution, expected 1')
        sizes = dict(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
        thin = kernel_size in (1, (1, 1))
        self.depthwise = None
        if not thin:
            self.depthwise = nn.Conv2d(
                in_channels, in_channels, groups=in_channels, bias=False, **sizes
            )
        own = dict(stride=stride, padding=padding) if thin else {}
        self.pointwise = pointwise(in_channels, out_channels, 1, bias=bias, **own)
        self.in_channels, self.out_channels = in_channels, out_channels
        # What ConvModule reads of a convolution.
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.groups = dilation, groups
        self.transposed, self.output_padding = False, 0

    def init_weights(self) -> None:
        """As MMEngine's ``init_cfg`` says for any convolution; see :meth:`init_depthwise`."""
        self.init_depthwise()

    def init_depthwise(self) -> None:
        """Keep the depthwise output's scale; a head's std of 0.01 is for predictions."""
        if self.depthwise is not None:
            nn.init.kaiming_normal_(self.depthwise.weight, nonlinearity='linear')

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, in_channels, H, W]``. Returns ``[B, out_channels, H', W']``."""
        return self.pointwise(x if self.depthwise is None else self.depthwise(x))
