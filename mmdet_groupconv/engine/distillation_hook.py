"""Lets a network learn from a trained one: a grouped detector from its dense original, say."""

import os
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from ..layers.checks import check_flag, check_number
from .distillation_losses import (
    dense_head_distillation,
    pearson_distillation,
    roi_box_distillation,
    softmax_distillation,
)
from .mac_ratio_hook import bare_model
from .span import Span
from .teacher import FC, NECK, ROI_EXTRACTOR, ROI_HEAD, RPN, STAGES, outputs, read_teacher


@HOOKS.register_module()
class DistillationHook(Hook):
    """Adds what a teacher says of each training batch to the losses (PKD, NeurIPS 2022, and heads).

    ``loss_distill_neck``: the maps of the neck, by their correlation. ``loss_distill_cls``,
    ``loss_distill_box``: an anchor head's sigmoids and deltas; of a two-stage detector those of the
    RoI head on the student's sampled RoIs, by softmax, beside ``loss_distill_rpn_cls`` and
    ``loss_distill_rpn_box``. Of an ``ImageClassifier`` they are its softmax and, as a neck has,
    the maps of its backbone's stages.
    See :mod:`~mmdet_groupconv.engine.distillation_losses`.

    The teacher sees the same augmented images in the same precision, in evaluation mode. It is no
    part of the student: not in its checkpoints, its optimizer, nor its MACs; it draws no random
    numbers, and is read for training alone. The student is observed by forward hooks.

    config: the teacher's config file, or a dict with a ``model``. checkpoint: its weights.
    neck: weight of each level's maps; the paper has 10 for one-stage detectors and 6 for two-stage
    ones, with losses of the labels alone beside it; ours is 1, beside the head's 2. 0 for none.
    A classifier whose teacher has other stages needs 0.
    head: weight of all else; 0 for none: then teacher and student may be of different kinds.
    temperature: of softmaxes. labels: False drops the student's own losses, so that what the
    teacher says remains: images then need no labels (a detector's batch still needs samples).
    start, stop: training progress (0 ... 1) between which both weights fall linearly to nothing;
    from `stop` on the teacher isn't run any more.

    Raises ValueError for numbers out of range, and before a run as
    :func:`~mmdet_groupconv.engine.teacher.read_teacher` does.
    """

    def __init__(
        self,
        config: str | os.PathLike | dict,
        checkpoint: str | os.PathLike,
        neck: float = 1.0,
        head: float = 2.0,
        temperature: float = 1.0,
        labels: bool = True,
        start: float = 1.0,
        stop: float = 1.0,
    ) -> None:
        own, weight = type(self).__name__, 'a number of 0 or more'
        for name, value, kinds in (
            ('config', config, (str, os.PathLike, dict)),
            ('checkpoint', checkpoint, (str, os.PathLike)),
        ):
            if not isinstance(value, kinds) or not value:
                raise ValueError(f'{name}={value!r} of {own}, expected the file of a teacher')
        check_number('neck', neck, own, weight, lambda v: v >= 0)
        check_number('head', head, own, weight, lambda v: v >= 0)
        check_number('temperature', temperature, own, 'a number above 0', lambda v: v > 0)
        check_flag('labels', labels, own)
        self.fading = Span(start, stop, own)
        if not labels and stop < 1:
            raise ValueError(
                f'stop={stop} of {own} with labels=False, expected 1: nothing else teaches then'
            )
        if not head and not (neck and labels):
            raise ValueError(
                f'head=0 of {own} with neck={neck} and labels={labels}, expected more: without '
                'labels nothing else teaches the head, without a neck nothing is distilled'
            )
        self.config = config
        self.checkpoint = checkpoint
        self.neck = neck
        self.head = head
        self.temperature = temperature
        self.labels = labels
        self.strength = 1.0  # of both weights now
        self._teacher: nn.Module | None = None
        self._parts: tuple[str, ...] = ()
        self._handles: list = []
        self._seen: dict[str, Any] | None = None  # of the student in a training forward pass

    def check(self, model: nn.Module) -> None:
        """Raise FileNotFoundError or ValueError where there is no teacher for this model."""
        read_teacher(self.config, self.checkpoint, model, self.neck, self.head)

    def before_train(self, runner) -> None:
        """Read the teacher and start to observe the student."""
        model = bare_model(runner)
        source = self.config, self.checkpoint
        teacher, self._parts = read_teacher(*source, model, self.neck, self.head)
        self._teacher = teacher.to(next(model.parameters()))
        self._handles = [
            model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            # Before other hooks add their losses, which labels=False leaves alone.
            model.register_forward_hook(self._after_forward, with_kwargs=True, prepend=True),
        ]
        observed = (*self._parts, ROI_EXTRACTOR) if ROI_HEAD in self._parts else self._parts
        for part in observed:
            module = model.get_submodule(part)
            self._handles.append(module.register_forward_hook(self._recorder(part)))

    def strength_at(self, progress: float) -> float:
        """What both weights are multiplied by after `progress` (0 ... 1) of the training."""
        return 1 - self.fading.passed(progress)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """By the iteration alone: a resumed run goes on where it was."""
        self.strength = self.strength_at(runner.iter / runner.max_iters)

    def after_train(self, runner) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._teacher = [], None

    def _before_forward(self, model: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        self._seen = {} if kwargs.get('mode') == 'loss' and self.strength else None
        if self._seen is not None and not self.labels and FC in self._parts:
            # Any will do for the loss that is dropped; there may be none.
            images = _images(args, kwargs)
            kwargs = dict(kwargs, data_samples=images.new_zeros(len(images), dtype=torch.long))
            args = args[:1]
        return args, kwargs

    def _recorder(self, part: str) -> Callable[[nn.Module, tuple, Any], None]:
        def record(module: nn.Module, args: tuple, output: Any) -> None:
            if self._seen is not None:  # nor is it computed again for activation checkpointing
                self._seen[part] = args[1] if part == ROI_EXTRACTOR else output

        return record

    def _after_forward(self, model: nn.Module, args: tuple, kwargs: dict, output) -> None:
        seen, self._seen = self._seen, None
        if seen is None:
            return
        rois = seen.pop(ROI_EXTRACTOR, None)
        taught = outputs(self._teacher, self._parts, _images(args, kwargs), rois)
        if not self.labels:
            output.clear()
        for part in self._parts:
            classes = getattr(self._teacher.get_submodule(part), 'num_classes', 0)
            losses = _losses(part, seen[part], taught[part], classes, self.temperature)
            for key, loss in losses.items():
                weight = self.strength * (self.neck if key == 'neck' else self.head)
                name = f'loss_distill_{key}'
                output[name] = output.get(name, 0) + weight * loss


def _images(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else kwargs['inputs']


def _losses(
    part: str, student: Any, teacher: Any, num_classes: int, temperature: float
) -> dict[str, Tensor]:
    if part == NECK:
        return dict(neck=pearson_distillation(student, teacher))
    if part.startswith(STAGES):
        return dict(neck=pearson_distillation([student], [teacher]))
    if part == FC:
        return dict(cls=softmax_distillation(student, teacher, temperature))
    if part == ROI_HEAD:
        (logits, boxes), (teacher_logits, teacher_boxes) = student, teacher
        return dict(
            cls=softmax_distillation(logits, teacher_logits, temperature),
            box=roi_box_distillation(boxes, teacher_boxes, teacher_logits),
        )
    of_rpn = 'rpn_' if part == RPN else ''
    cls, box = dense_head_distillation(student[:2], teacher[:2], num_classes)
    return {f'{of_rpn}cls': cls, f'{of_rpn}box': box}
