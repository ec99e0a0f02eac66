"""Pictures by what they show."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmdet_groupconv.analysis import MacReport, pictures
from mmdet_groupconv.analysis.gates import LayerGates
from mmdet_groupconv.analysis.pictures.connectivity import cluster_mask, sort_connectivity
from mmdet_groupconv.analysis.pictures.density import density_table
from mmdet_groupconv.analysis.pictures.macs import with_gate_nets
from mmdet_groupconv.macs import LayerMacs


def gates(name, groups=4, channels=8, images=5, seed=0, **changes):
    rng = np.random.default_rng(seed)
    read = (rng.random((images, groups, channels)) > rng.random((groups, channels))).astype('u1')
    layer = dict(method='MSGC', static=False, read=read, assign=np.arange(8) % groups, macs=10.0)
    return LayerGates(name, **{**layer, **changes})


def partition():
    """Groups of 1, 0 and 3 channels and 2, 1 and 0 filters."""
    read = np.array([[[0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]]], dtype='u1')
    return gates('layer1.0.conv1', static=True, read=read, assign=np.array([0, 1, 0]))


@pytest.fixture(scope='module')
def layers():
    names = [f'backbone.{name}' for name in ('layer1.0.conv1', 'layer1.0.conv2', 'layer2.0.conv1')]
    sizes = zip([*names, 'neck.fpn_convs.0.conv'], (1, 4, 1, 2), strict=True)
    return [gates(name, groups, seed=groups) for name, groups in sizes]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def row_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_density_has_a_row_a_layer_and_numbers(layers):
    left, right, _ = pictures.plot_density(layers).axes
    table = density_table(layers)
    assert table.shape == (4, 4)
    np.testing.assert_allclose(table[1], layers[1].density())
    assert np.isnan(table[3, 2:]).all()
    np.testing.assert_array_equal(left.images[0].get_array().filled(np.nan), table)
    assert row_labels(left) == [
        'layer1.0.conv1', 'layer1.0.conv2', 'layer2.0.conv1', 'neck.fpn_convs.0',
    ]  # fmt: skip
    assert sorted(texts(left)) == sorted(f'{v:.2f}' for v in table.flat if not np.isnan(v))
    assert texts(right) == [f'{layer.amount().mean():.2f}' for layer in layers]


def test_density_of_many_groups_has_no_numbers_but_large_ones_first():
    assign = np.array([0] * 3 + [1] * 5 + list(range(2, 12)))
    layer = gates('layer1.0.conv1', groups=12, assign=assign)
    left = pictures.plot_density([layer]).axes[0]
    assert texts(left) == []
    assert density_table([layer])[0, :2] == pytest.approx(layer.density()[[1, 0]])


def test_connectivity_shows_each_layer_sorted(layers):
    *panels, _ = pictures.plot_connectivity(layers).axes
    assert [axes.get_title(loc='left') for axes in panels] == [
        'layer1.0.conv1', 'layer1.0.conv2', 'layer2.0.conv1', 'neck.fpn_convs.0',
    ]  # fmt: skip
    for axes, layer in zip(panels, layers, strict=True):
        groups, channels = sort_connectivity(layer)
        expected = layer.connectivity()[groups][:, channels]
        shown = np.asarray(axes.images[0].get_array())
        step = np.array(shown.shape) // expected.shape
        np.testing.assert_allclose(shown[:: step[0], :: step[1]], expected, rtol=1e-6)
        assert sorted(groups) == list(range(len(groups)))
        assert sorted(channels) == list(range(8))
        assert axes.images[0].get_extent() == [-0.5, 7.5, len(groups) - 0.5, -0.5]


def test_channels_that_most_filters_read_come_first():
    read = np.array([[[0, 1, 0, 1, 1], [1, 1, 0, 0, 1], [0, 1, 0, 1, 0]]], dtype='u1')
    layer = gates('x', read=read, assign=np.array([0, 0, 1, 2]))
    _, channels = sort_connectivity(layer)
    assert channels.tolist() == [1, 3, 4, 0, 2] or channels.tolist() == [1, 4, 3, 0, 2]


def test_a_partition_becomes_blocks_down_the_diagonal():
    groups, channels = sort_connectivity(partition())
    assert groups.tolist() == [0, 1, 2]
    assert partition().read[0][groups][:, channels].tolist() == [
        [1, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 1, 1, 1],
    ]


def test_clusters_stand_together_with_lines_between_them():
    read = np.array([[[1, 0, 0, 1], [0, 1, 1, 1], [1, 1, 0, 0]]], dtype='u1')
    assign = np.array([0, 1, 2, 1, 1, 2])
    layer = gates('x', static=True, read=read, assign=assign)
    mask, edges = cluster_mask(layer)
    _, channels = sort_connectivity(layer)
    rows = read[0][:, channels]
    assert mask.tolist() == [*[rows[1].tolist()] * 3, *[rows[2].tolist()] * 2, rows[0].tolist()]
    assert edges.tolist() == [3, 5]
    axes = pictures.plot_clusters([layer]).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == [2.5, 4.5]
    assert '3 clusters' in axes.get_xlabel()


def test_variation_bars_are_the_shares(layers):
    (axes,) = pictures.plot_variation(layers).axes
    widths = np.array([[bar.get_width() for bar in bars] for bars in axes.containers]).T
    np.testing.assert_allclose(widths, [layer.variation() for layer in layers])
    np.testing.assert_allclose(widths.sum(axis=1), 1)


def test_images_that_read_least_and_most():
    shares = np.array([0.5, 0.2, 0.9, 0.6, 0.4])
    images = [np.full((6, 8, 3), number, np.uint8) for number in range(5)]
    *thumbnails, histogram = pictures.plot_extreme_images(shares, images, number=6).axes
    shown = [int(axes.images[0].get_array()[0, 0, 0]) for axes in thumbnails]
    assert shown == [1, 4, 2, 3]
    assert [a.get_xlabel() for a in thumbnails] == ['0.200', '0.400', '0.900', '0.600']
    assert sum(bar.get_height() for bar in histogram.patches) == 5


def test_group_sizes_name_empty_groups():
    left, right = pictures.plot_group_sizes([partition()]).axes
    assert [bar.get_width() for bar in left.patches] == [0.25, 0, 0.75]
    assert [bar.get_width() for bar in right.patches] == pytest.approx([2 / 3, 1 / 3, 0])
    assert texts(left) == ['1', '3', '1 empty']
    assert texts(right) == ['2', '1', '2 empty']


@pytest.fixture(scope='module')
def report():
    return MacReport(
        [
            LayerMacs('backbone.conv1', 100, always_on=100),
            LayerMacs('backbone.layer1.0.gate_pool', gate_nets=2),
            LayerMacs('backbone.layer1.0.maskgen1.conv.0', gate_nets=3),
            LayerMacs('backbone.layer1.1.maskgen1.conv.0', gate_nets=4),
            LayerMacs('backbone.layer1.0.conv1', 200, masked=120, unread=50, density=0.6),
            LayerMacs('neck.lateral_convs.0.conv.maskgen.conv.0', gate_nets=6),
            LayerMacs('neck.lateral_convs.0.conv', 300, masked=150, density=0.5),
            LayerMacs('bbox_head.nothing'),
        ]
    )


def test_gate_nets_count_with_their_layer_or_their_stage(report):
    rows = {row.name: row.gate_nets for row in with_gate_nets(report)}
    assert rows == {
        'backbone.conv1': 0,
        'backbone.layer1.gate nets': 9,
        'backbone.layer1.0.conv1': 0,
        'neck.lateral_convs.0.conv': 6,
    }


def test_mac_bars_end_at_the_dense_layer(report):
    above, below = pictures.plot_macs(report).axes
    ends = sum(np.array([bar.get_width() for bar in bars]) for bars in above.containers)
    np.testing.assert_allclose(ends * 1e6, [100, 9, 200, 306])
    unread = dict(zip(('on', 'read', 'nets', 'unread', 'closed'), above.containers, strict=True))
    assert unread['unread'][2].get_width() * 1e6 == pytest.approx(50)
    assert unread['read'][2].get_width() * 1e6 == pytest.approx(70)
    assert row_labels(below) == ['backbone', 'neck']
    assert texts(below)[1].strip() == f'{156 / 300:.2f}'


def test_histories_have_a_panel_a_stage_and_a_curve_a_layer():
    names = 'backbone.layer1.0.conv1', 'backbone.layer1.0.conv2', 'neck.fpn_convs.0.conv'
    history = {name: ([1, 2], [1.0, 0.1 * n]) for n, name in enumerate(names)}
    axes = pictures.plot_density_history(history).axes
    assert [a.get_title(loc='left') for a in axes] == ['layer1', 'neck']
    assert [line.get_label() for line in axes[0].lines] == ['0.conv1', '0.conv2']
    assert axes[1].lines[0].get_ydata().tolist() == [1.0, 0.2]


def test_three_stages_have_three_panels():
    history = {f'layer{n}.0.conv1': ([1], [1.0]) for n in (1, 2, 3)}
    titles = [a.get_title(loc='left') for a in pictures.plot_density_history(history).axes]
    assert titles == ['layer1', 'layer2', 'layer3']


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, {'density', 'connectivity', 'variation', 'images'}),
        (dict(static=True), {'density', 'connectivity', 'clusters'}),
        (vars(partition()), {'density', 'connectivity', 'group_sizes'}),
    ],
)
def test_the_pictures_fit_the_method(change, expected):
    images = [np.zeros((4, 4, 3), np.uint8)] * 5
    layer = gates(**{'name': 'layer1.0.conv1', **change})
    assert set(pictures.plot_gates([layer], images)) == expected


def test_images_that_all_read_as_much_are_not_shown():
    layer = gates('layer1.0.conv1', read=np.tile(partition().read[:, :, :], (5, 1, 1)),
                  assign=np.arange(3))  # fmt: skip
    assert 'images' not in pictures.plot_gates([layer], [np.zeros((4, 4, 3), np.uint8)] * 5)


@pytest.mark.parametrize(('suffix', 'start'), [('png', b'\x89PNG'), ('svg', b'<?xml')])
def test_files_have_the_format_of_their_name(tmp_path, layers, suffix, start):
    path = tmp_path / f'a.{suffix}'
    pictures.save(pictures.plot_variation(layers), path)
    assert path.read_bytes().startswith(start)


def test_a_file_is_whole_or_absent(tmp_path, monkeypatch, layers):
    def fail(figure, path, **_):
        path.write_bytes(b'half')
        raise OSError('No space left on device')

    monkeypatch.setattr(Figure, 'savefig', fail)
    with pytest.raises(OSError, match='No space'):
        pictures.save(pictures.plot_variation(layers), tmp_path / 'a.png')
    assert list(tmp_path.iterdir()) == []


def test_an_array_is_what_the_file_shows(tmp_path, layers):
    figure = pictures.plot_variation(layers)
    array = pictures.to_rgb(figure)
    pictures.save(figure, tmp_path / 'a.png')
    assert array.dtype == np.uint8
    written = plt.imread(tmp_path / 'a.png')[..., :3]
    assert np.abs(array / 255 - written).max() < 0.02


def test_nothing_is_left_to_pyplot(layers):
    pictures.to_rgb(pictures.plot_density(layers))
    assert plt.get_fignums() == []
