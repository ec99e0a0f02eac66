import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import METRICS

from mmdet_groupconv.classification import Accuracy

SCORES = torch.tensor(
    [
        [0.6, 0.3, 0.1, 0.0],  # right
        [0.6, 0.3, 0.1, 0.0],  # second
        [0.1, 0.2, 0.3, 0.4],  # third
        [0.4, 0.1, 0.2, 0.3],  # last
    ]
)
LABELS = torch.tensor([0, 1, 1, 1])


def measure(metric, *batches):
    for scores, labels in batches:
        metric.process(dict(data_samples=labels), list(scores))
    return metric.evaluate(sum(len(labels) for _, labels in batches))


@pytest.mark.parametrize(
    ('topk', 'expected'),
    [
        ((1,), {'accuracy/top1': 25.0}),
        ((1, 2), {'accuracy/top1': 25.0, 'accuracy/top2': 50.0}),
        ((3, 1), {'accuracy/top3': 75.0, 'accuracy/top1': 25.0}),
        ((4,), {'accuracy/top4': 100.0}),
    ],
)
def test_shares_of_hand_made_scores(topk, expected):
    assert measure(Accuracy(topk), (SCORES, LABELS)) == expected


def test_by_default_the_first_and_the_first_five_count():
    scores = torch.arange(12.0).flip(0).expand(4, 12)
    found = measure(Accuracy(), (scores, torch.tensor([0, 4, 5, 11])))
    assert found == {'accuracy/top1': 25.0, 'accuracy/top5': 50.0}


def test_batches_of_other_sizes_count_by_their_images():
    whole = measure(Accuracy((1, 2)), (SCORES, LABELS))
    parts = measure(Accuracy((1, 2)), (SCORES[:3], LABELS[:3]), (SCORES[3:], LABELS[3:]))
    assert parts == whole


def test_as_many_as_there_are_classes_are_allowed_and_more_are_not():
    assert measure(Accuracy((4,)), (SCORES, LABELS)) == {'accuracy/top4': 100.0}
    with pytest.raises(ValueError, match=r'topk=\(1, 5\) of 4 classes, expected no more of them'):
        measure(Accuracy(), (SCORES, LABELS))


def test_is_found_by_its_name():
    assert isinstance(METRICS.build(dict(type='Accuracy')), Accuracy)


@given(st.integers(0, 2**31), st.integers(1, 30), st.integers(2, 9), st.data())
def test_a_share_is_that_of_images_with_fewer_than_k_better_classes(seed, images, classes, data):
    k = data.draw(st.integers(1, classes))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([torch.randperm(classes, generator=generator) for _ in range(images)])
    labels = torch.randint(classes, (images,), generator=generator)
    better = (scores > scores.gather(1, labels[:, None])).sum(dim=1)
    found = measure(Accuracy((k,)), (scores.float(), labels))
    expected = 100 * sum(int(number) < k for number in better) / images
    assert math.isclose(found[f'accuracy/top{k}'], expected)
