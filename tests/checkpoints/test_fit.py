import pytest
import torch
from torch import nn

from mmdet_groupconv.checkpoints import MisfitError, check_fit


@pytest.fixture
def model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_own_state_fits(model):
    check_fit(model, model.state_dict(), 'x.pth')


def test_all_kinds_of_misfit_are_told_in_one_line(model):
    state = model.state_dict()
    state['0.weight'] = torch.zeros(8, 3, 1, 1)
    state['2.weight'] = state.pop('0.bias')
    with pytest.raises(ValueError, match='does not fit Sequential') as info:
        check_fit(model, state, 'x.pth')
    message = str(info.value)
    assert message.startswith('checkpoint x.pth')
    assert '1 keys of another shape (first: 0.weight [8, 3, 1, 1] for [4, 3, 1, 1])' in message
    assert '1 keys missing (first: 0.bias)' in message
    assert '1 keys unexpected (first: 2.weight)' in message


def test_parts_that_may_be_lacking_or_added(model):
    state = model.state_dict()
    del state['0.bias'], state['1.num_batches_tracked']
    state['fc.weight'] = torch.zeros(1)
    check_fit(model, state, 'x.pth', may_lack=['0.b'], may_add=['fc.'])
    with pytest.raises(ValueError, match=r'unexpected \(first: fc\.weight\)'):
        check_fit(model, state, 'x.pth', may_lack=['0.b'])


def test_faults_are_also_told_module_by_module(model):
    state = {key: value for key, value in model.state_dict().items() if not key.startswith('1.')}
    state['2.0.weight'] = state['2.0.bias'] = torch.zeros(1)
    state['0.weight'] = torch.zeros(8, 3, 1, 1)
    with pytest.raises(MisfitError) as info:
        check_fit(model, state, 'x.pth')
    assert info.value.lines == [
        'missing: 1.* (4 keys)',
        'unexpected: 2.* (2 keys)',
        'mis-shaped: 0.* (1 keys), first 0.weight [8, 3, 1, 1] for [4, 3, 1, 1]',
    ]


def test_modules_told_are_bounded():
    model = nn.ModuleDict({f'{letter}{n}': nn.Linear(1, 1) for letter in 'ab' for n in range(30)})
    state = {key: value for key, value in model.state_dict().items() if key.endswith('bias')}
    state.update({f'c{number}': torch.zeros(1) for number in range(12)})
    with pytest.raises(MisfitError) as info:
        check_fit(model, state, 'x.pth')
    lines = info.value.lines
    assert lines[0] == 'missing: a0.weight'
    assert lines[9:12] == ['missing: a9.weight', 'missing: 50 more modules', 'unexpected: c0']
    assert lines[-1] == 'unexpected: 2 more modules'
