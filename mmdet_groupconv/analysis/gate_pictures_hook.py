"""Shows during training what is being grouped."""

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ..engine.mac_ratio_hook import bare_model
from .gates import GateRecorder
from .pictures import plot_gates, thumbnails, to_rgb


@HOOKS.register_module()
class GatePicturesHook(Hook):
    """Gives the visualizer pictures of the gates after validation, for all of its backends.

    Pictures: ``gates_density``, ``gates_connectivity`` and those that fit the method
    (``gates_variation``, ``gates_images``, ``gates_group_sizes``, ``gates_clusters``). Scalars:
    ``gates/<layer>/head<h>``, the share of channels that each head reads, whose course
    ``tools/analysis_tools/plot_runs.py`` draws; where groups come and go (SGC's clusters) the
    layer's share is ``head0``.

    Gates are read, by hooks, in the validation that takes place anyway; the first process shows
    those of its own images. Metrics, random numbers and modes stay what they are.

    interval: draw after each so many epochs; a run that counts iterations draws at each validation.
    max_images: whose gates are recorded, spread over the batches.

    Raises ValueError for numbers out of range and for a model without grouped layers.
    """

    priority = 'LOW'
    reads_gates = True

    def __init__(self, interval: int = 1, max_images: int = 64) -> None:
        for name, number in dict(interval=interval, max_images=max_images).items():
            if not isinstance(number, int) or number < 1:
                raise ValueError(
                    f'GatePicturesHook {name}={number!r}, expected an integer of 1 or more'
                )
        self.interval = interval
        self.max_images = max_images
        self._loop = None
        self._recorder: GateRecorder | None = None
        self._images: list = []

    def before_run(self, runner) -> None:
        """Refuse a model without grouped layers."""
        GateRecorder(bare_model(runner))

    def before_train(self, runner) -> None:
        """Remember whose steps are counted."""
        self._loop = runner.train_loop

    def before_val_epoch(self, runner) -> None:
        """Start to record."""
        self._stop()
        epoch = self._loop.epoch if self._loop else 0
        if is_main_process() and epoch % self.interval == 0:
            batches = len(runner.val_dataloader)
            self._recorder = GateRecorder(bare_model(runner), self.max_images, batches)
            self._recorder.__enter__()

    def before_val_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Keep the images that are being recorded."""
        if self._recorder:
            model = bare_model(runner)
            self._images += thumbnails(model, data_batch, self._recorder.wanted)

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Draw what was recorded."""
        if not self._recorder:
            return
        layers, images = self._recorder.take(), self._images
        self._stop()
        step = (self._loop.epoch or self._loop.iter) if self._loop else 0
        for name, figure in plot_gates(layers, images).items():
            runner.visualizer.add_image(f'gates_{name}', to_rgb(figure), step)
        scalars = {}
        for layer in layers:
            changing = layer.static and not layer.is_partition
            heads = [layer.amount().mean()] if changing else layer.density()
            for head, share in enumerate(heads):
                scalars[f'gates/{layer.name}/head{head}'] = float(share)
        runner.visualizer.add_scalars(scalars, step=step)

    def _stop(self) -> None:
        if self._recorder:
            self._recorder.__exit__()
        self._recorder, self._images = None, []
