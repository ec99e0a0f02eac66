"""What several configs set differently."""

from typing import Any

from mmengine.config import Config

_PLACES = 'work_dir', 'load_from', 'resume', 'launcher', 'experiment_name'  # not how a run trains


def config_difference(configs: list[Config]) -> dict[str, list[str | None]]:
    """Dotted keys that not all configs set alike, with each one's value; None where it has none."""
    flat = [settings_of(cfg) for cfg in configs]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = {key: [settings.get(key) for settings in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def settings_of(cfg: Config) -> dict[str, str]:
    """What a config sets, by dotted keys, but for where a run reads and writes."""
    return _flat(cfg.to_dict())


def _flat(settings: Any, prefix: str = '') -> dict[str, str]:
    if isinstance(settings, dict) and settings:
        items = settings.items()
    elif isinstance(settings, list | tuple) and any(isinstance(v, dict) for v in settings):
        items = enumerate(settings)
    else:
        return {prefix: repr(settings)}
    found: dict[str, str] = {}
    for key, value in items:
        if prefix or key not in _PLACES:
            found.update(_flat(value, f'{prefix}.{key}' if prefix else str(key)))
    return found
