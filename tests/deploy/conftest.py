import contextlib

import numpy as np
import pytest

with contextlib.suppress(ModuleNotFoundError):  # where they are missing, the tests are skipped
    import onnx
    import onnx_ir as ir
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from mmdet_groupconv.deploy.graph import read


class Net:
    """A small graph, node by node; each method returns the name of what it makes."""

    def __init__(self, channels=3, seed=0):
        self.nodes, self.constants = [], []
        self.channels = {'images': channels}
        self.rng = np.random.default_rng(seed)

    def constant(self, array):
        name = f'constant_{len(self.constants)}'
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind, *inputs, **attrs):
        name = f'{kind}_{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, inputs, [name], **attrs))
        self.channels[name] = self.channels.get(inputs[0]) if inputs else None
        return name

    def conv(self, x, weight, bias=True, stride=1, group=1, padding=None):
        """weight: ``[K, C, k, k]``, or the name of a constant or a tensor with one filter each.

        bias: random, none, or the name of a constant.
        """
        inputs = [x, weight if isinstance(weight, str) else self.constant(weight)]
        if isinstance(weight, str):
            made = next((n.input[0] for n in self.nodes if weight in n.output), weight)
            weight = next(numpy_helper.to_array(c) for c in self.constants if c.name == made)
        if isinstance(bias, str):
            inputs.append(bias)
        elif bias:
            inputs.append(self.constant(self.rng.standard_normal(len(weight), np.float32)))
        size = weight.shape[2]
        pads = [size // 2 if padding is None else padding] * 4
        name = self.node('Conv', *inputs, strides=[stride] * 2, pads=pads, group=group)
        self.channels[name] = len(weight)
        return name

    def quantised(self, x, scale=0.05, zero=128):
        """A map in uint8, and floats again."""
        inputs = [self.constant(np.float32(scale)), self.constant(np.uint8(zero))]
        return self.node('DequantizeLinear', self.node('QuantizeLinear', x, *inputs), *inputs)

    def whole(self, weight):
        """The name of a weight in int8, with a scale a filter."""
        scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), 1e-3) / 127
        whole = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        inputs = [self.constant(whole), self.constant(scale.astype(np.float32))]
        return self.node('DequantizeLinear', *inputs, axis=0)

    def weight(self, connected, size=1):
        """Random, scaled so that outputs are about as large as inputs; ``[K, C]`` -> 4-D."""
        connected = np.asarray(connected, bool)
        random = self.rng.standard_normal((*connected.shape, size, size), np.float32)
        scale = np.sqrt(np.maximum(connected.sum(axis=1), 1) * size**2)[:, None, None, None]
        return (random * connected[..., None, None] / scale).astype(np.float32)

    def dense(self, filters, channels, size=1):
        return self.weight(np.ones((filters, channels)), size)

    def groups(self, filters, channels, groups, size=1, mixed=True):
        """Connected within groups alone, which filters and channels are in at random."""
        sides = [np.arange(n) * groups // n for n in (filters, channels)]
        of_filter, of_channel = (self.rng.permutation(s) if mixed else s for s in sides)
        return self.weight(of_filter[:, None] == of_channel, size)

    def graph(self, *outputs, batch='batch'):
        dims = [batch, self.channels['images'], 'height', 'width']
        return helper.make_graph(
            self.nodes,
            'net',
            [helper.make_tensor_value_info('images', TensorProto.FLOAT, dims)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4)
                for name in outputs
            ],
            self.constants,
        )

    def model(self, *outputs, batch='batch'):
        """Of a graph that is checked."""
        graph = self.graph(*outputs, batch=batch)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
        onnx.checker.check_model(model)
        return read(model)


@pytest.fixture(scope='module', autouse=True)
def blocks_of_16():
    """As CPUs with AVX-512 have them, whatever this one has."""
    from mmdet_groupconv.compiler import parting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parting, 'BLOCK', 16)
        yield


@pytest.fixture(scope='session')
def net():
    """The class of small graphs."""
    return Net


@pytest.fixture(scope='session')
def run():
    return _run


def _run(model, images, in_floats=False):
    """A model's (or a file's) outputs by name; `in_floats`: integers, too, which may saturate."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if in_floats:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(model, ir.Model):
        model = ir.to_proto(model)
        onnx.checker.check_model(model)
        model = model.SerializeToString()
    session = onnxruntime.InferenceSession(model, options, ['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {'images': np.asarray(images)}), strict=True))


@pytest.fixture(scope='session')
def assert_same():
    return _assert_same


def _assert_same(found, expected, tolerance=1e-4):
    """found, expected: outputs by name. tolerance: relative to the largest value of each."""
    assert list(found) == list(expected)
    for name, other in expected.items():
        assert found[name].shape == other.shape, name
        assert np.isfinite(other).all(), name
        scale = float(np.abs(other).max()) or 1.0
        assert float(np.abs(found[name] - other).max()) <= tolerance * scale, name


@pytest.fixture(scope='session')
def connections():
    return _connections


def _connections(model):
    """Weights of each convolution of a graph, multiplied with each position: its MACs."""
    return [node.inputs[1].const_value.size for node in model.graph if node.op_type == 'Conv']
