"""Heads whose hard-coded layers can be grouped like any other.

What stays dense: the RPN's 1x1 predictions and the RoI head's, 1 to 3 % of a detector's MACs.
"""

from mmdet.models.dense_heads import RetinaHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.model import initialize
from torch import nn

from ..arguments import check_head
from ..conv_cfg import replace_layer
from ..layers import GroupedLayer, SeparableConv2d


class _InitGates:
    """Mixin before a head: what is inside of layers keeps its own first values.

    A head initialises its convolutions by type and some layers by name, with all that they contain.
    """

    def init_weights(self) -> None:
        """The head's, then the gates', then a checkpoint that ``init_cfg`` names; once."""
        again = self.is_init
        super().init_weights()
        if again:
            return
        for module in self.modules():
            if isinstance(module, GroupedLayer):
                module.init_gates()
            elif isinstance(module, SeparableConv2d):
                module.init_depthwise()
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        initialize(self, [cfg for cfg in cfgs if cfg and cfg['type'] == 'Pretrained'])


@MODELS.register_module()
class GroupedRetinaHead(_InitGates, RetinaHead):
    """``RetinaHead`` whose predicting convolutions take a ``conv_cfg`` too.

    With 80 classes they are a quarter of the head's MACs. The towers are grouped by the parent's
    own ``conv_cfg``.

    pred_cfg: of ``retina_cls`` and ``retina_reg``. Other arguments: ``RetinaHead``'s.
    """

    def __init__(self, *args, pred_cfg: dict, **kwargs) -> None:
        check_head(type(self).__name__, kwargs)
        self.pred_cfg = pred_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        for name in ('retina_cls', 'retina_reg'):
            replace_layer(self, name, self.pred_cfg)


@MODELS.register_module()
class GroupedRPNHead(_InitGates, RPNHead):
    """``RPNHead`` whose 3x3 convolutions take a ``conv_cfg``.

    conv_cfg: of ``rpn_conv``. Other arguments: ``RPNHead``'s.
    """

    def __init__(self, *args, conv_cfg: dict, **kwargs) -> None:
        check_head(type(self).__name__, kwargs)
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
        check_head(type(self).__name__, kwargs)
        super().__init__(*args, **kwargs)
        for number in range(len(self.shared_fcs)):
            replace_layer(self, f'shared_fcs.{number}', linear_cfg)
