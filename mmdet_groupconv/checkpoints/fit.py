"""Whether a checkpoint belongs to a network, told before it is loaded."""

from collections.abc import Collection

from torch import Tensor, nn

# Files from before torch 0.4.1 lack BatchNorm's counter.
_OPTIONAL = ('num_batches_tracked',)


def check_fit(
    model: nn.Module,
    state: dict[str, Tensor],
    source: str,
    may_lack: Collection[str] = (),
    may_add: Collection[str] = (),
) -> None:
    """Raise ValueError where a state dict doesn't belong to `model`.

    source: the file, for the message. may_lack: parts of names that the checkpoint needn't have
    (new gate nets, say). may_add: parts that it may have beyond the model's (a classifier, say).
    """
    own = model.state_dict()
    reshaped = [
        f'{key} {list(state[key].shape)} for {list(own[key].shape)}'
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    lacking = [k for k in own if k not in state and not _named(k, (*may_lack, *_OPTIONAL))]
    added = [k for k in state if k not in own and not _named(k, may_add)]
    complaints = [
        f'{len(keys)} keys {what} (first: {keys[0]})'
        for keys, what in (
            (reshaped, 'of another shape'),
            (lacking, 'missing'),
            (added, 'unexpected'),
        )
        if keys
    ]
    if complaints:
        raise ValueError(
            f'checkpoint {source} does not fit {type(model).__name__}: {"; ".join(complaints)}'
        )


def _named(key: str, parts: Collection[str]) -> bool:
    return any(part in key for part in parts)
