import pytest


@pytest.fixture
def plain_calls(monkeypatch):
    """PyTorch's own operations in the place of oneDNN's fused ones."""
    from mmdet_groupconv.compiler import fused

    monkeypatch.setattr(fused, '_CONV', None)


@pytest.fixture
def all_maps_are_large(monkeypatch):
    """Every float32 map comes from a memory, and is worth filling."""
    from mmdet_groupconv.compiler import memory

    monkeypatch.setattr(memory, '_LARGE', 0)
    monkeypatch.setattr(memory, '_HUGE', 0)


@pytest.fixture
def many_bundles(monkeypatch):
    """Narrow layers are parted into bundles as wide ones are."""
    from mmdet_groupconv.compiler import parting

    monkeypatch.setattr(parting, 'BLOCK', 1)
    monkeypatch.setattr(parting, '_GATHERS', (0, 2, 8))


@pytest.fixture
def convolved(monkeypatch):
    """The shapes of the weights that compact layers convolve with, one after the other."""
    from mmdet_groupconv.compiler import bundles, gated, unit

    shapes = []
    for module in (bundles, gated, unit):
        for name, position in (('convolve', 1), ('convolve_onto', 2)):
            original = getattr(module, name, None)
            if original is None:
                continue

            def spy(*args, position=position, original=original):
                shapes.append(tuple(args[position].shape))
                return original(*args)

            monkeypatch.setattr(module, name, spy)
    return shapes
