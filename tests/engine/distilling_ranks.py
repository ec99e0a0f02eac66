"""What one of several processes learns from a teacher: started by torchrun.

``distilling_ranks.py STUDENT TEACHER CHECKPOINT``: two config files and the teacher's weights.
Fails where the gradients are not the mean of those that each process has alone.
"""

import os
import sys
from types import SimpleNamespace

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.structures import InstanceData

from mmdet_groupconv.engine import DistillationHook
from mmdet_groupconv.engine.launch import build_model


def batch(rank: int) -> dict:
    """Images and boxes of one process."""
    from mmdet.structures import DetDataSample

    torch.manual_seed(rank)
    sizes = dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape'), (64, 64))
    sample = DetDataSample(metainfo=dict(sizes, scale_factor=(1.0, 1.0)))
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 50.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    return dict(inputs=images, data_samples=[sample, sample.clone()], mode='loss')


def main(student: str, teacher: str, checkpoint: str) -> None:
    torch.distributed.init_process_group('gloo')
    torch.manual_seed(0)
    model = build_model(Config.fromfile(student)).double().train()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    DistillationHook(teacher, checkpoint, labels=False).before_train(SimpleNamespace(model=wrapped))
    images = batch(dist.get_rank())
    found = []
    for network in (model, wrapped):
        model.zero_grad()
        torch.manual_seed(0)  # the same gates
        model.parse_losses(network(**images))[0].backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for alone, together in zip(*found, strict=True):
        mean = alone.clone()
        dist.all_reduce(mean, op='mean')
        torch.testing.assert_close(together, mean)
    assert any(not torch.equal(*pair) for pair in zip(*found, strict=True))
    torch.distributed.barrier()
    os._exit(0)  # the group's end waits for a thread which may wait for the interpreter's lock


if __name__ == '__main__':
    main(*sys.argv[1:])
