import torch

from mmdet_groupconv.benchmark import describe


def test_device_threads_and_versions_are_named():
    found = describe(torch.device('cpu'))
    assert found['device']
    assert found['threads'] == torch.get_num_threads()
    assert found['torch'] == torch.__version__
    assert {'torchvision', 'mmcv', 'mmengine', 'mmdet'} <= set(found)


def test_instructions_that_are_not_used_are_told(monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    assert describe(torch.device('cpu'))['onednn_max_cpu_isa'] == 'AVX2'
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA')
    assert 'onednn_max_cpu_isa' not in describe(torch.device('cpu'))
