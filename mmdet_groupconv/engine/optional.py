"""A room whose packages come with an extra."""

from types import ModuleType


def load_deploy() -> ModuleType:
    """``mmdet_groupconv.deploy``. Raises ImportError, which names the extra, for want of one."""
    try:
        from .. import deploy
    except ModuleNotFoundError as error:
        message = f"{error.name} not found, it comes with: pip install 'mmdet_groupconv[export]'"
        raise ImportError(message) from error
    return deploy
