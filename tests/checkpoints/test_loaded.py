import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from torch import nn

from mmdet_groupconv.checkpoints import check_grouping, grouping_keys, loading_report

METHODS = 'MSGC', 'DGC', 'FLGC', 'SGC'


def build(method):
    return MODELS.build(dict(type=f'{method}ResNet', depth=18, base_channels=4))


MSGC = build('MSGC')
MSGC_STATE = MSGC.state_dict()


def counters_aside(keys):
    return [key for key in keys if not key.endswith('num_batches_tracked')]


@pytest.mark.parametrize('method', METHODS)
def test_all_of_the_grouping_and_none_of_it_are_fine(method):
    model = build(method)
    state = model.state_dict()
    check_grouping(model, state, 'x.pth')
    own = grouping_keys(model)
    check_grouping(model, {k: v for k, v in state.items() if k not in own}, 'x.pth')


@pytest.mark.parametrize('method', METHODS)
def test_one_lacking_tensor_is_named(method):
    model = build(method)
    state = model.state_dict()
    keys = counters_aside(grouping_keys(model))
    lost = keys[len(keys) // 2]
    del state[lost]
    message = rf'x\.pth holds {len(keys) - 1} of the {len(keys)} .* of {method}ResNet .*: {lost}\)'
    with pytest.raises(ValueError, match=message):
        check_grouping(model, state, 'x.pth')


@pytest.mark.parametrize('method', METHODS)
def test_one_tensor_alone_is_a_part_too(method):
    model = build(method)
    first, second, *_ = counters_aside(grouping_keys(model))
    with pytest.raises(ValueError, match=rf'holds 1 of the .*first missing: {second}\)'):
        check_grouping(model, {first: model.state_dict()[first]}, 'x.pth')


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_part_of_the_grouping_is_refused_by_its_first_missing_tensor(data):
    keys = counters_aside(grouping_keys(MSGC))
    some = st.sets(st.sampled_from(keys), min_size=1, max_size=len(keys) - 1)
    lost = data.draw(some)
    state = {key: value for key, value in MSGC_STATE.items() if key not in lost}
    with pytest.raises(ValueError, match=rf'first missing: {min(lost)}\)'):
        check_grouping(MSGC, state, 'x.pth')


def test_files_without_the_counters_of_norms_are_fine():
    keys = counters_aside(MSGC_STATE)
    assert len(keys) < len(MSGC_STATE)
    check_grouping(MSGC, {key: MSGC_STATE[key] for key in keys}, 'x.pth')


def test_networks_without_grouping_take_any_file():
    check_grouping(nn.Conv2d(3, 3, 1), {}, 'x.pth')


def test_a_report_says_what_comes_from_the_file_and_what_does_not():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2))
    state = model.state_dict()
    total = len(state)
    assert loading_report('m', model, state, 'x.pth') == f'm: {total} of {total} tensors from x.pth'
    del state['0.bias'], state['1.weight'], state['1.bias']
    state['2.weight'] = state['2.weight'][:1]  # of another shape
    state['fc.weight'] = state['0.weight']
    assert loading_report('m', model, state, 'x.pth') == (
        f'm: {total - 4} of {total} tensors from x.pth; start anew: others 4 (0, 1, 2); '
        'in the file but not used 2 (2, fc)'
    )


def test_a_report_tells_the_grouping_from_the_rest():
    own = set(grouping_keys(MSGC))
    dense = {key: value for key, value in MSGC_STATE.items() if key not in own}
    del dense['bn1.weight']
    line = loading_report('backbone', MSGC, dense, 'x.pth')
    assert line.startswith(f'backbone: {len(dense)} of {len(MSGC_STATE)} tensors from x.pth; ')
    assert f'start anew: of the grouping {len(own)} (layer1.0.' in line
    assert line.endswith(', ...); start anew: others 1 (bn1)')
    assert '\n' not in line
