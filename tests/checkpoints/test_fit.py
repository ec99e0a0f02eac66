import pytest
import torch
from torch import nn

from mmdet_groupconv.checkpoints import check_fit


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
