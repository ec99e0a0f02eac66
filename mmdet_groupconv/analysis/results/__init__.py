"""Results of many runs as one table, each number with the run that it comes from."""

from .log import epochs_of
from .record import PRUNING, Row, read_rows, record_run
from .table import put_table, results_table

__all__ = ['PRUNING', 'Row', 'epochs_of', 'put_table', 'read_rows', 'record_run', 'results_table']
