"""MMDetection's MobileNetV2 without idle layers, and with a method's own blocks."""

from mmdet.models.backbones.mobilenet_v2 import MobileNetV2
from mmdet.models.layers import InvertedResidual
from mmdet.registry import MODELS
from torch import nn

from ..arguments import check_arguments, check_stages
from ..conv_cfg import replace_layer


@MODELS.register_module()
class TrimmedMobileNetV2(MobileNetV2):
    """MMDetection's ``MobileNetV2`` that ends at the last of its `out_indices`.

    The parent builds and runs all layers, the 1280-channel ``conv2`` too, whoever reads them; a
    detector doesn't, and in distributed training their parameters would never get a gradient.
    Weights that a checkpoint holds for them are passed over (`trimmed` names them).

    Other arguments and all state-dict keys that are left: MMDetection's ``MobileNetV2``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        used = max(self.out_indices, default=-1) + 1
        self.trimmed = tuple(self.layers[used:])
        for name in self.trimmed:
            delattr(self, name)
        self.layers = self.layers[:used]
        if self.frozen_stages > used:
            raise ValueError(
                f'frozen_stages={self.frozen_stages} of {type(self).__name__} with '
                f'out_indices={self.out_indices}, expected {used} or less'
            )

    def train(self, mode: bool = True) -> 'TrimmedMobileNetV2':
        """As the parent's, and returns self."""
        super().train(mode)
        return self


class GroupedMobileNetV2(TrimmedMobileNetV2):
    """Base of the grouped MobileNetV2s: builds the method's blocks, keeps all that the parent does.

    block: class attribute, the method's stand-in for ``InvertedResidual``.
    method: arguments that every block takes. last_conv_cfg: of ``conv2``, where it is used; else it
    stays dense. Other arguments: MMDetection's ``MobileNetV2``.

    Raises ValueError for arguments that can't be honoured, TypeError for unknown ones.
    """

    block: type[InvertedResidual]

    def __init__(self, method: dict, last_conv_cfg: dict | None = None, **kwargs) -> None:
        check_arguments(type(self), MobileNetV2, kwargs, refused=('conv_cfg',))
        check_stages(type(self).__name__, 8, kwargs)
        self._method = method
        super().__init__(**kwargs)
        if last_conv_cfg is not None and 'conv2' in self.layers:
            replace_layer(self, 'conv2.conv', last_conv_cfg)

    def make_layer(
        self, out_channels: int, num_blocks: int, stride: int, expand_ratio: int
    ) -> nn.Sequential:
        """One stage of the method's blocks."""
        blocks = []
        for number in range(num_blocks):
            blocks.append(
                self.block(
                    self.in_channels,
                    out_channels,
                    mid_channels=round(self.in_channels * expand_ratio),
                    stride=1 if number else stride,
                    with_expand_conv=expand_ratio != 1,
                    norm_cfg=self.norm_cfg,
                    act_cfg=self.act_cfg,
                    with_cp=self.with_cp,
                    **self._method,
                )
            )
            self.in_channels = out_channels
        return nn.Sequential(*blocks)
