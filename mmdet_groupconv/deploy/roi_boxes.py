"""What RoI heads make of proposals."""

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn
from torchvision.ops import roi_align

from .boxes import Boxes, check_nms, clipped, suppressed


class RoIBoxes(nn.Module):
    """What a RoI head makes of proposals: pooled by level, classified, refined; a cascade's stages
    each go on from the boxes of the one before, and their scores are averaged.

    head: its extractor and its box heads. Raises ValueError for other kinds of heads and
    extractors, and other ways to suppress boxes than NMS.
    """

    def __init__(self, head: StandardRoIHead | CascadeRoIHead) -> None:
        super().__init__()
        name = type(head).__name__
        if type(head) not in (StandardRoIHead, CascadeRoIHead):
            raise ValueError(
                f'roi_head {name} is not known, expected a StandardRoIHead or CascadeRoIHead'
            )
        extractors = head.bbox_roi_extractor
        for extractor in extractors if isinstance(extractors, nn.ModuleList) else [extractors]:
            if type(extractor) is not SingleRoIExtractor:
                raise ValueError(
                    f'bbox_roi_extractor {type(extractor).__name__} of {name} is not known, '
                    'expected a SingleRoIExtractor'
                )
        check_nms(head.test_cfg.nms, name)
        several = isinstance(head.bbox_head, nn.ModuleList)
        self.heads = head.bbox_head if several else nn.ModuleList([head.bbox_head])
        if not all(stage.reg_class_agnostic for stage in self.heads[:-1]):
            raise ValueError(f'stages of {name} have boxes for each class, expected one for all')
        self.cfg = head.test_cfg
        self.scale = extractor.finest_scale
        self.layers = [
            (layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
            for layer in extractor.roi_layers
        ]

    def forward(self, maps: list[Tensor], proposals: Tensor, size: Tensor) -> Boxes:
        """maps: ``[1, C, H, W]`` a level. proposals: ``[N, 4]``. size: ``[4]``, the image's width
        and height, twice."""
        logits = []
        for stage in self.heads:
            rois = torch.cat([torch.zeros_like(proposals[:, :1]), proposals], dim=1)
            scores, deltas = stage(self._pool(maps, rois))
            logits.append(scores)
            if len(logits) < len(self.heads):
                proposals = clipped(stage.bbox_coder, proposals, deltas, size)
        scores = (sum(logits) / len(logits)).softmax(dim=-1)[:, :-1]  # the last is background
        return self._of_classes(scores, proposals, deltas, size)

    def _of_classes(self, scores: Tensor, proposals: Tensor, deltas: Tensor, size: Tensor) -> Boxes:
        head, classes = self.heads[-1], scores.shape[1]
        deltas = deltas.reshape(-1, 4)
        if not head.reg_class_agnostic:
            proposals = proposals[:, None].expand(-1, classes, 4).reshape(-1, 4)
        boxes = clipped(head.bbox_coder, proposals, deltas, size)
        if head.reg_class_agnostic:
            boxes = boxes[:, None].expand(-1, classes, 4).reshape(-1, 4)
        labels = torch.arange(classes, device=scores.device).expand(scores.shape).reshape(-1)
        scores = scores.reshape(-1)
        keep = scores > self.cfg.score_thr
        kept = Boxes(boxes[keep], scores[keep], labels[keep])
        return suppressed(kept, kept.labels, self.cfg.nms, self.cfg.max_per_img)

    def _pool(self, maps: list[Tensor], rois: Tensor) -> Tensor:
        """``[N, C, h, w]``, each box from the level of its size."""
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
        level = (side / self.scale + 1e-6).log2().floor().clamp(0, len(self.layers) - 1)
        pooled, order = [], []
        for number, (x, layer) in enumerate(zip(maps, self.layers, strict=False)):
            own = (level == number).nonzero()[:, 0]
            pooled.append(roi_align(x, rois[own], *layer))
            order.append(own)
        return torch.cat(pooled)[torch.cat(order).argsort()]
