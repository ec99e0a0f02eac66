"""ONNX files are checked against the network they are of."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import nn

pytest.importorskip('onnx_ir')
pytest.importorskip('onnxruntime')

import onnx_ir as ir

from mmdet_groupconv.compiler.freezing import freeze_gates
from mmdet_groupconv.deploy import Report, Runtime, exactness, export, export_onnx
from mmdet_groupconv.deploy.graph import scale_of
from mmdet_groupconv.deploy.parts import RawOutputs

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SHAPE = 64, 96
TINY = dict(depth=18, base_channels=8)
NETWORKS = {
    'MSGC r18': dict(type='MSGCResNet', **TINY),
    'FLGC r18': dict(type='FLGCResNet', groups=3, **TINY),
    'SGC r18': dict(type='SGCResNet', **TINY),
}


def build(name, mix_gates):
    torch.manual_seed(0)
    model = MODELS.build(NETWORKS[name])
    return mix_gates(model, torch.randn(4, 3, 64, 64))


@pytest.fixture
def grouped(mix_gates):
    return build('SGC r18', mix_gates)


@pytest.fixture
def grouped_wins(monkeypatch):
    """Nothing is timed: the last way of each layer and the grouped graph are the fastest."""
    from mmdet_groupconv.deploy import plan

    monkeypatch.setattr(plan, 'race', lambda models, *_: [1.0] * (len(models) - 1) + [0.5])
    monkeypatch.setattr(export, 'race', lambda *_: [0.5, 1.0])


@torch.no_grad()
def check(model, path, run, assert_same, sizes):
    raw = RawOutputs(model)
    for size in sizes:
        images = torch.randn(size)
        expected = [y.numpy() for y in raw(images)]
        assert_same(run(str(path), images), dict(zip(raw.names, expected, strict=True)), 1e-3)


def test_files_with_gates_by_image_take_any_size(tmp_path, run, assert_same, mix_gates):
    network = build('MSGC r18', mix_gates)
    path = tmp_path / 'network.onnx'
    report = export_onnx(network, path, SHAPE)
    assert report.difference <= exactness.TOLERANCE
    assert report.ungrouped is None
    assert report.seconds > 0
    check(network, path, run, assert_same, [(1, 3, 75, 45), (1, 3, 64, 97)])


def test_files_of_static_networks_take_any_size_and_batch(grouped, tmp_path, run, assert_same):
    path = tmp_path / 'network.onnx'
    report = export_onnx(grouped, path, SHAPE)
    assert report.seconds <= report.ungrouped
    check(grouped, path, run, assert_same, [(1, 3, 75, 45), (2, 3, 64, 97), (3, 3, 130, 140)])


@pytest.mark.parametrize('name', ['FLGC r18', 'SGC r18'])
def test_files_in_which_all_layers_are_parted_are_exact(
    name, tmp_path, run, assert_same, mix_gates, grouped_wins
):
    network, path = build(name, mix_gates), tmp_path / 'network.onnx'
    export_onnx(network, path, SHAPE)
    check(network, path, run, assert_same, [(1, 3, 75, 45), (2, 3, 64, 97)])
    kinds = [node.op_type for node in ir.load(path).graph]
    assert kinds.count('Gather') >= 8


def test_frozen_networks_are_static(tmp_path, run, assert_same, mix_gates):
    network = build('MSGC r18', mix_gates)
    freeze_gates(network, [torch.randn(4, 3, 64, 64)], 0.5)
    report = export_onnx(network, tmp_path / 'network.onnx', SHAPE)
    assert report.ungrouped is not None
    check(network, tmp_path / 'network.onnx', run, assert_same, [(2, 3, 75, 45)])


def test_the_report_tells_outputs_by_name(grouped, tmp_path, grouped_wins):
    report = export_onnx(grouped, tmp_path / 'network.onnx', SHAPE)
    assert isinstance(report, Report)
    assert report.outputs == {
        'feature_0': (1, 8, 16, 24),
        'feature_1': (1, 16, 8, 12),
        'feature_2': (1, 32, 4, 6),
        'feature_3': (1, 64, 2, 3),
    }
    assert (report.seconds, report.ungrouped) == (0.5, 1.0)


def test_detectors_with_grouped_necks_and_heads(
    tmp_path, run, assert_same, grouped_wins, mix_gates
):
    torch.manual_seed(0)
    cfg = Config.fromfile(CONFIGS / 'retinanet/retinanet_flgc-r18_fpn_whole_1x_coco.py').model
    cfg.backbone.update(base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    cfg.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
    model = mix_gates(MODELS.build(cfg), torch.randn(2, 3, 64, 64))
    path = tmp_path / 'detector.onnx'
    report = export_onnx(model, path, SHAPE, part='head')
    names = [f'{name}_{i}' for name in ('cls_score', 'bbox_pred') for i in range(5)]
    assert list(report.outputs) == names
    check(model, path, run, assert_same, [(1, 3, 260, 400)])
    report = export_onnx(model, path, SHAPE, part='neck')
    assert list(report.outputs) == [f'feature_{i}' for i in range(5)]


def test_the_network_is_left_as_it_was(grouped, tmp_path, grouped_wins):
    grouped.train()
    grouped.layer2.eval()
    modes = [module.training for module in grouped.modules()]
    state = {key: value.clone() for key, value in grouped.state_dict().items()}
    export_onnx(grouped, tmp_path / 'network.onnx', SHAPE)
    assert [module.training for module in grouped.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in grouped.state_dict().items())


def test_a_file_that_is_off_is_not_left(grouped, tmp_path, monkeypatch, grouped_wins):
    monkeypatch.setattr(exactness, 'TOLERANCE', -1)
    with pytest.raises(ValueError, match=r'network.onnx is off by .*, expected at most -1e\+00'):
        export_onnx(grouped, tmp_path / 'network.onnx', SHAPE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('wrong', [1.0, float('nan')])
@pytest.mark.parametrize('output', [0, 3])
def test_a_wrong_weight_is_found(grouped, tmp_path, monkeypatch, grouped_wins, wrong, output):
    regroup = export.regroup

    def break_one(model, ways):
        """Add to the output's first channel."""
        new = regroup(model, ways)
        right, tape = new.graph.outputs[output], ir.tape.Tape(new.graph)
        error = tape.initializer(ir.tensor(wrong), 'error')
        new.graph.outputs[output] = tape.op(
            'Add', [right, error], output=ir.val(right.name, right.dtype, right.shape)
        )
        right.name = 'right'
        return new

    monkeypatch.setattr(export, 'regroup', break_one)
    path = tmp_path / 'network.onnx'
    path.write_text('an older file')
    with pytest.raises(ValueError, match='is off by'):
        export_onnx(grouped, path, SHAPE)
    assert path.read_text() == 'an older file'
    assert list(tmp_path.iterdir()) == [path]


def test_a_network_that_overflows_is_refused(grouped, tmp_path, grouped_wins):
    with torch.no_grad():
        grouped.layer4[1].bn1.weight.fill_(1e30)
        grouped.layer4[1].bn2.weight.fill_(1e30)
    with pytest.raises(ValueError, match='SGCResNet overflows on this image of 64x96'):
        export_onnx(grouped, tmp_path / 'network.onnx', SHAPE)
    assert list(tmp_path.iterdir()) == []


def test_the_graph_as_it_was_is_written_where_that_is_faster(
    grouped, tmp_path, monkeypatch, connections, grouped_wins
):
    sums = []
    for seconds in ([0.5, 1.0], [1.0, 0.5]):
        monkeypatch.setattr(export, 'race', lambda *_, seconds=seconds: seconds)
        report = export_onnx(grouped, tmp_path / 'network.onnx', SHAPE)
        assert (report.seconds, report.ungrouped) == (0.5, seconds[1])
        sums.append(sum(connections(ir.load(tmp_path / 'network.onnx'))))
    assert sums[0] != sums[1]
    assert sums[1] == sum(m.weight.numel() for m in grouped.modules() if isinstance(m, nn.Conv2d))


def test_a_network_without_groups_is_timed_once(tmp_path, monkeypatch):
    raced = []

    def race(models, *_):
        raced.append(models)
        return [1.0] * len(models)

    monkeypatch.setattr(export, 'race', race)
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    report = export_onnx(dense, tmp_path / 'network.onnx', SHAPE)
    assert [len(models) for models in raced] == [1]
    assert report.seconds == report.ungrouped == 1.0


def test_what_the_file_is_of_is_kept_in_it(grouped, tmp_path, grouped_wins):
    about = dict(config='a.py', mean='[1, 2, 3]')
    export_onnx(grouped, tmp_path / 'network.onnx', SHAPE, about=about)
    assert ir.load(tmp_path / 'network.onnx').metadata_props == about


def test_outputs_are_compared_on_the_image_that_is_given(
    grouped, tmp_path, monkeypatch, grouped_wins
):
    compared = []
    compare = export.compare

    def watch(model, part, path, image, *args):
        compared.append(image)
        return compare(model, part, path, image, *args)

    monkeypatch.setattr(export, 'compare', watch)
    image = torch.full((1, 3, 50, 70), 200, dtype=torch.uint8)
    export_onnx(grouped, tmp_path / 'network.onnx', (128, 192), image=image)
    assert [tuple(image.shape) for image in compared] == [(1, 3, 128, 192), (1, 3, 64, 96)]
    for image in compared:
        torch.testing.assert_close(image, torch.full_like(image, 72 / 64))


@pytest.mark.parametrize(
    ('shape', 'expected'), [((800, 1344), (384, 672)), ((64, 96), (64, 64)), ((1, 700), (64, 320))]
)
def test_half_a_shape_is_in_steps_that_all_strides_divide(shape, expected):
    assert export.half(shape) == expected


def photos(number=3):
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (1, 3, *SHAPE), np.uint8)) for _ in range(number)]


@pytest.mark.parametrize('name', ['onnxruntime', 'openvino'])
def test_int8_is_near_the_network_and_grouped(grouped, tmp_path, grouped_wins, run, name):
    for package in (name, 'nncf'):
        pytest.importorskip(package)
    path, image = tmp_path / 'network.onnx', photos()[0]
    runtime = Runtime(name, 'int8', threads=1)
    report = export_onnx(grouped, path, SHAPE, runtime, image=image, images=photos())
    assert report.quantised.change < 0.01
    convs = [node for node in ir.load(path).graph if node.op_type == 'Conv']
    assert sum(scale_of(node.inputs[1]) is not None for node in convs) > len(convs) / 2
    assert len(convs) > 25  # the network has 20
    images = RawOutputs(grouped).image(image)
    with torch.no_grad():
        expected = [y.numpy() for y in RawOutputs(grouped)(images)]
    for x, y in zip(runtime.open(path)[0]({'images': images.numpy()}), expected, strict=True):
        assert np.square(x - y).mean() < 0.05 * y.var()


def test_int8_needs_images_and_gates_that_are_fixed(grouped, tmp_path, mix_gates):
    path = tmp_path / 'network.onnx'
    with pytest.raises(ValueError, match='int8 without images'):
        export_onnx(grouped, path, SHAPE, Runtime(precision='int8'))
    by_image = build('MSGC r18', mix_gates)
    for runtime in (Runtime(precision='int8'), Runtime('openvino')):
        if runtime.name == 'openvino':
            pytest.importorskip('openvino')
        with pytest.raises(ValueError, match=f'in {runtime.name} can not have: it needs --freeze'):
            export_onnx(by_image, path, SHAPE, runtime, images=photos())
    assert list(tmp_path.iterdir()) == []


def test_an_int8_file_that_grouping_changed_is_not_left(
    grouped, tmp_path, grouped_wins, monkeypatch
):
    pytest.importorskip('nncf')
    regroup = export.regroup

    def wrong(model, ways):
        new = regroup(model, ways)
        for value in new.graph.initializers.values():
            array = value.const_value.numpy()
            if array.dtype == np.int8 and array.ndim == 4 and len(array) >= 16:
                value.const_value = ir.tensor(array[::-1])
        return new

    monkeypatch.setattr(export, 'regroup', wrong)
    runtime = Runtime(precision='int8', threads=1)
    with pytest.raises(ValueError, match='in onnxruntime in int8'):
        export_onnx(grouped, tmp_path / 'network.onnx', SHAPE, runtime, images=photos())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_a_file_that_the_runtime_computes_wrongly_is_not_left(
    precision, grouped, tmp_path, grouped_wins, monkeypatch
):
    pytest.importorskip('openvino')
    original = Runtime.open

    def wrong(runtime, model):
        run, about = original(runtime, model)
        return lambda inputs: [1.5 * y for y in run(inputs)], about

    monkeypatch.setattr(Runtime, 'open', wrong)
    with pytest.raises(ValueError, match=f'off by .* in openvino in {precision}'):
        export_onnx(grouped, tmp_path / 'network.onnx', SHAPE, Runtime('openvino', precision, 1))
    assert list(tmp_path.iterdir()) == []
