"""What turns a trained dense network into a grouped one: which connections matter, how much each
layer keeps, who is in which group, and where the fine-tuning starts."""

from .allocation import Choice, allocate
from .assignment import Orders
from .clusters import Clusters, cluster_options, regular_clusters
from .comparison import compare_orders
from .compensation import compensate
from .importance import magnitude_importance, taylor_importance
from .plan import LayerPlan, Plan
from .planning import GroupPlanner
from .refit import Refit
from .regular import Groups, free_spaces, shuffled_spaces, why_dense
from .sensitivity import MeasuredLoss, mean_loss, output_change, output_slopes
from .shares import gate_shares, gates_by_image
from .spaces import Ends, Spaces, find_spaces
from .starts import start_gates, start_groups

__all__ = [
    'Choice',
    'Clusters',
    'Ends',
    'GroupPlanner',
    'Groups',
    'LayerPlan',
    'MeasuredLoss',
    'Orders',
    'Plan',
    'Refit',
    'Spaces',
    'allocate',
    'cluster_options',
    'compare_orders',
    'compensate',
    'find_spaces',
    'free_spaces',
    'gate_shares',
    'gates_by_image',
    'magnitude_importance',
    'mean_loss',
    'output_change',
    'output_slopes',
    'regular_clusters',
    'shuffled_spaces',
    'start_gates',
    'start_groups',
    'taylor_importance',
    'why_dense',
]
