"""What is run: random images on random networks, to maps, to boxes or as a training step."""

import contextlib
from collections.abc import Callable
from types import SimpleNamespace

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from mmengine.structures import InstanceData
from torch import nn

from ..checkpoints import load_weights
from ..compiler.freezing import freeze_gates
from ..engine import MACBudgetHook, MACRatioHook
from ..engine.launch import build_model
from .gates import prepare


class Bench:
    """The inputs, and how a network is called with them.

    shape: height and width. batch: number of images. part: 'backbone' or 'detector'. device: by
    name. amp: 'fp16' or 'bf16' for autocast, else None.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        batch: int = 1,
        part: str = 'backbone',
        device: str = 'cpu',
        amp: str | None = None,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        self.shape, self.batch, self.part = tuple(shape), batch, part
        self.device, self.amp, self.seed = torch.device(device), amp, seed
        self.channels_last = channels_last
        torch.manual_seed(seed)
        images = torch.randn(batch, 3, *shape, device=self.device)
        self.images = images.contiguous(memory_format=self.layout)

    @property
    def layout(self) -> torch.memory_format:
        """Of images and of eager networks."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def network(self, cfg: Config, checkpoint: str | None = None) -> nn.Module:
        """The config's detector on the device, with a checkpoint's weights or else random ones."""
        cfg.model.backbone.init_cfg = None
        torch.manual_seed(self.seed)
        model = build_model(cfg)
        if checkpoint is None:
            with contextlib.redirect_stdout(None):
                model.init_weights()
            prepare(model, cfg, self.seed)
        else:
            load_weights(model, checkpoint)
        return model.eval().to(self.device, memory_format=self.layout)

    def autocast(self) -> torch.autocast:
        """As asked for."""
        dtype = torch.float16 if self.amp == 'fp16' else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.amp is not None)

    def samples(self, classes: int) -> list:
        """Annotated samples of random boxes, for the images; the same ones every time."""
        torch.manual_seed(self.seed)
        (height, width), samples = self.shape, []
        for _ in range(self.batch):
            corners = torch.rand(8, 2, 2) * torch.tensor([width, height])
            boxes = torch.cat((corners.min(dim=1)[0], corners.max(dim=1)[0] + 8), dim=1)
            instances = InstanceData(bboxes=boxes, labels=torch.randint(classes, (8,)))
            sizes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (height, width))
            metainfo = dict(**sizes, batch_input_shape=(height, width), scale_factor=(1.0, 1.0))
            sample = DetDataSample(gt_instances=instances, metainfo=metainfo)
            sample.ignored_instances = InstanceData(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
            )
            samples.append(sample.to(self.device))
        return samples

    @property
    def pixels(self) -> torch.Tensor:
        """As many images of noise, ``[B, 3, H, W]``, uint8, RGB, on the CPU."""
        seeded = torch.Generator().manual_seed(self.seed)
        size = self.batch, 3, *self.shape
        return torch.randint(256, size, generator=seeded, dtype=torch.uint8)

    def freeze(self, model: nn.Module, keep: float) -> None:
        """Fix gates by image as these images have them, in place. Raises ValueError without any."""
        if self.part == 'backbone':
            freeze_gates(model.backbone, [self.images], keep)
            return
        images = list(self.pixels.flip(1))  # a detector's are BGR
        freeze_gates(model, [dict(inputs=images, data_samples=self.samples(1))], keep)

    def inference(self, model: Callable) -> Callable[[], object]:
        """Of a backbone, to its maps, or of a detector, to the final boxes."""
        samples = self.samples(1) if self.part == 'detector' else None

        @torch.no_grad()
        def run():
            with self.autocast():
                if samples is None:
                    return model(self.images)
                return model(self.images, samples, mode='predict')

        return run

    def training(self, model: nn.Module, cfg: Config, hooks: bool) -> Callable[[], object]:
        """A whole step: forward, losses, backward, the config's optimizer.

        hooks: whether the config's hooks take part, which add a method's own losses.
        """
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
        for group in optimizer.param_groups:
            group['lr'] = 0.0  # the same work, and every step does it on the same network
        if hooks:
            _attach_hooks(model, cfg)
        head = getattr(model, 'bbox_head', None) or model.roi_head.bbox_head
        samples = self.samples(head.num_classes)
        model.train()

        def run():
            with self.autocast():
                losses = model(self.images, samples, mode='loss')
            optimizer.update_params(model.parse_losses(losses)[0])

        return run


def _attach_hooks(model: nn.Module, cfg: Config) -> None:
    """Have the config's methods meter a model, and add their losses, as at the end of training."""
    runner = SimpleNamespace(model=model, message_hub=MessageHub.get_instance('benchmark'))
    for settings in cfg.get('custom_hooks') or []:
        hook = HOOKS.build({key: value for key, value in settings.items() if key != 'priority'})
        if isinstance(hook, MACRatioHook):
            hook.before_run(runner)
        if isinstance(hook, MACBudgetHook):
            hook.target_now = hook.target
