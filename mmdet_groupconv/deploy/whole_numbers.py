"""What surrounds the layers of an int8 file, in whole numbers as well."""

import onnx_ir as ir

from .graph import constant, looks_at_values


def pad_whole_numbers(model: ir.Model) -> None:
    """Have zeros added, in place, after whole numbers were made of a map, and not before.

    Runtimes make whole numbers of pixels in one step with the arithmetic before it, if nothing
    comes between; and padding moves a quarter of the bytes. Nothing changes where zero is 0.
    """
    for node in list(model.graph):
        if node.op_type == 'QuantizeLinear' and _is_zero(node.inputs[2:]):
            pad = node.inputs[0].producer()
            if pad is not None and _adds_zeros(pad) and looks_at_values(node):
                _swap(model.graph, pad, node)


def give_whole_numbers(model: ir.Model) -> None:
    """Have outputs that are quantised for layers be what these read, in place.

    Else what makes them has to give them in floats, too, which takes longer than it does itself.
    """
    for position, value in enumerate(model.graph.outputs):
        quantisers = [node for node in value.consumers() if node.op_type == 'QuantizeLinear']
        # Convolutions are known by the names of their outputs.
        if quantisers and value.producer().op_type != 'Conv':
            (floats,) = quantisers[0].outputs[0].consumers()
            whole, name = floats.outputs[0], value.name
            value.name, whole.name = f'{name}_before', name
            whole.type, whole.shape = value.type, value.shape
            model.graph.outputs[position] = whole


def _adds_zeros(node: ir.Node) -> bool:
    """Whether a node pads with zeros what one node alone reads."""
    y = node.outputs[0]
    alone = not y.is_graph_output() and len(y.uses()) == 1
    plain = node.op_type == 'Pad' and node.attributes.get_string('mode', 'constant') == 'constant'
    return alone and plain and _is_zero(node.inputs[2:])


def _is_zero(values: list[ir.Value | None]) -> bool:
    """Whether the value that may be left out, or all of it, is 0."""
    known = [constant(value) for value in values if value is not None]
    return all(value is not None and not value.any() for value in known)


def _swap(graph: ir.Graph, pad: ir.Node, quantiser: ir.Node) -> None:
    whole, padded = quantiser.outputs[0], pad.outputs[0]
    whole.replace_all_uses_with(padded)
    quantiser.replace_input_with(0, pad.inputs[0])
    pad.replace_input_with(0, whole)
    if len(pad.inputs) > 2:
        pad.replace_input_with(2, None)  # it is of another type, and 0 anyway
    padded.type, padded.shape = whole.type, None
    graph.remove(pad)
    graph.insert_after(quantiser, pad)
