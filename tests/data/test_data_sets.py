"""Data sets, subsets, splits: samples, batches and what the same arguments always give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import data
from chainrule.data import transforms
from chainrule.data.dataset import resolve_indices
from chainrule.data.splits import split_indices
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    ChainruleWarning,
    DataError,
    IndexingError,
    ShapeError,
)


class Squares(data.Dataset):
    """A data set as a user writes it: samples one by one."""

    def __init__(self, n=10):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return np.full(3, index, np.float32), index**2


def make(n=10, classes=2):
    x = np.arange(n * 3, dtype=np.float32).reshape(n, 3)
    return data.TensorDataset(x, np.arange(n) % classes, name="made", classes=["a", "b"][:classes])


def test_tensor_dataset_samples_and_batches():
    x, y = np.arange(12.0).reshape(4, 3), np.array([1, 0, 1, 0])
    dataset = data.TensorDataset(x, y)
    assert len(dataset) == 4 and dataset.shape == (3,) and dataset.batched
    sample = dataset[2]
    assert isinstance(sample, tuple)
    np.testing.assert_array_equal(sample[0], x[2])
    assert sample[1] == 1 and dataset[-1][1] == 0
    for index in (slice(1, 3), [1, 2], np.array([1, 2]), np.array([False, True, True, False])):
        got_x, got_y = dataset[index]
        np.testing.assert_array_equal(got_x, x[1:3])
        np.testing.assert_array_equal(got_y, y[1:3])
    assert [label for _, label in dataset] == [1, 0, 1, 0]


def test_tensor_dataset_of_tensors():
    x = cr.asarray([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    dataset = data.TensorDataset(x, cr.asarray([0, 1]))
    assert isinstance(dataset[0][0], cr.Tensor)
    np.testing.assert_array_equal(dataset.batch(np.array([1, 0]))[0], [[3, 4], [1, 2]])


def test_tensor_dataset_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match=r"\(3, 2\), \(4,\)"):
        data.TensorDataset(np.zeros((3, 2)), np.zeros(4))
    with pytest.raises(ShapeError):
        data.TensorDataset(np.float32(1))
    with pytest.raises(ArgumentError):
        data.TensorDataset()


@pytest.mark.parametrize("index", [10, -11, [0, 10], np.array([-11])])
def test_index_outside_is_named(index):
    dataset = make()
    with pytest.raises(IndexError, match=r"(10|-11) is outside .* 10 samples"):
        dataset[index]
    with pytest.raises(IndexingError):
        data.Subset(dataset, np.atleast_1d(index))


@pytest.mark.parametrize("index", [1.5, "a", np.zeros((2, 2), int), [[0]]])
def test_index_of_another_kind_is_refused(index):
    with pytest.raises(IndexingError, match="is indexed by"):
        make()[index]


@given(st.data())
def test_resolve_indices_agrees_with_numpy(draw):
    n = draw.draw(st.integers(1, 8))
    index = draw.draw(
        st.one_of(
            st.integers(-n, n - 1),
            st.lists(st.integers(-n, n - 1), max_size=6),
            st.slices(n),
            st.lists(st.booleans(), min_size=n, max_size=n).map(lambda v: np.array(v, bool)),
        )
    )
    expected = np.arange(n)[index if not isinstance(index, list) else np.array(index, np.int64)]
    np.testing.assert_array_equal(resolve_indices(index, n, "it"), expected)


def test_task_is_guessed_from_whole_number_labels():
    x = np.zeros((3, 2))
    assert data.TensorDataset(x, np.array([0, 1, 2])).task == "classification"
    assert data.TensorDataset(x, np.array([0.0, 1, 2])).task is None
    assert data.TensorDataset(x).task is None
    assert data.TensorDataset(x, np.array([0, 1, 2]), task="regression").task == "regression"


def test_own_data_set_is_batched_by_stacking():
    dataset = Squares()
    assert not dataset.batched and dataset.shape == (3,)
    x, y = dataset.batch(np.array([3, 1]))
    np.testing.assert_array_equal(x, [[3, 3, 3], [1, 1, 1]])
    np.testing.assert_array_equal(y, [9, 1])
    np.testing.assert_array_equal(dataset.labels, np.arange(10) ** 2)


def test_base_class_says_what_to_define():
    with pytest.raises(NotImplementedError, match="__getitem__"):
        data.Dataset()[0]
    with pytest.raises(NotImplementedError, match="__len__"):
        len(data.Dataset())


@pytest.mark.parametrize("dataset", [make(), Squares()], ids=["arrays", "own"])
def test_subset(dataset):
    subset = data.Subset(dataset, [7, 2, -1])
    assert len(subset) == 3 and subset.indices.tolist() == [7, 2, 9]
    np.testing.assert_array_equal(subset[0][0], dataset[7][0])
    np.testing.assert_array_equal(subset[1:][0], dataset.batch(np.array([2, 9]))[0])
    inner = data.Subset(subset, [2])
    np.testing.assert_array_equal(inner[0][0], dataset[9][0])
    np.testing.assert_array_equal(inner.labels, dataset.labels[[9]])
    assert subset.name == dataset.name and subset.task == dataset.task
    assert len(data.Subset(dataset, [])) == 0


def test_subset_of_anything_with_getitem():
    subset = data.Subset(["a", "b", "c"], range(2, 0, -1))
    assert subset[0] == "c" and subset.batch(np.array([0, 1])) == ["c", "b"]


@pytest.mark.parametrize("kinds", [(make, make), (Squares, make)], ids=["arrays", "mixed"])
def test_concatenation(kinds):
    first, second = kinds[0](3), kinds[1](4)
    both = first + second
    assert len(both) == 7 and both.cumulative_sizes == [3, 7]
    np.testing.assert_array_equal(both[4][0], second[1][0])
    np.testing.assert_array_equal(both[-1][0], second[3][0])
    indices = np.array([6, 0, 3, 2, 5, 0])
    expected = np.stack([both[i][0] for i in indices])
    np.testing.assert_array_equal(both.batch(indices)[0], expected)
    np.testing.assert_array_equal(both.labels, np.concatenate([first.labels, second.labels]))


def test_concatenation_of_different_shapes_is_an_error():
    both = data.TensorDataset(np.zeros((2, 3))) + data.TensorDataset(np.zeros((2, 4)))
    with pytest.raises(ShapeError, match=r"\(3,\), \(4,\)"):
        both.batch(np.array([0, 2]))
    with pytest.raises(ArgumentError):
        data.ConcatDataset([])


# --- splits ---------------------------------------------------------------------------------------


@given(
    n=st.integers(2, 60),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**64 - 1),
    classes=st.integers(1, 4),
)
def test_split_is_a_partition_with_the_share_of_each_class(n, share, seed, classes):
    labels = np.random.default_rng(n).integers(0, classes, n)
    count = int(np.floor(n * share + 0.5))
    sizes = np.bincount(labels)
    sizes = sizes[sizes > 0]
    if not 0 < count < n or (sizes - 1).sum() < count:
        with pytest.raises(DataError):
            split_indices(n, share, seed, labels)
        return
    train, test = split_indices(n, share, seed, labels)
    assert sorted([*train, *test]) == list(range(n)) and len(test) == count
    assert (np.diff(train) > 0).all() and (np.diff(test) > 0).all()
    for c in np.unique(labels):
        all_of_it, tested = (labels == c).sum(), (labels[test] == c).sum()
        assert tested < all_of_it
        # Within one of the exact share, unless a class must keep its last sample.
        if tested < all_of_it - 1:
            assert tested > all_of_it * count / n - 1


def test_stratified_split_of_even_classes_is_exact():
    labels = np.repeat(np.arange(5), 20)
    dataset = data.TensorDataset(np.arange(100.0), labels)
    train, test = dataset.split(test=0.2, seed=3)
    assert np.bincount(test.labels).tolist() == [4] * 5
    assert np.bincount(train.labels).tolist() == [16] * 5


def test_split_depends_on_the_seed_alone():
    first, again, other = (make(50).split(0.3, seed=s)[1].indices for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # A stratified split takes the same samples of a class whatever the other classes are.
    assert [len(part) for part in make(50).split(7)] == [43, 7]


def test_the_fixed_split_of_the_digits_never_changes():
    """The held-out samples that accuracies are reported on: a change would void all of them."""
    pytest.importorskip("sklearn")
    train, test = data.digits(size=8).split(test=0.2, seed=0)
    assert (len(train), len(test)) == (1438, 359)
    assert np.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert test.indices[:10].tolist() == FIRST_TEN
    assert int(test.indices.sum()) == INDEX_SUM


FIRST_TEN = [0, 2, 9, 11, 20, 21, 38, 43, 54, 62]
INDEX_SUM = 334848


def test_regression_is_split_plainly():
    dataset = data.TensorDataset(np.zeros((10, 1)), np.linspace(0, 1, 10)[:, None])
    train, test = dataset.split(0.2)
    assert (len(train), len(test)) == (8, 2)


@pytest.mark.parametrize("test", [0.0, 1.0, 1.5, -0.1, "x", True, None])
def test_split_share_must_be_a_share(test):
    with pytest.raises(ArgumentError, match="test"):
        make().split(test=test)


def test_split_needs_a_sample_on_both_sides():
    for test in (0.01, 0, 10, -3):
        with pytest.raises(DataError, match="at least one"):
            make().split(test=test, stratify=False)
    with pytest.raises(DataError, match="each of the 2 classes"):
        make(4).split(test=3)


def test_random_split_counts_and_partition():
    parts = data.random_split(make(10), [0.45, 0.35, 0.2], seed=4)
    # floor(4.5), floor(3.5), floor(2.0) = 4, 3, 2; the one that is left goes to the first.
    assert [len(p) for p in parts] == [5, 3, 2]
    assert sorted(i for p in parts for i in p.indices.tolist()) == list(range(10))
    again = data.random_split(make(10), [5, 3, 2], generator=4)
    assert [p.indices.tolist() for p in parts] == [p.indices.tolist() for p in again]


def test_random_split_refuses_wrong_lengths():
    for lengths in ([5, 4], [0.5, 0.4], [11, -1], [0.5, 0.7]):
        with pytest.raises(ArgumentError, match="add up"):
            data.random_split(make(10), lengths)
    with pytest.raises(ArgumentError, match="share 0"):
        data.random_split(make(10), [1.5, -0.5])
    with pytest.warns(ChainruleWarning, match="part 1"):
        data.random_split(make(10), [0.95, 0.05])


def test_generators_give_seeds():
    by_numpy = data.random_split(make(10), [5, 5], generator=np.random.default_rng(0))
    by_ours = data.random_split(make(10), [5, 5], generator=cr.random.Generator(0))
    again = data.random_split(make(10), [5, 5], generator=cr.random.Generator(0))
    assert by_ours[0].indices.tolist() == again[0].indices.tolist()
    assert len(by_numpy[0]) == 5
    for wrong in ("x", 1.5, -1):
        with pytest.raises(ArgumentError):
            data.random_split(make(10), [5, 5], generator=wrong)


# --- transforms of data sets ----------------------------------------------------------------------


def test_plain_functions_see_one_sample_at_a_time():
    shapes = []

    def double(x):
        shapes.append(x.shape)
        return x * 2

    dataset = make(4).with_transform(double, lambda label: label + 10)
    x, y = dataset.batch(np.array([1, 3]))
    np.testing.assert_array_equal(x, make(4)[[1, 3]][0] * 2)
    np.testing.assert_array_equal(y, [11, 11])
    assert shapes == [(3,), (3,)]
    np.testing.assert_array_equal(dataset[3][0], x[1])
    assert dataset[3][1] == 11
    np.testing.assert_array_equal(dataset.labels, make(4).labels + 10)


def test_transform_of_inputs_that_are_no_tuples():
    class Plain(data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return np.float32(index)

    dataset = Plain().with_transform(lambda x: x + 1)
    np.testing.assert_array_equal(dataset.batch(np.array([0, 2])), [1, 3])


def test_transform_may_bring_samples_to_one_shape():
    class Growing(data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return np.ones((1, 4 + index, 5), np.float32), index

    with pytest.raises(ShapeError, match=r"\(1, 4, 5\).*\(1, 5, 5\)"):
        Growing().batch(np.arange(4))
    x, _ = Growing().with_transform(transforms.CenterCrop(4)).batch(np.arange(4))
    assert x.shape == (4, 1, 4, 4)


def test_attributes_pass_through():
    dataset = make(20).with_transform(lambda x: x)
    train, _ = dataset.split(0.5)
    assert (train.name, train.classes, train.task) == ("made", ["a", "b"], "classification")
    assert train.shape == (3,) and "2 classes" in repr(train) and "'made'" in repr(train)


def test_standardize_uses_the_training_set_alone():
    rng = np.random.default_rng(0)
    train = data.TensorDataset(rng.normal(5, 3, (50, 2)), np.zeros(50, int))
    test = data.TensorDataset(rng.normal(9, 1, (20, 2)), np.zeros(20, int))
    a, b = data.standardize(train, test)
    mean, std = train.tensors[0].mean(0), train.tensors[0].std(0)
    np.testing.assert_allclose(a.tensors[0], (train.tensors[0] - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(b.tensors[0], (test.tensors[0] - mean) / std, rtol=1e-6)
    assert a.tensors[0].dtype == np.float32


def test_standardize_leaves_constant_columns_finite():
    x = np.full((7, 1), 0.1)
    (scaled,) = data.standardize(data.TensorDataset(x, np.zeros(7, int)))
    assert np.abs(scaled.tensors[0]).max() < 1e-6


# --- labels and images ----------------------------------------------------------------------------


def test_label_out_of_range_is_named():
    data.check_labels([0, 1, 2], 3)
    with pytest.raises(DataError, match=r"label 3 of sample 1 in mine .* 0 to 2"):
        data.check_labels(np.array([0, 3, 2]), 3, "mine")
    with pytest.raises(DataError, match=r"label -1 of sample 0 .*2 labels"):
        data.check_labels([-1, -1], 3)
    with pytest.raises(DataError, match="float64"):
        data.check_labels([0.0], 3)


def test_image_dataset_scales_bytes():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5) + 100
    dataset = data.ImageDataset(images, [1, 0], classes=["x", "y"])
    x, y = dataset[:]
    np.testing.assert_array_equal(x, images.astype(np.float32) / np.float32(255))
    assert x.dtype == np.float32 and y.dtype == np.int64 and dataset.shape == (3, 4, 5)
    np.testing.assert_array_equal(dataset[1][0], x[1])
    flat = data.ImageDataset(images, [1, 0], flatten=True)
    assert flat.shape == (60,)
    np.testing.assert_array_equal(flat[1][0], x[1].ravel())
    np.testing.assert_array_equal(flat[[1]][0], x[1:].reshape(1, 60))


def test_image_dataset_checks_its_arrays():
    images = np.zeros((2, 1, 4, 4), np.uint8)
    with pytest.raises(ShapeError, match="uint8"):
        data.ImageDataset(images.astype(np.float32), [0, 0])
    with pytest.raises(ShapeError, match="as many labels"):
        data.ImageDataset(images, [0])
    with pytest.raises(DataError, match="out of range"):
        data.ImageDataset(images, [0, 2], classes=["a", "b"])


def test_empty_data_sets_say_so():
    empty = data.TensorDataset(np.zeros((0, 3)), np.zeros(0, int))
    assert len(empty) == 0 and "0 samples" in repr(empty)
    with pytest.raises(DataError):
        empty.split()
    with pytest.raises(ChainruleError, match="empty"):
        _ = Squares(0).shape
    with pytest.raises(DataError, match="empty"):
        data.standardize(empty)
