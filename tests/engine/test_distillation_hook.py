"""The hook on tiny detectors and classifiers, alone and in real runs."""

import copy
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_groupconv.engine import DistillationHook
from mmdet_groupconv.engine.distillation_losses import (
    pearson_distillation,
    roi_box_distillation,
    softmax_distillation,
)
from mmdet_groupconv.engine.launch import build_model, build_runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
PARTS = dict(
    retinanet={'neck', 'cls', 'box'},
    faster_rcnn={'neck', 'cls', 'box', 'rpn_cls', 'rpn_box'},
    classifier={'neck', 'cls'},
)


@pytest.fixture
def students(tiny_cfg):
    """``students(kind)``: the config of a model, MSGC's, of 6 classes."""

    def config(kind):
        if kind == 'retinanet':
            return copy.deepcopy(tiny_cfg.model)
        if kind == 'classifier':
            backbone = dict(tiny_cfg.model.backbone, out_indices=(3,))
            return Config(
                dict(model=dict(type='ImageClassifier', backbone=backbone, num_classes=6))
            ).model
        model = Config.fromfile(CONFIGS / 'faster_rcnn/faster-rcnn_msgc-r18_fpn_1x_coco.py').model
        model.backbone = copy.deepcopy(tiny_cfg.model.backbone)
        model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
        model.rpn_head.update(in_channels=8, feat_channels=8)
        model.roi_head.bbox_roi_extractor.out_channels = 8
        model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16, num_classes=6)
        return model

    return config


@pytest.fixture
def taught(tmp_path):
    """``taught(model, **changes)``: arguments of the hook; the teacher is the dense `model`.

    changes: of the teacher's config, by dotted key.
    """

    def write(model, **changes):
        cfg = Config(dict(model=copy.deepcopy(model)))
        cfg.model.backbone.type = 'ResNet'
        cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
        path = tmp_path / f'teacher{len(list(tmp_path.glob("teacher*.py")))}'
        cfg.dump(f'{path}.py')
        torch.manual_seed(7)
        teacher = build_model(cfg)
        teacher.init_weights()
        for name, parameter in teacher.named_parameters():  # of heads, which begin near zero
            if re.search(r'head.*weight|fc.weight', name):
                torch.nn.init.normal_(parameter, std=0.1)
        torch.save(dict(state_dict=teacher.state_dict()), f'{path}.pth')
        return dict(config=f'{path}.py', checkpoint=f'{path}.pth')

    return write


@pytest.fixture
def taught_cfg(tiny_cfg, taught):
    """The tiny run with a teacher, beside the budget's hook."""
    tiny_cfg.launcher = 'none'
    hook = dict(type='DistillationHook', **taught(tiny_cfg.model))
    tiny_cfg.custom_hooks = [*tiny_cfg.custom_hooks, hook]
    return tiny_cfg


def build(model):
    torch.manual_seed(0)
    model = build_model(Config(dict(model=model)))
    model.init_weights()
    return model


def batch(kind, size=64):
    from mmdet.structures import DetDataSample

    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    if kind == 'classifier':
        return images, torch.tensor([1, 4])
    shapes = dict.fromkeys(('img_shape', 'pad_shape', 'ori_shape'), (size, size))
    sample = DetDataSample(metainfo=dict(shapes, scale_factor=(1.0, 1.0)))
    boxes = torch.tensor([[4.0, 4.0, 30.0, 30.0], [20.0, 10.0, 60.0, 50.0]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    return images, [sample, copy.deepcopy(sample)]


def attached(hook, model):
    hook.before_train(SimpleNamespace(model=model))
    return hook


def distilled(losses):
    return {k.removeprefix('loss_distill_'): v for k, v in losses.items() if 'distill' in k}


@pytest.mark.parametrize('kind', PARTS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(students, taught, kind):
    model = students(kind)
    hook = DistillationHook(**taught(model))
    model.backbone.type = 'ResNet'
    student = build(model)
    attached(hook, student)
    student.load_state_dict(hook._teacher.state_dict())
    losses = distilled(student.eval()(*batch(kind), mode='loss'))
    assert losses.keys() == PARTS[kind]
    assert {key: loss.item() for key, loss in losses.items()} == pytest.approx(
        dict.fromkeys(losses, 0), abs=1e-5
    )


@pytest.mark.parametrize('kind', PARTS)
def test_what_the_teacher_says_reaches_all_that_is_trained(students, taught, kind):
    student = build(students(kind)).train()
    hook = attached(DistillationHook(**taught(students(kind))), student)
    losses = distilled(student(*batch(kind), mode='loss'))
    assert losses.keys() == PARTS[kind]
    assert all(torch.isfinite(loss) and loss > 1e-6 for loss in losses.values())
    sum(losses.values()).backward()
    lacking = {
        name
        for name, parameter in student.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    }
    assert lacking == set()
    neck = getattr(student, 'neck', student.fc if kind == 'classifier' else None)
    assert all(parameter.grad.any() for parameter in neck.parameters())
    assert not any(parameter.requires_grad for parameter in hook._teacher.parameters())


def test_weights_scale_what_they_are_of(students, taught):
    teacher = taught(students('retinanet'))

    def losses(**weights):
        student = build(students('retinanet')).eval()
        attached(DistillationHook(**teacher, **weights), student)
        return distilled(student(*batch('retinanet'), mode='loss'))

    one, other = losses(neck=1.0, head=1.0), losses(neck=3.0, head=0.5)
    for key, factor in dict(neck=3, cls=0.5, box=0.5).items():
        assert other[key].item() == pytest.approx(factor * one[key].item(), rel=1e-5)
    assert losses(neck=0).keys() == {'cls', 'box'}
    assert losses(head=0).keys() == {'neck'}


def test_the_roi_heads_see_the_same_rois_each_on_its_own_maps(students, taught):
    student = build(students('faster_rcnn')).train()
    hook = DistillationHook(**taught(students('faster_rcnn')), head=1.0, temperature=2.0)
    teacher = attached(hook, student)._teacher
    seen = []
    for part in (student.roi_head.bbox_roi_extractor, student.roi_head.bbox_head):
        part.register_forward_hook(lambda module, *call: seen.append(call))
    images, samples = batch('faster_rcnn')
    losses = distilled(student(images, samples, mode='loss'))
    ((_, rois), _), (_, (scores, boxes)) = seen
    assert len(rois) > 8
    maps = teacher.neck(teacher.backbone(images))[:4]
    theirs = teacher.roi_head.bbox_head(teacher.roi_head.bbox_roi_extractor(maps, rois))
    expected = (
        softmax_distillation(scores, theirs[0], 2.0),
        roi_box_distillation(boxes, *theirs[::-1]),
    )
    assert losses['cls'].item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert losses['box'].item() == pytest.approx(expected[1].item(), rel=1e-4)


def test_the_run_logs_the_losses_and_checkpoints_hold_no_teacher(taught_cfg):
    runner = Runner.from_cfg(taught_cfg)
    names = set(runner.model.state_dict())
    runner.train()
    logged = runner.message_hub.log_scalars
    for part in PARTS['retinanet']:
        assert len(logged[f'train/loss_distill_{part}'].data[0]) == 4
    parts = [log.data[0] for key, log in logged.items() if re.match('train/loss_', key)]
    assert logged['train/loss'].data[0] == pytest.approx(sum(parts), rel=1e-5)
    saved = torch.load(f'{runner.work_dir}/epoch_1.pth', weights_only=False)
    assert set(saved['state_dict']) == names
    assert set(runner.model.state_dict()) == names
    groups = runner.optim_wrapper.optimizer.param_groups
    trained = {id(parameter) for group in groups for parameter in group['params']}
    assert trained == {id(parameter) for parameter in runner.model.parameters()}


def test_the_model_is_left_without_hooks(taught_cfg):
    runner = Runner.from_cfg(taught_cfg)
    runner.train()
    for module in runner.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_the_teacher_stays_what_it_was(students, taught):
    student = build(students('faster_rcnn'))
    teacher = taught(students('faster_rcnn'))
    hook = attached(DistillationHook(**teacher), student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(2):
        student.train()
        losses, _ = student.parse_losses(student(*batch('faster_rcnn'), mode='loss'))
        losses.backward()
        optimizer.step()
    assert not any(module.training for module in hook._teacher.modules())
    expected = torch.load(teacher['checkpoint'], weights_only=True)['state_dict']
    for name, value in hook._teacher.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize('kind', PARTS)
def test_the_teacher_draws_no_random_numbers(students, taught, kind):
    student, arguments = build(students(kind)).train(), taught(students(kind))

    def drawn_after(hook):
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
        if hook:
            hook.check(student)
            attached(hook, student)
        student(*batch(kind), mode='loss')
        return torch.rand(()).item(), random.random(), np.random.rand()

    assert drawn_after(None) == drawn_after(DistillationHook(**arguments))


def test_only_training_is_affected(students, taught):
    student = build(students('retinanet')).eval()
    images, samples = batch('retinanet')
    before = student(images, copy.deepcopy(samples), mode='predict')
    hook = attached(DistillationHook(**taught(students('retinanet'))), student)
    hook._teacher.extract_feat = None  # to be called
    after = student(images, copy.deepcopy(samples), mode='predict')
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)
    student(images, mode='tensor')
    with pytest.raises(TypeError):
        student(images, samples, mode='loss')


def test_the_teacher_goes_by_and_by(students, taught):
    teacher = taught(students('retinanet'))
    student = build(students('retinanet')).eval()
    hook = attached(DistillationHook(**teacher, start=0.2, stop=0.6), student)
    runs = []
    hook._teacher.register_forward_hook(lambda *call: runs.append(1))
    hook._teacher.backbone.register_forward_hook(lambda *call: runs.append(1))
    found = []
    for iteration in (0, 2, 4, 6, 8):
        hook.before_train_iter(SimpleNamespace(iter=iteration, max_iters=10), 0)
        found.append(distilled(student(*batch('retinanet'), mode='loss')))
    assert [bool(losses) for losses in found] == [True, True, True, False, False]
    assert len(runs) == 3
    for part in PARTS['retinanet']:
        first, second, third = (float(losses[part].detach()) for losses in found[:3])
        assert (second, third) == pytest.approx((first, first / 2), rel=1e-4)


def test_the_budget_s_hook_and_this_one_get_on_in_either_order(taught_cfg, train, scalars):
    taught_cfg.randomness = dict(seed=0)
    hooks = list(taught_cfg.custom_hooks)
    runs = [train(taught_cfg, custom_hooks=order)[0] for order in (hooks, hooks[::-1], hooks[:1])]
    ratios = [scalars(run, 'train/mac_ratio_detector') for run in runs]
    losses = [scalars(run, 'train/loss') for run in runs]
    assert ratios[0] == ratios[1]
    assert losses[0] == losses[1]
    assert ratios[2][0] == ratios[0][0]  # the teacher's MACs don't count
    assert losses[2][0] < losses[0][0]


def test_without_labels_what_the_teacher_says_remains_and_other_hooks_losses(taught_cfg, train):
    taught_cfg.custom_hooks[1].labels = False
    for hooks in (taught_cfg.custom_hooks, taught_cfg.custom_hooks[::-1]):
        runner, _ = train(taught_cfg, custom_hooks=hooks)
        losses = {key for key in runner.message_hub.log_scalars if 'train/loss_' in key}
        ours = {f'train/loss_distill_{part}' for part in PARTS['retinanet']}
        assert losses == {'train/loss_macs', *ours}


@pytest.mark.parametrize('labels', [None, torch.tensor([-1, 99])])
def test_a_classifier_s_images_need_no_labels(students, taught, labels):
    student = build(students('classifier'))
    attached(DistillationHook(**taught(students('classifier')), labels=False), student)
    images, _ = batch('classifier')
    taught_by = {'loss_distill_neck', 'loss_distill_cls'}
    assert student(images, labels, mode='loss').keys() == taught_by
    assert student(inputs=images, mode='loss').keys() == taught_by


def test_a_classifier_imitates_the_maps_of_each_stage(students, taught):
    teacher, images = taught(students('classifier')), batch('classifier')[0]
    student = build(students('classifier')).eval()
    hook = attached(DistillationHook(**teacher, neck=3.0), student)
    found = student(*batch('classifier'), mode='loss')['loss_distill_neck']
    maps = []
    for network in (student, hook._teacher):
        backbone = network.backbone
        x = backbone.maxpool(backbone.relu(backbone.norm1(backbone.conv1(images))))
        stages = [x := getattr(backbone, name)(x) for name in backbone.res_layers]
        maps.append(stages)
    assert len(maps[0]) == 4
    expected = 3 * pearson_distillation(*maps)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_classifier_s_logits_alone_may_come_from_another_backbone(students, taught):
    narrow = students('classifier')
    narrow.backbone.base_channels = 4
    student = build(narrow)
    teacher = taught(students('classifier'))
    DistillationHook(**teacher, neck=0).check(student)
    with pytest.raises(ValueError, match=r'outputs of backbone\.layer1 on 64 pixels'):
        DistillationHook(**teacher).check(student)


def test_a_classifier_s_softmax_is_softened(students, taught):
    teacher, images = taught(students('classifier')), batch('classifier')[0]
    student = build(students('classifier')).eval()
    hook = attached(DistillationHook(**teacher, temperature=4.0, head=2.0), student)
    found = student(*batch('classifier'), mode='loss')['loss_distill_cls']
    with torch.no_grad():
        p, q = ((net(images) / 4).softmax(dim=1) for net in (student, hook._teacher))
    expected = 2 * 16 * (q * (q / p).log()).sum(dim=1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize('kind', PARTS)
def test_the_teacher_shares_the_student_s_precision_and_losses_are_float32(students, taught, kind):
    student = build(students(kind)).train()
    hook = attached(DistillationHook(**taught(students(kind))), student)
    seen = []
    hook._teacher.backbone.register_forward_hook(lambda *call: seen.append(call[-1][-1].dtype))
    # Not at 64 pixels: PyTorch's bf16 gradient of a convolution on one pixel may be garbage.
    with torch.autocast('cpu', torch.bfloat16):
        losses = distilled(student(*batch(kind, 128), mode='loss'))
    assert seen == [torch.bfloat16]
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    sum(losses.values()).backward()
    gradients = (p.grad for p in student.parameters() if p.grad is not None)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_checkpointed_blocks_and_accumulated_gradients_change_nothing(taught_cfg, train, scalars):
    taught_cfg.randomness = dict(seed=0)
    taught_cfg.optim_wrapper.accumulative_counts = 2
    checkpointed = copy.deepcopy(taught_cfg)
    checkpointed.model.backbone.with_cp = True
    plain, again = (train(cfg)[0] for cfg in (taught_cfg, checkpointed))
    for part in PARTS['retinanet']:
        key = f'train/loss_distill_{part}'
        assert scalars(plain, key) == pytest.approx(scalars(again, key), rel=1e-4)


@pytest.mark.parametrize('start', [1.0, 0.0])
def test_a_resumed_run_equals_an_uninterrupted_one(
    repeatable_cfg, taught, train, saved, one_thread, start
):
    repeatable_cfg.train_cfg.max_epochs = 2
    teacher = taught(repeatable_cfg.model)
    repeatable_cfg.custom_hooks.append(dict(type='DistillationHook', **teacher, start=start))
    repeatable_cfg.default_hooks.epoch_seed = dict(type='EpochSeedHook')
    whole, _ = train(repeatable_cfg)
    first = f'{whole.work_dir}/epoch_1.pth'
    resumed, _ = train(repeatable_cfg, resume=True, load_from=first)
    last, again = (saved(f'{run.work_dir}/epoch_2.pth') for run in (whole, resumed))
    assert saved(first).differs_in(last)
    assert last.differs_in(again) == []
    for key in (f'train/loss_distill_{part}' for part in PARTS['retinanet']):
        assert last.history[key] == again.history[key]


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'bbox_head.num_classes': 3}, r'bbox_head.num_classes=3, expected 6'),
        (
            {'neck.out_channels': 16, 'bbox_head.in_channels': 16},
            r'outputs of neck on 64 pixels=\[\[16, .*, expected \[\[8, ',
        ),
        ({'neck.num_outs': 5}, 'outputs of neck|prior_generator.strides'),
        ({'data_preprocessor.mean': [0.0, 0.0, 0.0]}, r'mean=\[0.0, 0.0, 0.0\], expected \[123'),
        ({'data_preprocessor.bgr_to_rgb': False}, '_channel_conversion=False, expected True'),
        (
            {'bbox_head.anchor_generator.octave_base_scale': 4},
            r'bbox_head.prior_generator.scales=\[4.0, .*, expected \[3.0',
        ),
        ({'bbox_head.bbox_coder.target_stds': [0.1, 0.1, 0.2, 0.2]}, 'bbox_coder.stds='),
        ({'bbox_head.type': 'FCOSHead'}, 'FCOSHead of RetinaNet can not be imitated'),
    ],
)
def test_a_teacher_of_something_else_is_refused_before_anything_is_written(
    tiny_cfg, taught, changes, named
):
    tiny_cfg.launcher = 'none'
    if 'neck.num_outs' in changes:
        changes = {**changes, 'bbox_head.anchor_generator.strides': [8, 16, 32, 64, 128]}
    if 'bbox_head.type' in changes:
        head = dict(type='FCOSHead', num_classes=6, in_channels=8, feat_channels=8, norm_cfg=None)
        changes = {'bbox_head': dict(head, strides=[8, 16, 32, 64], _delete_=True)}
    teacher = taught(tiny_cfg.model, **changes)
    tiny_cfg.custom_hooks.append(dict(type='DistillationHook', **teacher))
    assert_refused(tiny_cfg, ValueError, named)


def assert_refused(cfg, kind, named):
    with pytest.raises(kind, match=named) as caught:
        build_runner(cfg, ('train', 'val'))
    assert '\n' not in str(caught.value)
    assert not Path(cfg.work_dir).exists()


def test_bad_files_are_refused_before_anything_is_written(taught_cfg, students, taught):
    hook = taught_cfg.custom_hooks[1]
    other = taught(students('faster_rcnn'))
    cases = (
        (dict(config='missing.py'), FileNotFoundError, 'config missing.py of the teacher not'),
        (dict(checkpoint='missing.pth'), FileNotFoundError, 'checkpoint missing.pth not found'),
        (dict(checkpoint=hook.config), ValueError, 'teacher0.py holds .* other code'),
        (dict(config=dict(data=1)), ValueError, "config a dict of the teacher has no dict 'model'"),
        (dict(checkpoint=other['checkpoint']), ValueError, 'teacher1.pth does not fit RetinaNet'),
        (other, ValueError, 'FasterRCNN of .*teacher1.py is of another kind'),
    )
    for change, kind, named in cases:
        cfg = copy.deepcopy(taught_cfg)
        cfg.custom_hooks[1] = {**hook, **change}
        assert_refused(cfg, kind, named)


def test_a_test_needs_no_teacher(taught_cfg):
    taught_cfg.custom_hooks[1].checkpoint = 'missing.pth'
    assert 'mac_ratio' in build_runner(taught_cfg, ('test',)).test()


def test_necks_alone_may_be_of_detectors_of_different_kinds(students, taught):
    teacher = taught(students('retinanet'), **{'bbox_head.num_classes': 2})
    student = build(students('retinanet'))
    DistillationHook(**teacher, head=0).check(student)
    with pytest.raises(ValueError, match='num_classes=2, expected 6'):
        DistillationHook(**teacher, neck=0).check(student)


def test_a_config_may_be_given_itself(students, taught):
    teacher = taught(students('retinanet'))
    teacher['config'] = Config.fromfile(teacher['config'])._cfg_dict
    before = copy.deepcopy(teacher['config'])
    DistillationHook(**teacher).check(build(students('retinanet')))
    assert teacher['config'] == before


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (dict(neck=-1.0), 'neck=-1.0 of DistillationHook'),
        (dict(head='1'), "head='1'"),
        (dict(temperature=0), 'temperature=0'),
        (dict(labels='no'), "labels='no'"),
        (dict(start=-0.1), 'start=-0.1 of DistillationHook'),
        (dict(start=0.6, stop=0.5), 'stop=0.5 of DistillationHook, .* from start=0.6'),
        (dict(labels=False, stop=0.5, start=0.0), 'stop=0.5 .* with labels=False'),
        (dict(neck=0, head=0), 'head=0 of DistillationHook with neck=0'),
        (dict(head=0, labels=False), 'labels=False'),
        (dict(config=None), 'config=None'),
        (dict(checkpoint=''), "checkpoint=''"),
    ],
)
def test_arguments_that_are_none_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        DistillationHook(**{'config': 'a.py', 'checkpoint': 'a.pth', **arguments})


def test_models_without_the_part_are_named(students, taught):
    teacher = taught(students('classifier'))
    with pytest.raises(ValueError, match=r'head=0 .* ImageClassifier has nothing else'):
        DistillationHook(**teacher, head=0).check(build(students('classifier')))
    student = build(students('retinanet'))
    student.neck = None
    with pytest.raises(ValueError, match=r'RetinaNet has no neck, .* neck=0'):
        DistillationHook(**teacher).check(student)


@pytest.mark.parametrize('kind', PARTS)
def test_every_parameter_takes_part_in_every_step_of_several_processes(
    students, taught, one_process_group, kind
):
    student = MMDistributedDataParallel(build(students(kind)).train(), broadcast_buffers=False)
    attached(DistillationHook(**taught(students(kind)), labels=False), student)
    optimizer = OptimWrapper(torch.optim.SGD(student.parameters(), lr=1e-9))
    images, samples = batch(kind)
    for _ in range(2):  # the second fails where a parameter got no gradient
        with optimizer.optim_context(student):
            losses = student(inputs=images, data_samples=copy.deepcopy(samples), mode='loss')
        loss, logged = student.module.parse_losses(losses)
        optimizer.update_params(loss)
        assert distilled(logged).keys() == PARTS[kind]


@pytest.fixture
def one_process_group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['retinanet', 'faster_rcnn'])
def test_gradients_are_the_mean_of_two_processes(students, taught, tmp_path, kind):
    student = tmp_path / 'student.py'
    Config(dict(model=students(kind))).dump(student)
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    script = Path(__file__).with_name('distilling_ranks.py')
    environment = dict(os.environ, PYTHONPATH=str(CONFIGS.parent), OMP_NUM_THREADS='1')
    command = [*torchrun, script, student, *taught(students(kind)).values()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
