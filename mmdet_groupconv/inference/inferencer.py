"""MMDetection's inferencer, with weights that are checked before they are loaded."""

from mmdet.apis import DetInferencer
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from torch import nn

from ..checkpoints import check_fit, read_checkpoint


class CheckedInferencer(DetInferencer):
    """A ``DetInferencer`` whose checkpoint runs no code and fits its config, tensor by tensor.

    The names of classes are the checkpoint's, or the config's where it has none.

    Raises FileNotFoundError and ValueError that name the file.
    """

    def _init_model(self, cfg: Config, weights: str, device: str = 'cpu') -> nn.Module:
        state, meta = read_checkpoint(weights)
        model = MODELS.build(cfg.model)
        check_fit(model, state, weights)
        dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=True))
        meta = dict(dict(dataset_meta=dataset.metainfo), **meta)
        self._load_weights_to_model(model, dict(state_dict=state, meta=meta), cfg)
        model.cfg = cfg
        return model.to(device).eval()
