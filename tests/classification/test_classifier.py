import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from mmdet_groupconv.analysis import count_macs
from mmdet_groupconv.classification import ImageClassifier
from mmdet_groupconv.layers import SGCLinear

RESNET = dict(type='ResNet', depth=18, base_channels=4, out_indices=(3,), norm_eval=False)
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 1, 1])


def build(**settings):
    torch.manual_seed(0)
    return ImageClassifier(**{'backbone': RESNET, 'num_classes': 3, **settings})


def test_state_dict_has_the_backbone_and_the_linear_layer_only():
    model = build()
    parts = {key.partition('.')[0] for key in model.state_dict()}
    assert parts == {'backbone', 'fc'}
    expected = {f'backbone.{key}' for key in MODELS.build(RESNET).state_dict()}
    assert model.state_dict().keys() == expected | {'fc.weight', 'fc.bias'}


@pytest.mark.parametrize(
    ('backbone', 'width'),
    [
        (RESNET, 32),
        (dict(RESNET, depth=50, out_indices=(0, 1, 2, 3)), 128),
        (dict(RESNET, out_indices=(1,)), 8),
        (dict(type='TrimmedMobileNetV2', out_indices=(7,)), 1280),
        (dict(type='DGCMobileNetV2', widen_factor=0.25, out_indices=(2,)), 8),
        (dict(type='SSDVGG', depth=16, out_feature_indices=(3,), l2_norm_scale=None), 64),
    ],
)
def test_fc_is_as_wide_as_the_backbone_s_last_output(backbone, width):
    assert build(backbone=backbone).fc.weight.shape == (3, width)


def test_finding_the_width_leaves_the_backbone_as_it_was():
    torch.manual_seed(0)
    backbone = MODELS.build(RESNET)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    built = ImageClassifier(backbone, 3).backbone
    assert built is backbone
    assert all(module.training for module in built.modules())
    assert all(torch.equal(before[key], value) for key, value in built.state_dict().items())


@torch.no_grad()
def test_logits_are_of_the_pooled_last_output():
    model = build().eval()
    features = model.backbone(IMAGES)[-1].mean(dim=(2, 3))
    expected = F.linear(features, model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(IMAGES), expected)


@torch.no_grad()
def test_predictions_are_each_image_s_probabilities():
    model = build().eval()
    scores = model(IMAGES, mode='predict')
    assert [score.shape for score in scores] == [(3,)] * 4
    torch.testing.assert_close(torch.stack(scores), model(IMAGES).softmax(dim=1))


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.5])
def test_the_loss_is_that_of_smoothed_labels(smoothing):
    model = build(label_smoothing=smoothing).eval()
    torch.nn.init.normal_(model.fc.weight)
    losses = model(IMAGES, LABELS, mode='loss')
    logits = model(IMAGES)
    target = (1 - smoothing) * F.one_hot(LABELS, 3) + smoothing / 3
    expected = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert losses.keys() == {'loss_cls', 'accuracy'}
    torch.testing.assert_close(losses['loss_cls'], expected)
    right = (logits.argmax(dim=1) == LABELS).float().mean()
    assert float(losses['accuracy']) == pytest.approx(100 * float(right))
    assert not losses['accuracy'].requires_grad


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode='losses', expected 'tensor', 'loss' or 'predict'"):
        build()(IMAGES, LABELS, mode='losses')


def test_dropout_works_in_training_only():
    model = build(dropout=0.5)
    torch.nn.init.normal_(model.fc.weight)
    model.backbone.eval()
    assert not torch.equal(model(IMAGES), model(IMAGES))
    model.eval()
    assert torch.equal(model(IMAGES), model(IMAGES))


def test_images_are_normalised_by_the_preprocessor():
    model = build(
        data_preprocessor=dict(
            type='ImgDataPreprocessor', mean=[125.0, 123.0, 114.0], std=[63.0, 62.0, 67.0]
        )
    ).eval()
    raw = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = model.data_preprocessor(dict(inputs=raw, data_samples=LABELS), training=False)
    mean, std = (torch.tensor(v)[:, None, None] for v in ([125.0, 123, 114], [63.0, 62, 67]))
    torch.testing.assert_close(batch['inputs'], (raw.float() - mean) / std)
    with torch.no_grad():
        expected = model(batch['inputs'], mode='predict')
        found = model.test_step(dict(inputs=raw, data_samples=LABELS))
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_fc_can_be_self_grouping_and_is_metered():
    model = build(linear_cfg=dict(type='SGCLinear', groups=2)).eval()
    assert isinstance(model.fc, SGCLinear)
    assert (model.fc.weight.shape, model.fc.clusters) == ((3, 32), 2)
    assert 'fc.mask' in model.state_dict()
    model.fc.mask[:, :16] = 0
    report = count_macs(model, (32, 32), IMAGES)
    (row,) = (layer for layer in report.layers if layer.name == 'fc')
    assert (row.original, row.macs) == (96, 48)
    features = model.backbone(IMAGES)[-1].mean(dim=(2, 3))
    expected = F.linear(features[:, 16:], model.fc.weight[:, 16:], model.fc.bias)
    torch.testing.assert_close(model(IMAGES), expected)


def test_fc_begins_small_and_normal_once():
    model = build(num_classes=100)
    model.init_weights()
    assert not model.fc.bias.any()
    assert float(model.fc.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    before = model.fc.weight.clone()
    model.init_weights()
    assert torch.equal(model.fc.weight, before)


@pytest.fixture
def trained(tmp_path):
    """A model with weights of its own, and the file that holds them."""
    model = build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return model.state_dict(), str(path)


def test_backbone_and_fc_begin_with_their_files(trained):
    state, path = trained
    pretrained = dict(type='Pretrained', checkpoint=path)
    model = build(
        backbone=dict(RESNET, init_cfg=dict(pretrained, prefix='backbone.')),
        fc_init_cfg=dict(pretrained, prefix='fc.'),
    )
    model.init_weights()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_the_backbone_alone_can_begin_with_a_file(trained):
    state, path = trained
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = build(backbone=dict(RESNET, init_cfg=init))
    model.init_weights()
    same = {key for key, value in model.state_dict().items() if torch.equal(state[key], value)}
    assert same == {key for key in state if key.startswith('backbone.')}


def test_a_whole_classifier_can_begin_with_a_file(trained):
    state, path = trained
    model = build(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('wrong', 'complaint'),
    [
        (dict(num_classes=1), 'num_classes=1 of ImageClassifier, expected an integer of 2'),
        (dict(label_smoothing=1.0), 'label_smoothing=1.0 of ImageClassifier, expected a share'),
        (dict(label_smoothing=-0.1), 'label_smoothing=-0.1 of ImageClassifier'),
        (dict(dropout=1.5), 'dropout'),
        (dict(backbone=dict(RESNET, deep_stem=True), small_images=True), 'small_images'),
    ],
)
def test_wrong_arguments_are_named(wrong, complaint):
    with pytest.raises(ValueError, match=complaint):
        build(**wrong)
