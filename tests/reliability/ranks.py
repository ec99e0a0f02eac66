"""What one of several processes computes, or one alone: started by torchrun, or called.

``ranks.py FOLDER`` reads ``FOLDER/cases.json`` and writes ``FOLDER/rank<n>.pt``.
"""

import contextlib
import copy
import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from mmengine import dist
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData

import mmdet_groupconv
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import DGCConv2d, MaskGenerator, SelfGrouping

DEMO = Path(mmdet_groupconv.__file__).parents[1] / 'configs/demo/retinanet_msgc-r18_scenes.py'
IMAGES = 4  # of the global batch
SIZE = 64


def detector(changes: dict) -> torch.nn.Module:
    """A tiny RetinaNet in double precision, norms in evaluation mode; the same in each process."""
    cfg = Config.fromfile(DEMO)
    cfg.model.backbone.update(base_channels=8, norm_eval=True)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, MaskGenerator):  # so that gates differ by image
            torch.nn.init.normal_(module.conv[3].weight)
            torch.nn.init.zeros_(module.conv[3].bias)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
        elif isinstance(module, SelfGrouping):
            module.mask.copy_(torch.rand_like(module.mask) > 0.5)
    return model.double().train()


def batch(images: range) -> tuple:
    """Pixels differ by image, boxes don't: MMDetection divides losses by a batch's positives."""
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(8, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    pixels *= torch.linspace(0.2, 1, 8)[:, None, None, None]
    truth = InstanceData(
        bboxes=torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 50.0]]),
        labels=torch.tensor([0, 1]),
    )
    meta = dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), batch_input_shape=(SIZE, SIZE))
    sample = DetDataSample(metainfo=dict(meta, scale_factor=(1.0, 1.0), ori_shape=(SIZE, SIZE)))
    sample.gt_instances = truth
    samples = [copy.deepcopy(sample) for _ in images]
    return pixels[images.start : images.stop : images.step], samples


@contextlib.contextmanager
def noise_by_image(images: range):
    """Random gates draw what they would in one process that has all images."""
    seeds = itertools.count()

    def rand_like(x):
        generator = torch.Generator().manual_seed(next(seeds))
        drawn = torch.rand(IMAGES, *x.shape[1:], generator=generator, dtype=x.dtype)
        return drawn[images.start : images.stop]

    with mock.patch.object(torch, 'rand_like', rand_like):
        yield


def learn(case: dict, images: range) -> dict:
    """Losses and gradients of some images of the global batch, averaged over processes."""
    model = detector(case['model'])
    if dist.is_distributed():
        model = MMDistributedDataParallel(model, broadcast_buffers=False)
    hook = HOOKS.build(case['hook'])
    hook.before_run(SimpleNamespace(model=model))
    if 'target_now' in case:
        hook.target_now = case['target_now']
    with noise_by_image(images):
        losses = model(*batch(images), mode='loss')
    bare = getattr(model, 'module', model)
    loss, logs = bare.parse_losses(losses)
    loss.backward()
    gradients = {name: p.grad for name, p in bare.named_parameters() if p.grad is not None}
    logged = {key: float(value.detach()) for key, value in logs.items()}
    return dict(logged=logged, gradients=gradients)


def evaluate(case: dict) -> dict[str, float]:
    """The hook's metrics of a validation on five images, one at a time."""
    model = detector(case['model']).eval()
    model.bbox_head.test_cfg.score_thr = 1.0  # mmcv's compiled NMS takes no doubles
    hook = HOOKS.build(dict(type='MACRatioHook'))
    dataset = range(5)
    runner = SimpleNamespace(
        model=model, message_hub=mock.Mock(), val_dataloader=SimpleNamespace(dataset=dataset)
    )
    hook.before_run(runner)
    hook.before_val_epoch(runner)
    for index in DefaultSampler(dataset, shuffle=False):
        with torch.no_grad():
            model(*batch(range(index, index + 1)), mode='predict')
    metrics = {}
    hook.after_val_epoch(runner, metrics)
    return metrics


def main(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank, processes = dist.get_dist_info()
    share = IMAGES // processes
    images = range(rank * share, (rank + 1) * share)
    cases = json.loads((folder / 'cases.json').read_text())
    found = {name: learn(case, images) for name, case in cases.items()}
    metrics = evaluate(cases['msgc'])
    torch.save(dict(found=found, metrics=metrics), folder / f'rank{rank}.pt')
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main(Path(sys.argv[1]))
