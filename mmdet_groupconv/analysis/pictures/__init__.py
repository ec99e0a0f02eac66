"""Pictures of what was grouped, as matplotlib figures that need neither pyplot nor a backend."""

from .connectivity import plot_clusters, plot_connectivity
from .density import plot_density, plot_density_history
from .fitting import plot_gates
from .group_sizes import plot_group_sizes
from .macs import plot_macs
from .runs import Run, plot_runs, read_run, read_runs
from .speed import plot_speed_accuracy, read_points
from .style import save, to_rgb
from .thumbnails import thumbnails
from .variation import plot_extreme_images, plot_variation

__all__ = [
    'Run',
    'plot_clusters',
    'plot_connectivity',
    'plot_density',
    'plot_density_history',
    'plot_extreme_images',
    'plot_gates',
    'plot_group_sizes',
    'plot_macs',
    'plot_runs',
    'plot_speed_accuracy',
    'plot_variation',
    'read_points',
    'read_run',
    'read_runs',
    'save',
    'thumbnails',
    'to_rgb',
]
