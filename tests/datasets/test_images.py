"""Which images of a data set are looked at, and how they are loaded."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image

from mmdet_groupconv.datasets.images import image_batches, image_paths, spread, spread_loader


@given(st.integers(1, 200), st.integers(1, 200))
def test_spread_takes_so_many_different_items_in_order_from_the_first_on(length, number):
    taken = spread(range(length), number)
    assert len(taken) == min(number, length)
    assert taken[0] == 0
    steps = [after - before for before, after in itertools.pairwise(taken)]
    assert all(step >= 1 for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_images_of_a_loader_come_singly_and_from_all_over_the_set(tmp_path):
    cfg = dict(
        batch_size=4,
        num_workers=2,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='ScenesDataset',
            data_root=str(tmp_path),
            split='val',
            num_images=6,
            image_size=64,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackDetInputs')],
        ),
    )
    before = copy.deepcopy(cfg)
    batches = list(spread_loader(cfg, 3))
    names = [sample.img_id for batch in batches for sample in batch['data_samples']]
    assert [len(batch['inputs']) for batch in batches] == [1, 1, 1]
    assert names == [1, 3, 5]
    assert cfg == before


def test_a_classifier_s_images_are_loaded_as_it_is_tested(tmp_path):
    Image.new('RGB', (20, 10), (255, 0, 0)).save(tmp_path / 'red.png')
    pipeline = [dict(type='Resize', size=8), dict(type='CenterCrop', size=4)]
    cfg = Config(dict(test_dataloader=dict(dataset=dict(type='ImageFolder', pipeline=pipeline))))
    (batch,) = image_batches(cfg, image_paths(str(tmp_path)))
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    assert torch.equal(batch['inputs'], red[None])


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path} holds no image'):
        image_paths(str(tmp_path))
