import pytest
import torch


@pytest.fixture(scope='session')
def noise():
    return torch.randn(2**22, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='session')
def filled(noise):
    """Random values for a state dict's shapes: quick, since all share one tensor's memory."""

    def fill(shapes, seed=0):
        draw = torch.Generator().manual_seed(seed)
        state = {}
        for key, shape in shapes.items():
            size = torch.Size(shape)
            start = int(torch.randint(len(noise) - size.numel(), (), generator=draw))
            state[key] = noise[start : start + size.numel()].view(size)
            if key.endswith('num_batches_tracked'):
                state[key] = torch.tensor(start)
            elif key.endswith(('inactive', '_inactive_channels')):
                state[key] = torch.full(size, start % 7, dtype=torch.long)
                if key.startswith('_', key.rindex('.') + 1):
                    state[key] = state[key].float()
            elif key.endswith('mask'):
                state[key] = (
                    (state[key].flatten(2)[..., :1] > 0)
                    .float()
                    .expand(*size[:2], max(1, size[2:].numel()))
                    .reshape(size)
                    if len(size) > 2
                    else (state[key] > 0).float()
                )
        return state

    return fill


@pytest.fixture(scope='session')
def assert_same():
    """Bit for bit under the same keys."""

    def check(state, other):
        assert state.keys() == other.keys()
        for key, value in state.items():
            assert value.dtype is other[key].dtype, key
            assert torch.equal(value, other[key]), key

    return check
