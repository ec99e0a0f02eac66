"""MMDetection's ResNet with a method's own blocks."""

from mmdet.models.backbones.resnet import Bottleneck, ResNet
from torch import nn

from ..arguments import check_arguments, check_stages
from ..layers.checks import check_integer


class GroupedResNet(ResNet):
    """Base of the grouped ResNets: builds the method's blocks, keeps all that the parent does.

    blocks: class attribute, the method's stand-ins for (BasicBlock, Bottleneck).
    method: arguments that every block of the method takes.
    Other arguments: MMDetection's ``ResNet``.

    Raises ValueError for arguments that a grouped ResNet can't honour, TypeError for unknown ones.
    """

    blocks: tuple[type, type]

    def __init__(self, depth: int, method: dict, **kwargs) -> None:
        self._check_arguments(depth, kwargs)
        parent_block, repeats = self.arch_settings[depth]
        self.arch_settings = {depth: (self.blocks[parent_block is Bottleneck], repeats)}
        self._method = method
        self._default_init = kwargs.get('init_cfg') is None and kwargs.get('pretrained') is None
        super().__init__(depth, **kwargs)

    def make_res_layer(self, **kwargs) -> nn.Module:
        """One stage. The parent zero-initialises by the block's identity, which ours fails."""
        stage = f'layer{len(self.res_layers) + 1}'
        self._check_width(f'{stage}.0', kwargs['planes'], **self._method)
        if self._default_init and self.zero_init_residual:
            last_norm = 'norm3' if issubclass(kwargs['block'], Bottleneck) else 'norm2'
            kwargs['init_cfg'] = dict(type='Constant', val=0, override=dict(name=last_norm))
        return super().make_res_layer(**kwargs, **self._method)

    def train(self, mode: bool = True) -> 'GroupedResNet':
        """As the parent's, and returns self."""
        super().train(mode)
        return self

    def _check_width(self, layer: str, width: int, **method) -> None:
        """Raise ValueError where the method can't group convolutions of `width` channels."""

    def _check_arguments(self, depth: int, kwargs: dict) -> None:
        name = type(self).__name__
        check_arguments(type(self), ResNet, kwargs, refused=('conv_cfg', 'dcn'))
        if not isinstance(depth, int) or depth not in self.arch_settings:
            raise ValueError(
                f'depth={depth!r} of {name}, expected one of {list(self.arch_settings)}'
            )
        if 'norm_cfg' in kwargs and kwargs['norm_cfg'] is None:
            raise ValueError(f'norm_cfg=None of {name}, expected a dict with a type')
        stages = kwargs.get('num_stages', 4)
        check_integer('num_stages', stages, name, 1, 4)
        each = {key: kwargs.get(key, (1, 1, 1, 1)) for key in ('strides', 'dilations')}
        check_stages(name, stages, {'out_indices': (0, 1, 2, 3), **kwargs}, **each)
        if kwargs.get('plugins') is not None and self.arch_settings[depth][0] is not Bottleneck:
            raise ValueError(
                f'plugins of {name} with depth={depth}, expected None: only the bottlenecks of '
                'depths 50, 101 and 152 take plugins'
            )
