"""Option values and environment variables, read and written."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unetctl.cli import environment, words
from unetctl.errors import UsageError


@given(st.integers(1, 10**6), st.data())
def test_every_part_of_n_is_read(n: int, data: st.DataObject):
    i = data.draw(st.integers(1, n))
    assert words.parse_part(f"{i}/{n}") == (i, n)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/3/5", ""])
def test_what_is_no_part_is_refused(text: str):
    with pytest.raises(UsageError, match="1/n to n/n"):
        words.parse_part(text)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=6))
def test_channels_are_read(channels: list[int]):
    assert words.parse_channels(" , ".join(map(str, channels))) == tuple(channels)


@pytest.mark.parametrize("text", ["", "red", "1,", "1;2", "-1"])
def test_what_is_no_channel_is_refused(text: str):
    with pytest.raises(UsageError, match="--channel"):
        words.parse_channels(text)


def test_shapes_are_read():
    assert words.parse_shape("6,512,640") == words.parse_shape("6x512x640") == (6, 512, 640)
    assert words.parse_shape("1000,700") == (1000, 700)
    for text in ("512", "6,512,a", "1,2,3,4", ""):
        with pytest.raises(UsageError, match="--shape"):
            words.parse_shape(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90), ("45s", 45), ("30min", 1800), ("30m", 1800), ("7.5h", 27000), ("1d", 86400), ("1h30min", 5400),
        ("2:30:00", 9000), ("1-00:00:30", 86430), (" 2 H ", 7200),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float):
    assert words.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "0", "5 parsecs", "-3h", "1:2:3"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(UsageError, match="duration"):
        words.parse_duration(text)


@given(st.floats(0, 1e7))
def test_durations_are_written_close_to_what_they_are(seconds: float):
    text = words.duration(seconds).replace(" ", "")
    read = words.parse_duration(text) if any(c in "123456789" for c in text) else 0.0
    assert read == pytest.approx(seconds, rel=0.03, abs=0.6)


@given(st.text())
def test_shown_text_is_harmless_and_keeps_what_is_legible(text: str):
    shown = words.shown(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert shown == text or not text.isprintable()
    shown.encode()


# Where in an array of n evenly spaced tasks.
arrays = st.tuples(st.integers(0, 100), st.integers(1, 7), st.integers(1, 50)).flatmap(
    lambda a: st.tuples(st.just(a), st.integers(0, a[2] - 1))
)


@given(arrays)
def test_slurm_and_grid_engine_tasks_are_counted_from_their_first(array: tuple[tuple[int, int, int], int]):
    (low, step, num), i = array
    index, last = low + i * step, low + (num - 1) * step
    slurm = {
        "SLURM_ARRAY_TASK_ID": index, "SLURM_ARRAY_TASK_MIN": low, "SLURM_ARRAY_TASK_MAX": last,
        "SLURM_ARRAY_TASK_STEP": step, "SLURM_ARRAY_TASK_COUNT": num,
    }  # fmt: skip
    engine = {"SGE_TASK_ID": index, "SGE_TASK_FIRST": low, "SGE_TASK_LAST": last, "SGE_TASK_STEPSIZE": step}
    for variables in (slurm, engine):
        assert environment.array_part({k: str(v) for k, v in variables.items()}) == (i + 1, num)


def test_grid_engine_says_undefined_outside_of_arrays():
    env = {"SGE_TASK_ID": "undefined", "SGE_TASK_FIRST": "undefined"}
    assert environment.array_task(env) is None
    with pytest.raises(UsageError, match="no task of a job array"):
        environment.array_part(env)


def test_aws_batch_tasks_are_counted_from_zero():
    env = {"AWS_BATCH_JOB_ARRAY_INDEX": "0", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}
    assert environment.array_part(env) == (1, 10)
    assert environment.array_part({**env, "AWS_BATCH_JOB_ARRAY_INDEX": "9"}) == (10, 10)


@pytest.mark.parametrize(
    ("env", "hint"),
    [
        ({"PBS_ARRAY_INDEX": "3"}, r"--part \$PBS_ARRAY_INDEX/N"),
        ({"PBS_ARRAYID": "3"}, r"--part \$PBS_ARRAYID/N"),
        ({"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, r"--part \$AWS_BATCH_JOB_ARRAY_INDEX/N"),
        ({"SLURM_ARRAY_TASK_ID": "3"}, "--part 1/8"),
        # --array=1,3,7: three tasks, and no step that leads from one to the next
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_MIN": "1",
                "SLURM_ARRAY_TASK_MAX": "7",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            "not evenly spaced",
        ),
    ],
)
def test_arrays_that_do_not_say_how_many_are_refused_with_the_explicit_form(env: dict[str, str], hint: str):
    assert environment.array_task(env) is not None
    with pytest.raises(UsageError, match=hint):
        environment.array_part(env)


@pytest.mark.parametrize(
    ("env", "mebibytes"),
    [
        ({}, None),
        ({"SLURM_MEM_PER_NODE": "4096"}, 4096),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "32"}, 2000),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_ON_NODE": "32"}, 16000),
        ({"SLURM_MEM_PER_CPU": "500"}, 500),
        ({"SLURM_MEM_PER_NODE": "plenty"}, None),
    ],
)
def test_the_schedulers_memory_is_read(env: dict[str, str], mebibytes: int | None):
    assert environment.scheduler_memory(env) == (None if mebibytes is None else mebibytes << 20)


def test_colour_needs_a_terminal_that_wants_it():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert environment.wants_colour({"TERM": "xterm"}, Terminal())
    assert environment.wants_colour({"NO_COLOR": ""}, Terminal())
    assert not environment.wants_colour({"NO_COLOR": "0"}, Terminal())
    assert not environment.wants_colour({"TERM": "dumb"}, Terminal())
    assert not environment.wants_colour({}, io.StringIO())
    closed = Terminal()
    closed.close()
    assert not environment.is_terminal({}, io.StringIO())
