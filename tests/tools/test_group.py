"""tools/group.py on a small dense detector, and the fine-tuning that it prepares."""

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmdet_groupconv.checkpoints import read_checkpoint, read_state_dict
from mmdet_groupconv.compiler import compact
from mmdet_groupconv.engine.dgc_schedule_hook import dgc_layers
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import FixedGroupConv2d, GroupedLayer, MaskGenerator

PROJECT = Path(__file__).resolve().parents[2]
METHODS = ('fixed', 'flgc', 'sgc', 'msgc', 'dgc')
# Of what a run writes that is trained from these.
NAMES = (f'group{number}' for number in range(1000))


@pytest.fixture(scope='module')
def main(tool):
    return tool('group').main


def run(main, folder, out, *options):
    files = folder / 'config.py', folder / 'dense.pth'
    sizes = '--shape', 64, 64, '--align', 4, '--calibrate', 2
    return main([str(argument) for argument in (*files, '--out', out, *sizes, *options)])


@pytest.fixture(scope='module')
def grouped(main, folder, tmp_path_factory):
    """``grouped(method)``: what the tool wrote for half of the detector's MACs."""
    made = {}

    def group(method):
        if method not in made:
            made[method] = tmp_path_factory.mktemp(method)
            teacher = '--teacher', folder / 'dense.pth'
            assert run(main, folder, made[method], '--method', method, *teacher) == 0
        return made[method]

    return group


def load(out):
    model = build_model(Config.fromfile(out / 'config.py'))
    model.load_state_dict(read_state_dict(out / 'grouped.pth'))
    return model.eval()


@pytest.mark.parametrize('method', METHODS)
def test_what_it_writes_trains_as_it_is(tool, grouped, tmp_path, method):
    name = next(NAMES)
    options = [f'experiment_name={name}', f'visualizer.name={name}']
    config = str(grouped(method) / 'config.py')
    arguments = [config, '--work-dir', str(tmp_path), '--cfg-options', *options]
    assert tool('train').main(arguments) == 0
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert any('loss_distill_neck' in line for line in lines)
    if method != 'msgc':  # whose gates two iterations don't close
        ratios = [line['mac_ratio_detector'] for line in lines if 'loss' not in line]
        assert ratios == [pytest.approx(0.5, abs=0.02)]


@pytest.mark.parametrize('method', ['fixed', 'flgc', 'sgc'])
def test_fixed_groups_meet_the_budget_within_a_hundredth(grouped, method):
    plan = json.loads((grouped(method) / 'plan.json').read_text())
    assert plan['reached'] == pytest.approx(0.5, abs=0.01)
    assert plan['target'] == 0.5
    assert {layer['name'] for layer in plan['layers']} > {'bbox_head.retina_cls'}


def test_macs_are_counted_for_the_images_that_judge(main, folder, tmp_path):
    files = [str(folder / name) for name in ('config.py', 'dense.pth')]
    larger = '--cfg-options', 'train_dataloader.dataset.image_size=96'
    how = '--method', 'fixed', '--align', '4', '--calibrate', '2', '--out', str(tmp_path)
    assert main([*files, *how, *larger]) == 0
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert plan['input_size'] == [96, 96]


@pytest.mark.parametrize('method', METHODS)
def test_weights_are_the_dense_detectors_where_nothing_is_grouped(folder, grouped, method):
    dense, meta = read_checkpoint(folder / 'dense.pth')
    state, kept = read_checkpoint(grouped(method) / 'grouped.pth')
    assert kept == dict(dataset_meta=meta['dataset_meta'])
    if method == 'dgc':  # whose saliencies multiply them
        return
    plan = json.loads((grouped(method) / 'plan.json').read_text())
    layers = [layer['name'] for layer in plan['layers'] if layer['groups'] > 1]
    assert bool(layers) == (method != 'msgc')
    changed = {k for k, value in dense.items() if not torch.equal(state[k], value)}
    assert {k for k in changed if k.endswith('.weight')} == {f'{name}.weight' for name in layers}
    offsets = {f'{name}.bias' for name in layers}
    offsets |= {f'{name.replace(".conv", ".bn")}.running_mean' for name in layers}
    assert {k for k in changed if not k.endswith('.weight')} == offsets & dense.keys()


@pytest.mark.parametrize('method', ['msgc', 'dgc'])
def test_gates_by_image_begin_as_the_dense_detector(folder, grouped, method):
    dense = build_model(Config.fromfile(folder / 'config.py'))
    dense.load_state_dict(read_state_dict(folder / 'dense.pth'))
    model, image = load(grouped(method)), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = dense.eval().backbone(image)
        found = model.backbone(image)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_layers_of_dgc_keep_what_they_need_each(grouped):
    cfg = Config.fromfile(grouped('dgc') / 'config.py')
    (factors,) = (hook['gate_factors'] for hook in cfg.custom_hooks if 'gate_factors' in hook)
    assert factors.keys() == dgc_layers(load(grouped('dgc'))).keys()
    assert max(factors.values()) > min(factors.values()) + 0.2
    plan = json.loads((grouped('dgc') / 'plan.json').read_text())
    gates = {layer['name']: layer['gates'] for layer in plan['layers'] if layer['gates']}
    assert gates == pytest.approx(factors, abs=1e-4)


def test_channels_that_matter_less_are_nearer_to_being_closed(grouped):
    generators = [m for m in load(grouped('msgc')).modules() if isinstance(m, MaskGenerator)]
    biases = torch.cat([net.conv[3].bias.detach() for net in generators])
    assert (biases > 0).all()
    assert biases.std() > 0.1


def test_regular_groups_are_native_ones(grouped):
    layers = [m for m in load(grouped('fixed')).modules() if isinstance(m, FixedGroupConv2d)]
    assert all(layer.equal_groups for layer in layers)
    assert {layer.equal_groups for layer in layers} > {1}


def test_the_backbone_alone(main, folder, tmp_path):
    options = '--method', 'fixed', '--scope', 'backbone', '--macs', 0.6
    assert run(main, folder, tmp_path, *options) == 0
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert plan['reached'] == pytest.approx(0.6, abs=0.01)
    assert plan['detector'] > plan['reached']
    model = load(tmp_path)
    assert not any(isinstance(m, GroupedLayer) for m in model.neck.modules())
    hooks = Config.fromfile(tmp_path / 'config.py').custom_hooks
    assert [hook['type'] for hook in hooks] == ['MACRatioHook']  # and no teacher, as none was given


def test_images_without_labels_will_do(main, folder, grouped, tmp_path):
    grouped('fixed')  # which made the scenes
    out = tmp_path / 'out'
    options = '--method', 'fixed', '--images', folder / 'train'
    assert run(main, folder, out, *options) == 0
    assert (out / 'grouped.pth').is_file()


def test_the_published_steps_of_sgc(main, folder, tmp_path, capsys):
    assert run(main, folder, tmp_path, '--method', 'sgc', '--percentage', 60) == 0
    state = read_state_dict(tmp_path / 'grouped.pth')
    masks = [value for key, value in state.items() if key.endswith('.mask')]
    for mask in masks:
        assert float(mask.mean()) == pytest.approx(0.4, abs=0.15)
    assert 'of the whole detector' in capsys.readouterr().out


def test_a_start_can_be_tested(main, folder, tmp_path, capsys):
    options = '--method', 'msgc', '--evaluate', '--freeze-gates', '--epochs', 5
    assert run(main, folder, tmp_path, *options) == 0
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.train_cfg.max_epochs == 5  # 2 in the dense detector's
    hooks = [hook['type'] for hook in cfg.custom_hooks]
    assert hooks == ['MACBudgetHook', 'FreezeGatesHook']
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'config.py',
        'grouped.pth',
        'plan.json',
    ]


def test_the_same_seed_gives_the_same_start(main, folder, grouped, tmp_path):
    assert run(main, folder, tmp_path, '--method', 'msgc') == 0
    one, other = (read_state_dict(path / 'grouped.pth') for path in (tmp_path, grouped('msgc')))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        (['--macs', '1.5'], '--macs 1.5, expected a share between 0 and 1'),
        (['--macs', '0.01'], '--macs 0.01 of the detector can not be met with fixed: the least is'),
        (['--align', '64', '--macs', '0.5'], 'can not be met'),
        (['--percentage', '50'], '--percentage with --method fixed, expected --method sgc'),
        (['--freeze-gates'], '--freeze-gates with --method fixed, expected --method msgc'),
        (['--calibrate', '0'], '--calibrate 0, expected 1 or more'),
        (['--epochs', '0'], 'epochs=0, expected 1 or more'),
        (['--images', 'no_such_folder'], 'no_such_folder holds no image'),
        (['--teacher', 'no.pth'], 'no.pth not found'),
    ],
)
def test_what_can_not_be_is_said_in_one_line(main, folder, tmp_path, capsys, options, complaint):
    with pytest.raises(SystemExit) as info:
        run(main, folder, tmp_path / 'out', '--method', 'fixed', *options)
    assert info.value.code == 1
    (line,) = [e for e in capsys.readouterr().err.splitlines() if e.startswith('error: ')]
    assert complaint in line
    assert not (tmp_path / 'out').exists()


def test_weights_of_another_network_are_refused(main, folder, tmp_path, capsys):
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict={'fc.weight': torch.ones(2, 2)}), other)
    with pytest.raises(SystemExit):
        main([str(folder / 'config.py'), str(other), '--method', 'sgc', '--out', str(tmp_path)])
    assert f'checkpoint {other} does not fit RetinaNet' in capsys.readouterr().err


def test_a_teacher_of_other_classes_is_refused(main, folder, tmp_path, capsys):
    state = read_state_dict(folder / 'dense.pth')
    for name, classes in (('dense', ('cat', 'dog')), ('teacher', ('dog', 'cat'))):
        torch.save(
            dict(state_dict=state, meta=dict(dataset_meta=dict(CLASSES=classes))),
            tmp_path / f'{name}.pth',
        )
    arguments = '--method', 'sgc', '--teacher', tmp_path / 'teacher.pth', '--out', tmp_path / 'out'
    with pytest.raises(SystemExit):
        main([str(a) for a in (folder / 'config.py', tmp_path / 'dense.pth', *arguments)])
    assert 'knows the classes dog, cat, expected cat, dog' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_another_backbone_is_refused(main, folder, tmp_path, capsys):
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{folder / 'config.py'}'\nmodel = dict(backbone=dict(type='ResNetV1d'))\n"
    )
    state = build_model(Config.fromfile(config)).state_dict()
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=state), weights)
    out = tmp_path / 'out'
    with pytest.raises(SystemExit):
        main([str(config), str(weights), '--method', 'sgc', '--out', str(out)])
    assert 'model.backbone has type ResNetV1d, expected ResNet or MobileNetV2' in (
        capsys.readouterr().err
    )
    assert not out.exists()


@pytest.fixture(scope='module')
def two_stages(folder, tmp_path_factory):
    """As `folder`, on the same scenes: Faster R-CNN."""
    two_stages = tmp_path_factory.mktemp('two_stages')
    cfg = Config.fromfile(folder / 'config.py')
    classes = cfg.model.bbox_head.num_classes
    cfg.model = Config.fromfile(PROJECT / 'configs/_base_/models/faster-rcnn_r18_fpn.py').model
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=16)
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    cfg.model.rpn_head.update(in_channels=32, feat_channels=32)
    cfg.model.roi_head.bbox_roi_extractor.out_channels = 32
    head = cfg.model.roi_head.bbox_head
    head.update(in_channels=32, fc_out_channels=64, num_classes=classes)
    cfg.dump(two_stages / 'config.py')
    torch.manual_seed(5)  # some weights lose nothing in any groups: all go to the fewest
    model = build_model(cfg)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), two_stages / 'dense.pth')
    return two_stages


@pytest.mark.parametrize('method', ['fixed', 'msgc'])
def test_the_wide_layer_of_a_roi_head_is_clustered_and_fitted(
    main, two_stages, tmp_path, monkeypatch, method
):
    monkeypatch.setattr('mmdet_groupconv.grouping.refit.WIDE', 1000)  # it reads 32 * 49
    assert run(main, two_stages, tmp_path, '--method', method) == 0
    layer = load(tmp_path).roi_head.bbox_head.shared_fcs[0]
    kept = layer.mask > 0
    assert 0.2 < float(layer.mask.mean()) < 0.8
    assert not layer.weight[~kept].any()
    dense = read_state_dict(two_stages / 'dense.pth')['roi_head.bbox_head.shared_fcs.0.weight']
    assert not torch.allclose(layer.weight[kept], dense[kept])
    plan = json.loads((tmp_path / 'plan.json').read_text())
    if method == 'fixed':
        assert plan['reached'] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize('method', ['msgc', 'dgc'])
def test_open_gates_take_nothing_from_what_is_grouped_beside_them(
    main, two_stages, tmp_path, method
):
    large = '--shape', 1024, 1024  # the gated convolutions' MACs are most of all
    assert run(main, two_stages, tmp_path, '--method', method, *large) == 0
    plan = json.loads((tmp_path / 'plan.json').read_text())
    rows = [row for row in plan['layers'] if '.shared_fcs.' in row['name']]
    left = sum(row['share'] * row['macs'] for row in rows) / sum(row['macs'] for row in rows)
    assert 0.3 < left <= 0.5


@pytest.mark.parametrize('method', METHODS)
def test_compact_inference_equals_eager(grouped, method):
    model = load(grouped(method))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(image, mode='tensor')
        found = compact(model)(image, mode='tensor')
    for one, other in zip(chain(*expected), chain(*found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_stages_that_were_frozen_are_judged_and_grouped(main, folder, tmp_path):
    options = '--cfg-options', 'model.backbone.frozen_stages=1'
    assert run(main, folder, tmp_path, '--method', 'fixed', *options) == 0
    assert Config.fromfile(tmp_path / 'config.py').model.backbone.frozen_stages == 0
