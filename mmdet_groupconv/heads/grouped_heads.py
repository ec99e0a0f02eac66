"""Heads whose hard-coded layers can be grouped like any other.

What stays dense: the layers that predict boxes, and the RPN's predictions. They are small.
"""

from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from torch import nn

from ..conv_cfg import replace_layer
from ..layers import GroupedLayer


class _InitGates:
    """Mixin before a head: gates keep their own first values.

    A head initialises some layers by name, and then all that they contain.
    """

    def init_weights(self) -> None:
        """The head's, then the gates'."""
        super().init_weights()
        for module in self.modules():
            if isinstance(module, GroupedLayer):
                module.init_gates()


@MODELS.register_module()
class GroupedRetinaHead(_InitGates, RetinaHead):
    """``RetinaHead`` whose classifying convolution takes a ``conv_cfg`` too.

    It is a quarter of a RetinaNet head's MACs with 80 classes. The tower's are grouped by the
    parent's own ``conv_cfg``.

    pred_cfg: of ``retina_cls``. Other arguments: ``RetinaHead``'s.
    """

    def __init__(self, *args, pred_cfg: dict, **kwargs) -> None:
        self.pred_cfg = pred_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        replace_layer(self, 'retina_cls', self.pred_cfg)


@MODELS.register_module()
class GroupedRPNHead(_InitGates, RPNHead):
    """``RPNHead`` whose 3x3 convolutions take a ``conv_cfg``.

    conv_cfg: of ``rpn_conv``. Other arguments: ``RPNHead``'s.
    """

    def __init__(self, *args, conv_cfg: dict, **kwargs) -> None:
        self.conv_cfg = conv_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        names = ['rpn_conv']
        if isinstance(self.rpn_conv, nn.Sequential):
            names = [f'rpn_conv.{number}.conv' for number in range(len(self.rpn_conv))]
        for name in names:
            replace_layer(self, name, self.conv_cfg)


@MODELS.register_module()
class GroupedShared2FCBBoxHead(_InitGates, Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` whose shared fully connected layers take a ``linear_cfg``.

    linear_cfg: of ``shared_fcs``; ``dict(type='SGCLinear')``. Others: ``Shared2FCBBoxHead``'s.
    """

    def __init__(self, *args, linear_cfg: dict, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for number in range(len(self.shared_fcs)):
            replace_layer(self, f'shared_fcs.{number}', linear_cfg)
