"""What is to become of a detector's layers, as it is printed."""

import pytest

from mmdet_groupconv.analysis.plan_table import print_plan
from mmdet_groupconv.grouping import LayerPlan, Plan


@pytest.fixture
def printed(capsys):
    def show(*layers):
        asked = dict(target=0.5, reached=0.75, detector=0.875, input_size=(64, 96), align=8)
        made = Plan('msgc', 'backbone', importance='taylor', images=4, layers=layers, **asked)
        print_plan(made, 'grouped: msgc')
        return capsys.readouterr().out

    return show


def test_a_row_a_layer_then_the_sums(printed):
    text = printed(LayerPlan('stem', 2.5e6, 0.5, 2, kept=0.625), LayerPlan('last', 1.0))
    row = next(line for line in text.splitlines() if 'stem' in line)
    assert [cell.strip() for cell in row.split('│')[1:-1]] == [
        'stem', '2.5', '0.500', '0.625', '2', ''
    ]  # fmt: skip
    assert '0.750 of the backbone at 64x96 (0.5 asked for), 0.875 of the whole detector' in text
    assert 'gates' not in text


def test_what_gates_are_to_keep_is_told_beside_what_is_done_now(printed):
    text = printed(LayerPlan('gated', 2.5e6, gates=0.25), LayerPlan('stem', 1e6, why_dense='small'))
    rows = [line for line in text.splitlines() if '│' in line]
    assert [[cell.strip() for cell in row.split('│')[1:-1]] for row in rows] == [
        ['gated', '2.5', '0.250', '1.000', '-', '1', ''],
        ['stem', '1.0', '-', '1.000', '-', '1', 'small'],
    ]
    assert 'gates to keep' in text
    assert '(0.5 asked for, while the fine-tuning closes gates)' in text
