"""What surrounds the layers of an int8 file, in whole numbers as well."""

import onnx_ir as ir

from .graph import constant, looks_at_values


def pad_whole_numbers(model: ir.Model) -> None:
    """Have zeros added, in place, after whole numbers were made of a map, and not before.

    Runtimes make whole numbers of pixels in one step with the arithmetic before it, if nothing
    comes between; and padding moves a quarter of the bytes. Nothing changes where zero is 0.
    """
    for node in list(model.graph):
        if _is_quantiser(node) and _is_zero(node.inputs[2:]):
            pad = node.inputs[0].producer()
            if pad is not None and _adds_zeros(pad):
                _swap(model.graph, pad, node)


def give_whole_numbers(model: ir.Model) -> None:
    """Have outputs that are quantised for layers be what these read, in place.

    Else what makes them has to give them in floats, too, which takes longer than it does itself;
    and where they are put in order first, whole numbers are.
    """
    for position, value in enumerate(model.graph.outputs):
        node = value.producer()
        gathers = node.op_type == 'Gather'
        source = node.inputs[0] if gathers else value
        quantisers = [reader for reader in source.consumers() if _is_quantiser(reader)]
        # Convolutions are known by the names of their outputs.
        if not quantisers or node.op_type == 'Conv':
            continue
        whole = quantisers[0].outputs[0]
        floats = whole.consumers()[0].outputs[0]
        if gathers:
            settings = quantisers[0].inputs[1:]
            floats = ir.tape.Tape(model.graph).op('DequantizeLinear', [value, *settings])
            node.replace_input_with(0, whole)
        value.name, floats.name = f'{value.name}_before', value.name
        floats.type, floats.shape = value.type, value.shape
        value.type = value.shape = None  # which runtimes infer
        model.graph.outputs[position] = floats
    model.graph.sort()


def _is_quantiser(node: ir.Node) -> bool:
    return node.op_type == 'QuantizeLinear' and looks_at_values(node)


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
