import copy
import functools
import gc
import importlib.util
import itertools
import os
from pathlib import Path

import hypothesis
import mmdet
import mmengine.config.utils
import pytest
import torch
import yapf.yapflib.yapf_api  # noqa: F401  (before workers start: it writes its cache in place)
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import mmdet_groupconv  # noqa: F401  (first, so that no test module meets mmdet without mmcv's ops)
from mmdet_groupconv.engine.launch import build_model
from mmdet_groupconv.layers import AttentionGenerator, DGCConv2d, MaskGenerator, SelfGrouping

PROJECT = Path(__file__).resolve().parents[1]
DEMO = PROJECT / 'configs/demo/retinanet_msgc-r18_scenes.py'
# Configs that no test writes.
OURS_OR_THEIRS = str(PROJECT / 'configs'), str(Path(mmdet.__file__).parent)


class _TorchRandom:
    """Torch's generator in the form of ``random``'s, for Hypothesis to seed at each example."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = _TorchRandom()  # of which Hypothesis keeps a weak reference
hypothesis.register_random(TORCH_RANDOM)


def pytest_collection_finish():
    """MMEngine collects garbage for each dataset: half of a tiny run, with all that is imported."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """No test draws what the tests before it left to be drawn."""
    torch.manual_seed(0)


@pytest.fixture(scope='session', autouse=True)
def _plain_configs():
    """Laying a config's text out for logs and checkpoints takes longer than a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        yield


@pytest.fixture(scope='session', autouse=True)
def _metafiles_read_once():
    """MMEngine reads all of MMDetection's for each ``mmdet::`` of a config: a second, mostly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.config.utils.load', functools.cache(mmengine.config.utils.load))
        yield


@pytest.fixture(scope='session', autouse=True)
def _configs_read_once():
    """MMEngine copies each file of a config into its own folder: a fifth of a second in all."""
    read, found = Config._file2dict, {}

    def read_once(filename, *args, **kwargs):
        if not str(filename).startswith(OURS_OR_THEIRS):  # a test may write its own anew
            return read(filename, *args, **kwargs)
        data = os.environ.get('MMDET_GROUPCONV_DATA')  # the one variable that configs look at
        key = filename, args, tuple(kwargs.items()), data
        if key not in found:
            found[key] = read(filename, *args, **kwargs)
        return copy.deepcopy(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_file2dict', staticmethod(read_once))
        yield


@pytest.fixture(scope='module', autouse=True)
def _own_scope():
    """MMEngine keeps one default scope for the process: a runner would leave its own to others."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(autouse=True)
def _own_scope_of_a_test(_own_scope):
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(scope='session')
def tool():
    """``tool(name)``: the module of a command line, fresh, by its name below ``tools/``."""

    def load(name):
        path = PROJECT / 'tools' / f'{name}.py'
        spec = importlib.util.spec_from_file_location(f'tools_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope='session')
def tiny_run(tool, tmp_path_factory):
    """Of a finished run of two iterations."""
    folder = tmp_path_factory.mktemp('tiny_run')
    loaders = [
        f'{loader}_dataloader.{setting}'
        for loader in ('train', 'val', 'test')
        for setting in (
            'num_workers=0',
            'persistent_workers=False',
            'batch_size=2',
            'dataset.num_images=4',
            'dataset.image_size=64',
            f'dataset.data_root={folder}',
        )
    ]
    settings = [
        *loaders,
        f'val_evaluator.ann_file={folder}/annotations/val.json',
        f'test_evaluator.ann_file={folder}/annotations/val.json',
        'model.backbone.base_channels=8',
        'model.neck.in_channels=[8,16,32,64]',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
        'default_hooks.logger.interval=1',
        'experiment_name=tiny_run',
        'visualizer.name=tiny_run',
    ]
    tool('train').main([str(DEMO), f'--work-dir={folder}/run', '--cfg-options', *settings])
    return folder / 'run'


@pytest.fixture
def one_thread():
    """Sums of several threads may differ from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def train(tmp_path):
    """``train(cfg, **settings)``: a run under a name of its own through the tools' runner.

    settings: attributes of a copy of the config.
    """
    # Not above: tests of the import itself come first in a process.
    from mmdet_groupconv.engine.launch import build_runner

    numbers = itertools.count()

    def train(cfg, **settings):
        cfg = copy.deepcopy(cfg)
        # MMEngine keeps one runner and one visualizer of a name for the process.
        cfg.experiment_name = f'{tmp_path.name}-{next(numbers)}'
        if 'visualizer' in cfg:
            cfg.visualizer.name = cfg.experiment_name
        cfg.work_dir = str(tmp_path / cfg.experiment_name)
        cfg.launcher = 'none'
        for key, value in settings.items():
            cfg[key] = value
        runner = build_runner(cfg, ('train', 'val'))
        runner.train()
        return runner

    return train


class SavedRun:
    """What a run's checkpoint holds.

    state: tensors and numbers by name: weights, gates' schedules and masks among them, momenta,
    learning rates, counts, best score. history: all that was logged, times and memory aside.
    """

    def __init__(self, path):
        content = torch.load(path, weights_only=False)  # MMEngine's own objects: the file is ours
        logged, info = (content['message_hub'][key] for key in ('log_scalars', 'runtime_info'))
        trained = 'state_dict', 'optimizer', 'param_schedulers'  # the best: the first alone
        parts = {key: content[key] for key in trained if key in content}
        counts = ('epoch', 'iter', 'max_iters', 'best_score')
        parts['info'] = {key: info[key] for key in counts if key in info}
        self.meta = parts['meta'] = {key: content['meta'][key] for key in ('epoch', 'iter', 'seed')}
        self.state = dict(_tensors(parts))
        self.history = {
            key: [float(v) for v in log.data[0]]
            for key, log in logged.items()
            if 'time' not in key and 'memory' not in key
        }

    def differs_in(self, other):
        """Names of the state that are not equal in both."""
        assert self.state.keys() == other.state.keys()
        return [key for key in self.state if not torch.equal(self.state[key], other.state[key])]


def _tensors(tree, name=''):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list | tuple):
            yield from _tensors(value, f'{name}.{key}')
        elif isinstance(value, torch.Tensor | int | float):
            yield f'{name}.{key}', torch.as_tensor(value)


@pytest.fixture(scope='session')
def saved():
    """``saved(path)``: a :class:`SavedRun`."""
    return SavedRun


@pytest.fixture(scope='session')
def golden() -> Path:
    """The folder of reference outputs; the test is skipped where it is absent."""
    shared = Path(os.environ.get('MMDET_GROUPCONV_SHARED', PROJECT.parent / 'shared'))
    folder = shared / 'golden'
    if not folder.is_dir():
        pytest.skip(f'no reference data in {folder}: set MMDET_GROUPCONV_SHARED to its parent')
    return folder


@pytest.fixture(scope='session')
def golden_msgc_blocks(golden):
    return torch.load(golden / 'msgc_blocks.pt', weights_only=True)


@pytest.fixture(scope='session')
def golden_dgc_layers(golden):
    return torch.load(golden / 'dgc_layers.pt', weights_only=True)


@pytest.fixture(scope='session')
def golden_sgc_layers(golden):
    return torch.load(golden / 'sgc_layers.pt', weights_only=True)


@pytest.fixture
def golden_msgc_block(request, golden_msgc_blocks):
    """The published case of the given index and our block with its weights, in eval mode."""
    # Not above: tests of the import itself come first in a process.
    from mmdet_groupconv.backbones.msgc_resnet import MSGCBasicBlock, MSGCBottleneck

    case = golden_msgc_blocks[request.param]
    if case['kind'] == 'inverted':
        return case, _golden_inverted_residual(case)
    block_type = {'basic': MSGCBasicBlock, 'bottleneck': MSGCBottleneck}[case['kind']]
    channels, filters, stride = case['in_channels'], case['out_channels'], case['stride']
    downsample = None
    if 'downsample.0.weight' in case['state_dict']:
        shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False)
        downsample = nn.Sequential(shortcut, nn.BatchNorm2d(filters))
    block = block_type(
        channels,
        filters // block_type.expansion,
        stride=stride,
        downsample=downsample,
        heads=case['heads'],
        attention=case['attention'],
    )
    block.load_state_dict(case['state_dict'])
    return case, block.eval()


def _golden_inverted_residual(case):
    from mmdet_groupconv.backbones.msgc_mobilenet_v2 import MSGCInvertedResidual

    ours = {
        'conv.0.0.': 'expand_conv.conv.',
        'conv.0.1.': 'expand_conv.bn.',
        'conv.1.0.': 'depthwise_conv.conv.',
        'conv.1.1.': 'depthwise_conv.bn.',
        'conv.2.': 'linear_conv.conv.',
        'conv.3.': 'linear_conv.bn.',
    }
    state = {}
    for key, value in case['state_dict'].items():
        prefix = next((prefix for prefix in ours if key.startswith(prefix)), '')
        state[ours.get(prefix, '') + key[len(prefix) :]] = value
    block = MSGCInvertedResidual(
        case['in_channels'],
        case['out_channels'],
        state['depthwise_conv.conv.weight'].size(0),
        stride=case['stride'],
        act_cfg=dict(type='ReLU6'),
        heads=case['heads'],
        attention=case['attention'],
    )
    block.load_state_dict(state)
    return block.eval()


@pytest.fixture
def golden_dgc_layer(request, golden_dgc_layers):
    """The published layer of the given index and ours with its weights, in eval mode.

    The published heads are modules of their own; filter k is the (k // heads)-th of head k % heads.
    """
    from mmdet_groupconv.layers import DGCConv2d

    case = golden_dgc_layers[request.param]
    arguments = ('kernel_size', 'stride', 'padding', 'heads', 'gate_factor', 'squeeze_rate')
    layer = DGCConv2d(
        case['in_channels'],
        case['out_channels'],
        bias=False,
        **{name: case[name] for name in arguments},
    )
    published = case['state_dict']

    def of_heads(key):
        return [published[f'headconv_{head}.{key}'] for head in range(case['heads'])]

    state = {key: value for key, value in published.items() if key.startswith('norm.')}
    state['weight'] = torch.stack(of_heads('conv.weight'), dim=1).flatten(0, 1)
    for key in ('fc1.weight', 'fc2.weight'):
        state[f'saliency.{key}'] = torch.cat(of_heads(key))[..., None, None]
    state['saliency.fc2.bias'] = torch.cat(of_heads('fc2.bias'))
    state['inactive'] = torch.tensor(0)
    layer.load_state_dict(state)
    return case, layer.eval()


@pytest.fixture
def tiny_cfg(tmp_path) -> Config:
    """The demo's config, small: 4 iterations on 8 images of 64 pixels, 4 images for validation.

    The budget's weight is 30.
    """
    cfg = Config.fromfile(DEMO)
    cfg.work_dir = str(tmp_path / 'work_dir')
    cfg.model.backbone.base_channels = 8
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.model.bbox_head.update(in_channels=8, feat_channels=8)
    for loader, images in ((cfg.train_dataloader, 8), (cfg.val_dataloader, 4)):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(tmp_path), num_images=images, image_size=64)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(
        tmp_path / 'annotations/val.json'
    )
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler = []
    cfg.custom_hooks[0].weight = 30.0
    cfg.default_hooks.logger.interval = 1
    cfg.experiment_name = cfg.visualizer.name = tmp_path.name  # one of a name for the process
    return cfg


@pytest.fixture
def repeatable_cfg(tiny_cfg) -> Config:
    """The same, but two runs of it are equal: seeded, no flips, each epoch's checkpoint kept."""
    tiny_cfg.randomness = dict(seed=0)
    tiny_cfg.train_dataloader.dataset.pipeline = [
        step for step in tiny_cfg.train_dataloader.dataset.pipeline if step.type != 'RandomFlip'
    ]
    tiny_cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    return tiny_cfg


@pytest.fixture(scope='session')
def tiny_detector():
    """``tiny_detector('retinanet', 'msgc', 'r18', **backbone)``: the ready whole config, narrow."""
    return _tiny_detector


def _tiny_detector(detector: str, method: str, host: str = 'r18', **backbone):
    folder = PROJECT / 'configs' / detector.replace('-', '_')
    model = Config.fromfile(folder / f'{detector}_{method}-{host}_fpn_whole_1x_coco.py').model
    model.backbone.update({'frozen_stages': -1, 'init_cfg': None, **backbone})
    if host != 'mbv2':
        model.backbone.base_channels = 8
        model.neck.in_channels = [8, 16, 32, 64]
    model.neck.out_channels = 16
    if 'roi_head' in model:
        model.roi_head.bbox_head.fc_out_channels = 32
        model.roi_head.bbox_roi_extractor.out_channels = 16
    heads = [model.rpn_head, model.roi_head.bbox_head] if 'roi_head' in model else [model.bbox_head]
    for part in (*heads, model.neck):
        if part is not model.neck:
            part.in_channels = 16
        if 'feat_channels' in part:
            part.feat_channels = 16
        if part.get('norm_cfg', {}).get('type') == 'GN':
            part.norm_cfg.num_groups = 4
    torch.manual_seed(0)
    return build_model(Config(dict(model=model)))


@pytest.fixture(scope='session')
def mix_gates():
    return _mix_gates


@torch.no_grad()
def _mix_gates(model, images):
    """Gates of a fresh network that differ by image, norms that have seen data; to eval mode.

    model: a backbone or a detector, of which only the heads' norms stay fresh.
    """
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.7)
            nn.init.normal_(module.conv[3].bias, std=0.5)
        elif isinstance(module, AttentionGenerator):
            nn.init.normal_(module.conv[3].weight, std=0.1)
        elif isinstance(module, DGCConv2d):
            module.set_progress(1)
            nn.init.kaiming_normal_(module.saliency.fc2.weight)
        elif isinstance(module, SelfGrouping):
            patterns = torch.rand(4, module.mask.size(1)) > 0.5
            module.mask.copy_(patterns[torch.randint(4, (module.mask.size(0),))])
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            module.momentum = 1.0
    model.train()
    getattr(model, 'extract_feat', model)(images)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.clamp_(min=0.01)  # rounding errors would grow without bounds
    return model


class _Always:
    """In the place of ``Fastest``: the form at a position, the last one where there are fewer."""

    def __init__(self, position):
        self.position = position

    def choose(self, x, names, run, out, load=None):
        names = list(names)
        return names[min(self.position, len(names) - 1)]


@pytest.fixture(scope='session')
def take_form():
    return _take_form


def _take_form(model, position):
    """Have every layer of a compact network take the form at the same position, untimed."""
    for module in model.modules():
        if hasattr(module, 'forms'):
            module.forms = _Always(position)
    return model
