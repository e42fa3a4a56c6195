"""Augmentation through the loader: the same whatever the threads, batches and interruptions."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

import chainrule as cr
from chainrule import data
from chainrule.data import transforms


class Own(data.Dataset):
    """Samples one by one, in a time that differs from sample to sample."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        time.sleep(0.001 * ((index * 7) % 5))
        return np.full(2, index, np.float32), index


def images(n=12):
    rng = np.random.default_rng(0)
    return data.TensorDataset(rng.random((n, 1, 8, 8), np.float32), np.arange(n))


AUGMENT = transforms.Compose(
    [
        transforms.RandomCrop(8, padding=2),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(20),
        transforms.RandomErasing(0.9),
        transforms.GaussianNoise(sigma=0.1),
    ]
)


def by_label(loader):
    return {int(label): x for xs, ys in loader for x, label in zip(xs.numpy(), ys, strict=True)}


def same(one, two):
    assert one.keys() == two.keys()
    return all((one[key] == two[key]).all() for key in one)


def test_augmentation_depends_on_seed_epoch_and_sample_alone():
    dataset = images().with_transform(AUGMENT)

    def run(batch_size=5, epoch=0, **options):
        loader = data.DataLoader(dataset, batch_size, **({"shuffle": True} | options))
        loader.set_epoch(epoch)
        return by_label(loader)

    reference = run()
    assert same(run(batch_size=1), reference)
    assert same(run(num_workers=3), reference)
    assert same(run(shuffle=False), reference)
    assert same(run(collate_fn=data.default_collate), reference)
    assert not same(run(epoch=1), reference)
    assert not same(run(seed=1), reference)
    assert same(run(epoch=1, num_workers=2, batch_size=7), run(epoch=1))
    # Through a subset and a concatenation, samples keep their own numbers.
    subset = data.DataLoader(data.Subset(dataset, [3, 8]), 2)
    assert same(by_label(subset), {3: reference[3], 8: reference[8]})
    both = data.ConcatDataset([data.Subset(dataset, [8, 1]), data.Subset(dataset, [4])])
    assert same(by_label(data.DataLoader(both, 3)), {i: reference[i] for i in (8, 1, 4)})


def test_a_transform_over_another_draws_its_own_numbers():
    flip = transforms.RandomHorizontalFlip
    dataset = images(200)
    twice = data.Subset(dataset.with_transform(flip()), range(200)).with_transform(flip())
    x = next(iter(data.DataLoader(twice, 200)))[0].numpy()
    changed = (x != dataset.tensors[0]).any((1, 2, 3)).sum()
    assert 60 < changed < 140  # the second flip does not undo the first


def test_augmentation_resumes():
    def build():
        dataset = images().with_transform(AUGMENT)
        return data.DataLoader(dataset, 3, shuffle=True, num_workers=2)

    whole = build()
    expected = [x.numpy() for _ in range(2) for x, _ in whole]
    loader = build()
    got = [x.numpy() for x, _ in itertools.islice(loader, 2)]
    resumed = build()
    resumed.load_state_dict(loader.state_dict())
    got += [x.numpy() for _ in range(2) for x, _ in resumed]
    assert len(got) == len(expected)
    assert all((a == b).all() for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("options", [{}, {"collate_fn": data.default_collate}, {"num_workers": 2}])
def test_a_sample_drawn_twice_is_augmented_in_two_ways(options):
    dataset = images().with_transform(transforms.GaussianNoise(sigma=0.1))
    loader = data.DataLoader(dataset, 3, sampler=[4, 4, 1, 4, 1, 2], **options)
    xs = np.concatenate([x.numpy() for x, _ in loader])
    assert (xs[0] != xs[1]).any() and (xs[1] != xs[3]).any() and (xs[2] != xs[4]).any()
    once = data.DataLoader(dataset, 3, sampler=[1, 2, 4])
    np.testing.assert_array_equal(next(iter(once))[0].numpy(), xs[[2, 5, 0]])


def test_repeats_reach_the_parts_of_a_concatenation():
    part = images().with_transform(transforms.GaussianNoise(sigma=0.1))
    both = data.ConcatDataset([part, part])
    xs = next(iter(data.DataLoader(both, 5, sampler=[13, 2, 13, 2, 13])))[0].numpy()
    assert (xs[0] != xs[2]).any() and (xs[2] != xs[4]).any() and (xs[1] != xs[3]).any()


def test_transforms_called_in_a_users_own_data_set():
    """Keyed by sample and call: the same on any number of threads, and different calls differ."""

    class Augmented(Own):
        noise = transforms.GaussianNoise(sigma=1.0, clip=False)

        def __getitem__(self, index):
            blank = np.zeros((1, 4, 4), np.float32)
            return np.stack([self.noise(blank), self.noise(blank)]), index

    runs = [by_label(data.DataLoader(Augmented(), 3, num_workers=w)) for w in (0, 3)]
    assert same(*runs)
    pairs = [x for x in runs[0].values()]
    assert all((pair[0] != pair[1]).any() for pair in pairs)
    assert len({pair.tobytes() for pair in pairs}) == len(pairs)


def test_mixup_in_the_loader():
    dataset = images(8)
    build = lambda workers: data.DataLoader(  # noqa: E731
        dataset, 4, batch_transform=transforms.Mixup(8), num_workers=workers
    )
    first = [(x.numpy(), y.numpy()) for x, y in build(0)]
    again = [(x.numpy(), y.numpy()) for x, y in build(2)]
    for (x, y), (x2, y2) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)
        np.testing.assert_allclose(y.sum(1), 1, rtol=1e-6)
    # One lambda a batch, and the label says which: blend by hand.
    share = first[0][1][0, 0]
    raw = dataset[:4][0]
    np.testing.assert_allclose(
        first[0][0], share * raw + (1 - share) * np.roll(raw, 1, 0), rtol=1e-5
    )
    assert first[0][1][0, 0] != first[1][1][0, 4]


def test_batch_transform_may_be_any_function():
    dataset = data.TensorDataset(np.arange(8, dtype=np.float32).reshape(4, 2), np.arange(4))
    loader = data.DataLoader(dataset, 2, batch_transform=lambda batch: (batch[0] * 2, batch[1]))
    x, _ = next(iter(loader))
    assert isinstance(x, cr.Tensor) and x.tolist() == [[0, 2], [4, 6]]
