import torch

from mmdet_groupconv.benchmark import describe


def test_device_threads_and_versions_are_named():
    found = describe(torch.device('cpu'))
    assert found['device']
    assert found['threads'] == torch.get_num_threads()
    assert found['torch'] == torch.__version__
    assert {'torchvision', 'mmcv', 'mmengine', 'mmdet'} <= set(found)
