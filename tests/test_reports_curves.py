"""Curves: ticks hold the data, every finite point is inside the axes, gaps stay gaps."""

import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unetctl.reports import curves
from unetctl.reports.curves import Line, draw, linear_ticks, log_ticks

few = settings(deadline=None, max_examples=60)

FINITE = st.floats(-1e12, 1e12, allow_nan=False).map(lambda v: round(v, 6))


@few
@given(FINITE, FINITE)
def test_ticks_hold_the_data_between_them_and_are_few(a, b):
    low, high = min(a, b), max(a, b)
    ticks = linear_ticks(low, high)
    slack = 1e-6 * max(abs(low), abs(high), 1e-12)
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 12


@few
@given(st.floats(1e-9, 1e9), st.floats(1, 1e9))
def test_logarithmic_ticks_hold_the_data_between_them(low, ratio):
    high = low * ratio
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low * 1.00001
    assert ticks[-1] >= high * 0.99999
    assert 2 <= len(ticks) <= 13


@few
@given(st.lists(st.one_of(FINITE, st.just(math.nan), st.just(math.inf)), min_size=1, max_size=60), st.booleans())
def test_every_finite_point_is_drawn_inside_the_axes(values, may_log):
    points = tuple((float(i + 1), value) for i, value in enumerate(values))
    chart = draw([Line("loss", points)], "Loss", "loss", may_log=may_log, x_range=(1, len(values)), mark=(1.0, "best"))
    assert chart.is_drawn == any(math.isfinite(value) for value in values)
    if chart.is_drawn:
        inner = [float(n) for n in re.findall(r"[-\d.]+(?:e[-+]?\d+)?", chart.lines[0].path)]
        places = list(zip(inner[::2], inner[1::2], strict=True)) + [(dot.x, dot.y) for dot in chart.lines[0].dots]
        assert len(set(places)) <= sum(math.isfinite(value) for value in values)
        assert all(chart.left <= x <= curves.WIDTH - curves.RIGHT for x, _ in places)
        assert all(curves.TOP - 0.5 <= y <= curves.HEIGHT - curves.BOTTOM + 0.5 for _, y in places)
        assert all(chart.left <= tick.at <= curves.WIDTH - curves.RIGHT for tick in chart.x_ticks)
        assert all(float(tick.text).is_integer() for tick in chart.x_ticks)


@few
@given(FINITE, st.floats(1e-6, 1e6))
def test_numbers_at_an_axis_differ_and_leave_room_for_its_name(low, reach):
    assume(reach > 1e-9 * abs(low))  # what is nearer no figure tells apart
    chart = draw([Line("a", ((1.0, low), (2.0, low + reach)))], "A", "a")
    texts = [tick.text for tick in chart.y_ticks]
    assert len(set(texts)) == len(texts)
    assert curves.LEFT <= chart.left < curves.WIDTH / 2
    assert chart.left - 7 - 5.9 * max(map(len, texts)) >= 18


def test_a_gap_is_not_bridged():
    chart = draw([Line("a", ((1, 1.0), (2, 2.0), (3, math.nan), (4, 1.5), (5, 1.0)))], "A", "a")
    assert chart.lines[0].path.count("M") == 2


def test_higher_values_are_drawn_higher_and_the_mark_sits_on_the_curve():
    chart = draw([Line("a", ((1, 0.2), (2, 0.9), (3, 0.4)))], "A", "a", mark=(2, "best epoch 2: 0.9"))
    first, best, last = chart.lines[0].dots
    assert best.y < last.y < first.y
    assert first.x < best.x < last.x
    assert chart.mark is not None
    assert (chart.mark.x, chart.mark.y) == (best.x, best.y)


@pytest.mark.parametrize("at", range(1, 101, 9))
def test_the_words_of_the_mark_stay_inside(at):
    text = "best epoch 100: 0.9863"
    chart = draw([Line("a", tuple((i, 1.0) for i in range(1, 101)))], "A", "a", mark=(at, text))
    mark = chart.mark
    assert mark is not None
    width = 6.4 * len(text)
    left = mark.text_x - {"start": 0, "middle": width / 2, "end": width}[mark.anchor]
    assert left >= chart.left - 1
    assert left + width <= curves.WIDTH - curves.RIGHT + 1


def test_losses_of_many_sizes_get_a_logarithmic_axis_and_say_so():
    line = Line("loss", ((1, 100.0), (2, 1.0), (3, 0.1)))
    assert "logarithmic" in draw([line], "Loss", "loss", hint="lower is better", may_log=True).hint
    assert "logarithmic" not in draw([line], "Loss", "loss").hint
    assert "logarithmic" not in draw([Line("loss", ((1, 100.0), (2, 0.0)))], "Loss", "loss", may_log=True).hint
