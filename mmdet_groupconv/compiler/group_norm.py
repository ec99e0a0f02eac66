"""Group normalisation of channels-last maps."""

import torch
from torch import Tensor, nn

from .fastest import Fastest
from .maps import pixels


class CompactGroupNorm(nn.Module):
    """A GroupNorm in the fastest of two forms: PyTorch's own, or products of matrices.

    PyTorch's takes up to 20 times as long on small channels-last maps as on others of their size
    where a group's channels don't fill a vector (4 of 128 channels in 32 groups).
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm
        self.forms = Fastest()
        self.size = norm.num_channels // norm.num_groups
        groups = torch.kron(torch.eye(norm.num_groups), torch.ones(self.size, self.size))
        self.register_buffer('groups', groups, persistent=False)  # which channels share one

    def forward(self, x: Tensor) -> Tensor:
        """x: ``[B, C, H, W]``. Returns the same shape."""
        forms = dict(own=self.norm)
        if x.device.type == 'cpu' and x.numel() > 0:
            forms['matrices'] = self._by_matrices
        return forms[self.forms.choose(x, forms, lambda form, _: forms[form](x), None)](x)

    def _by_matrices(self, x: Tensor) -> Tensor:
        norm = self.norm
        batch, channels, height, width = x.shape
        rows = pixels(x).view(batch, height * width, channels)
        mean = self._means(rows)
        rows = rows - mean
        scale = (self._means(rows * rows) + norm.eps).rsqrt()
        if norm.affine:
            rows = torch.addcmul(norm.bias, rows, scale * norm.weight, out=rows)
        else:
            rows *= scale
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _means(self, rows: Tensor) -> Tensor:
        """Of each group, for its channels: ``[B, H*W, C]`` -> ``[B, 1, C]``."""
        batch, number, _ = rows.shape
        means = rows.new_full((batch, 1, number), 1 / number) @ rows
        return means @ self.groups.to(rows.dtype) / self.size


def compact_norm(norm: nn.Module) -> nn.Module:
    """The compact form of a norm that nothing can be folded into; of most it is they themselves."""
    return CompactGroupNorm(norm) if type(norm) is nn.GroupNorm else norm
