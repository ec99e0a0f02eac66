"""Pretraining of backbones as classifiers: network, data, accuracy."""

from .accuracy import Accuracy
from .classifier import ImageClassifier
from .image_files import ImageFiles
from .image_folder import ImageFolder, check_image_folder

__all__ = ['Accuracy', 'ImageClassifier', 'ImageFiles', 'ImageFolder', 'check_image_folder']
