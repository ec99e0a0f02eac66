"""MACs for the gates of real images."""

from mmengine.config import Config
from rich.progress import track
from torch import nn

from ..datasets.images import image_batches, image_paths
from ..macs import MacReport, count_macs, mean_report


def count_macs_of_images(model: nn.Module, cfg: Config, folder: str) -> MacReport:
    """The mean report over the images in and below a folder, each at its size in the test pipeline.

    Raises FileNotFoundError where the folder holds no image.
    """
    paths = image_paths(folder)
    reports = []
    for batch in track(image_batches(cfg, paths), 'counting', total=len(paths)):
        images = model.data_preprocessor(batch, training=False)['inputs']
        reports.append(count_macs(model, tuple(images.shape[-2:]), images))
    return mean_report(reports)
