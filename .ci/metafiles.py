"""Write each folder's metafile.yml from the configs in it: `make metafiles`."""

import re
from pathlib import Path

from mmengine.config import Config

PROJECT = Path(__file__).resolve().parents[1]
COLLECTIONS = dict(msgc='MSGC', dgc='DGC', flgc='FLGC', sgc='SGC', fixed='Group Convolution')
# By the last word of a config's name.
DATA = {
    'coco': 'COCO',
    'coco-person': 'COCO subset (coco-person)',
    'coco-tiny': 'COCO subset (coco-tiny)',
    'bccd': 'BCCD',
    'imagenet': 'ImageNet-1k',
    'cifar10': 'CIFAR-10',
    'cifar10-64px': 'CIFAR-10',
    'scenes': 'Scenes (rendered)',
    'unlabelled': 'any images, without labels',
}


def metafiles() -> dict[Path, str]:
    """The text of every metafile, by its path."""
    folders = sorted({path.parent for path in PROJECT.glob('configs/[!_]*/*.py')})
    return {
        folder / 'metafile.yml': 'Models:\n' + ''.join(map(_entry, sorted(folder.glob('*.py'))))
        for folder in folders
    }


def _entry(path: Path) -> str:
    name = path.stem
    method = re.search(rf'(?:^|_)({"|".join(COLLECTIONS)})-', name)
    epochs = Config.fromfile(path).train_cfg.max_epochs
    return (
        f'  - Name: {name}\n'
        f'    In Collection: {COLLECTIONS[method[1]] if method else "Dense"}\n'
        f'    Config: {path.relative_to(PROJECT)}\n'
        f'    Metadata:\n'
        f'      Training Data: {DATA[name.rpartition("_")[2]]}\n'
        f'      Epochs: {epochs}\n'
    )


if __name__ == '__main__':
    for file, text in metafiles().items():
        file.write_text(text)
