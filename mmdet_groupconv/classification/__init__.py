"""Pretraining of backbones as classifiers: network, data, accuracy."""

from .accuracy import Accuracy
from .classifier import ImageClassifier
from .image_folder import ImageFolder, check_image_folder

__all__ = ['Accuracy', 'ImageClassifier', 'ImageFolder', 'check_image_folder']
