"""How a tensor looks as text and in a notebook."""

from __future__ import annotations

import html.parser

import pytest

import chainrule as cr


@pytest.mark.parametrize(
    "tensor, text",
    [
        (cr.asarray([[0.5, 0.25]]), "Tensor([[0.5 , 0.25]], dtype=float32)"),
        (cr.asarray(3), "Tensor(3, dtype=int64)"),
        (cr.asarray([True, False]), "Tensor([ True, False], dtype=bool)"),
        (cr.asarray(1 - 2j), "Tensor(1.-2.j, dtype=complex64)"),
        (cr.zeros((0, 3)), "Tensor([], shape=(0, 3), dtype=float32)"),
        (cr.asarray([1.0, cr.nan, -cr.inf]), "Tensor([  1.,  nan, -inf], dtype=float32)"),
        (
            cr.asarray([1.5], requires_grad=True),
            "Tensor([1.5], dtype=float32, requires_grad=True)",
        ),
        (
            cr.asarray([1.5], requires_grad=True) * 2,
            "Tensor([3.], dtype=float32, grad_fn=mul)",
        ),
        (
            cr.asarray([[1, 2], [3, 4]], dtype=cr.int8),
            "Tensor([[1, 2],\n        [3, 4]], dtype=int8)",
        ),
    ],
)
def test_text(tensor, text):
    assert repr(tensor) == text
    assert str(tensor) == text


def test_long_tensors_are_shortened_and_tell_their_shape():
    text = repr(cr.zeros((100, 100)))
    assert "..." in text
    assert text.endswith(", shape=(100, 100), dtype=float32)")
    assert len(text) < 700
    assert max(map(len, repr(cr.ones((3, 40))).splitlines())) <= 88 + len(", dtype=float32)")


def test_format():
    assert f"{cr.asarray(1.23456):.2f}" == "1.23"
    assert f"{cr.asarray([7]):03d}" == "007"
    assert f"{cr.asarray([1.0, 2.0])}" == "Tensor([1., 2.], dtype=float32)"


class Outline(html.parser.HTMLParser):
    """The tags and the text of a piece of HTML; refuses tags that do not close."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(source)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_of_a_matrix():
    page = Outline(cr.asarray([[1.0, -2.0], [0.0, cr.nan]])._repr_html_())
    assert page.tags.count("tr") == 2
    assert page.tags.count("td") == 4
    assert "(2, 2)" in page.text
    assert "dtype=float32" in page.text
    for number in ("1", "-2", "0", "nan"):
        assert number in page.text


@pytest.mark.parametrize(
    "tensor, words",
    [
        (cr.asarray(2.5), "2.5"),
        (cr.zeros((0, 2)), "no elements"),
        (cr.zeros((3, 2, 2)), "first of 3 matrices"),
        (cr.zeros((2, 0, 2)), "no elements"),
        (cr.zeros((30, 40)), "…"),
        (cr.asarray([1 + 1j]), "(1+1j)"),
        (cr.asarray([True]), "True"),
        (cr.asarray([2**63 - 1]), str(2**63 - 1)),
    ],
)
def test_html_of_every_kind(tensor, words):
    page = Outline(tensor._repr_html_())
    assert words in page.text
    assert page.tags.count("td") <= 13 * 13


def test_html_lets_no_markup_in():
    forward = staticmethod(lambda ctx, x: x * 2)
    evil = type("<script>alert(1)</script>", (cr.autograd.Function,), {"forward": forward})
    z = evil.apply(cr.ones((2,), requires_grad=True))
    page = Outline(z._repr_html_())
    assert "script" not in page.tags
    assert "<script>" in page.text


def test_habits_from_elsewhere_are_answered():
    x = cr.ones((2,))
    for name, hint in (("view", "x.reshape"), ("topk", "cr.argsort"), ("data", "x.detach()")):
        with pytest.raises(AttributeError, match=name) as caught:
            getattr(x, name)
        assert hint in str(caught.value)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = x.nonsense
