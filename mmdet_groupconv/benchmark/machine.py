"""What figures hold for."""

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

# OneDL's packages carry on OpenMMLab's under the same import names.
_PACKAGES = dict(
    torchvision=('torchvision',),
    mmcv=('onedl-mmcv', 'mmcv', 'mmcv-lite'),
    mmengine=('onedl-mmengine', 'mmengine'),
    mmdet=('onedl-mmdetection', 'mmdet'),
    onnxruntime=('onnxruntime', 'onnxruntime-gpu'),
    openvino=('openvino',),
)
# Instructions that PyTorch and OpenVINO may use at most, on CPUs that have more.
_LIMIT = 'ONEDNN_MAX_CPU_ISA'


def describe(device: torch.device) -> dict[str, object]:
    """The device by name, what it computes with, threads, and the versions of what runs there."""
    cuda = device.type == 'cuda'
    limit = os.environ.get(_LIMIT)
    return dict(
        device=torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        **({_LIMIT.lower(): limit} if limit else {}),
        cpus=os.cpu_count(),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        **{name: found for name in _PACKAGES if (found := _version(name))},
    )


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    found = re.search(r'model name\s*: (.+)', info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    for package in _PACKAGES[name]:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
