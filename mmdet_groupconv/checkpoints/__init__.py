"""Reading checkpoints without trusting them, and writing files whole."""

from .classifiers import Classifier, read_classifier, write_classifier, write_published
from .fit import MisfitError, check_fit
from .grouping import grouping_keys, trimmed_keys
from .latest import latest_checkpoint
from .loaded import check_grouping, loading_report
from .loading import load_weights
from .network import NETWORKS, Network
from .publishing import publish_backbone
from .reading import below_prefix, read_checkpoint, read_state_dict
from .writing import check_writable, remove_leftovers, whole_file, write_checkpoint, write_json

__all__ = [
    'NETWORKS',
    'Classifier',
    'MisfitError',
    'Network',
    'below_prefix',
    'check_fit',
    'check_grouping',
    'check_writable',
    'grouping_keys',
    'latest_checkpoint',
    'load_weights',
    'loading_report',
    'publish_backbone',
    'read_checkpoint',
    'read_classifier',
    'read_state_dict',
    'remove_leftovers',
    'trimmed_keys',
    'whole_file',
    'write_checkpoint',
    'write_classifier',
    'write_json',
    'write_published',
]
