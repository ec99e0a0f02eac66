"""MMDetection backbones with learned and dynamic grouped convolutions."""

__version__ = '0.1.0'
