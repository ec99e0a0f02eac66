"""tools/convert_checkpoint.py on small networks."""

import os
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.checkpoints import Network, read_checkpoint
from mmdet_groupconv.checkpoints.layouts import PublishedLayout

SMALL = dict(num_classes=5, depth=18, base_channels=8)


@pytest.fixture(scope='module')
def main(tool):
    return tool('convert_checkpoint').main


@pytest.fixture(scope='module')
def published():
    torch.manual_seed(0)
    network = Network('msgc', 'resnet', **SMALL, heads=4, attention=True)
    return PublishedLayout().theirs(network.build().state_dict(), network)


@pytest.fixture
def source(tmp_path, published):
    """As MSGC's authors write it."""
    state = {f'module.{key}': value for key, value in published.items()}
    path = tmp_path / 'msgc.tar'
    torch.save(dict(epoch=119, state_dict=state, best_prec1=71.5, optimizer={}), path)
    return path


def refused(main, capsys, *arguments):
    """What is printed on stderr, with no new file."""
    folder = Path(arguments[0]).parent
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit) as info:
        main([str(argument) for argument in arguments])
    assert info.value.code == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    printed = capsys.readouterr().err.splitlines()
    assert [line.startswith('error: ') for line in printed] == [False] * (len(printed) - 1) + [True]
    return printed


def test_says_what_was_found_and_how_to_use_it(main, source, tmp_path, capsys):
    out = tmp_path / 'ours.pth'
    assert main([str(source), str(out), '--to', 'msgc-resnet18']) == 0
    state, meta = read_checkpoint(out)
    assert meta['method'] == 'msgc'
    assert capsys.readouterr().out.splitlines() == [
        f'{source}: msgc-resnet18, 5 classes, 4 heads, attention',
        f'{out}: {len(state)} tensors, {parameters(state):,} parameters',
        "backbone=dict(type='MSGCResNet', depth=18, base_channels=8, heads=4, attention=True)",
        f"init_cfg=dict(type='Pretrained', checkpoint='{out}', prefix='backbone.')",
        "MSGC's released weights are for research only: see the LICENSE of hellozhuo/msgc",
    ]


def parameters(state):
    buffers = 'running_mean', 'running_var', 'num_batches_tracked'
    return sum(value.numel() for key, value in state.items() if not key.endswith(buffers))


def test_there_and_back(main, source, tmp_path, published, capsys):
    ours, back = tmp_path / 'ours.pth', tmp_path / 'back.tar'
    main([str(source), str(ours)])
    capsys.readouterr()
    assert main([str(ours), str(back), '--export']) == 0
    content = torch.load(back, weights_only=True)
    assert (content['epoch'], content['best_prec1']) == (119, 71.5)
    assert content['state_dict'].keys() == {f'module.{key}' for key in published}
    for key, value in published.items():
        assert torch.equal(content['state_dict'][f'module.{key}'], value), key
    assert 'init_cfg' not in capsys.readouterr().out


def test_a_detector_begins_with_it(main, source, tmp_path, published):
    out = tmp_path / 'ours.pth'
    main([str(source), str(out)])
    weights = dict(type='Pretrained', checkpoint=str(out), prefix='backbone.')
    sizes = dict(depth=18, base_channels=8, heads=4, attention=True)
    backbone = MODELS.build(dict(type='MSGCResNet', init_cfg=weights, **sizes))
    backbone.init_weights()
    key = 'layer4.1.attgen2.conv.3.weight'
    assert torch.equal(backbone.state_dict()[key], published[key])


def test_sgc_classifiers_are_told_to_need_their_linear_layer(main, tmp_path, capsys):
    network = Network('sgc', 'resnet', **SMALL, masked_fc=True)
    torch.save(network.build().state_dict(), tmp_path / 'sgc.pth')
    main([str(tmp_path / 'sgc.pth'), str(tmp_path / 'new.pth')])
    assert "linear_cfg=dict(type='SGCLinear')" in capsys.readouterr().out


def test_flgc_says_its_groups_and_is_not_exported(main, tmp_path, capsys):
    network = Network('flgc', 'resnet', **SMALL, groups=3)
    torch.save(network.build().state_dict(), tmp_path / 'flgc.pth')
    printed = refused(main, capsys, tmp_path / 'flgc.pth', tmp_path / 'new.pth', '--export')
    assert 'flgc-resnet18 has no published layout' in printed[0]
    main([str(tmp_path / 'flgc.pth'), str(tmp_path / 'new.pth')])
    assert 'flgc-resnet18, 5 classes, 3 groups' in capsys.readouterr().out


def test_another_network_is_refused_with_the_modules_at_fault(main, source, tmp_path, capsys):
    printed = refused(main, capsys, source, tmp_path / 'new.pth', '--to', 'msgc-resnet34')
    # two convs, two norms of four, four nets of seven
    assert printed[0] == 'missing: layer1.2.* (38 keys)'
    assert printed[-1].startswith(f'error: checkpoint {source} does not fit msgc-resnet34: ')
    assert len(printed) < 35


def test_truncated_state_dicts_are_refused(main, tmp_path, published, capsys):
    state = {key: value for key, value in published.items() if not key.startswith('layer3.1')}
    torch.save(state, tmp_path / 'cut.pth')
    printed = refused(main, capsys, tmp_path / 'cut.pth', tmp_path / 'new.pth')
    assert printed[0] == 'missing: layer3.1.* (38 keys)'
    assert len(printed) == 2


@pytest.mark.parametrize(
    ('output', 'complaint'),
    [
        ('no/new.pth', 'no not found'),
        ('.', 'is a folder, expected a file'),
        ('msgc.tar', 'is the input itself, expected another file'),
    ],
)
def test_bad_outputs_are_refused(main, source, tmp_path, capsys, output, complaint):
    (printed,) = refused(main, capsys, source, tmp_path / output)
    assert printed.startswith('error: output ')
    assert complaint in printed


def test_bad_sources_are_refused(main, tmp_path, capsys):
    path = tmp_path / 'c.pth'
    for content, complaint in (
        (nn.Conv2d(1, 1, 1), 'write its weights alone with torch.save(model.state_dict(), ...)'),
        ({'features.denseblock_1.denselayer_1.norm.bias': torch.ones(1)}, 'it is a CondenseNet'),
        ({'a.weight': torch.ones(1)}, 'it is no classifier on a ResNet or a MobileNetV2'),
        ({0: torch.ones(1)}, 'it is no classifier on a ResNet or a MobileNetV2'),
        ({'layer1.0.conv1.weight': torch.ones(1), 'epoch': 3}, 'epoch is int, expected tensors'),
    ):
        torch.save(content, path)
        (printed,) = refused(main, capsys, path, tmp_path / 'new.pth')
        assert complaint in printed
        assert 'c.pth' in printed
    os.truncate(path, 100)
    assert 'c.pth' in refused(main, capsys, path, tmp_path / 'new.pth')[0]
    path.unlink()
    assert 'c.pth not found' in refused(main, capsys, path, tmp_path / 'new.pth')[0]


def test_a_failure_leaves_the_old_file(main, source, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'new.pth'
    out.write_bytes(b'old')

    def fail(content, file):
        file.write_bytes(b'half')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    assert refused(main, capsys, source, out) == ['error: disk full']
