import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.media import split_windows
from weft.media.windows import MIN_SAMPLES


@given(n=st.integers(0, 3_000_000), window=st.integers(1, 500_000).filter(lambda w: w > 100))
def test_windows_cover_everything_exactly_once(n, window):
    if n // window > 5000:
        return
    windows = split_windows(n, window)
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert all(0 < end - start <= window for start, end in windows)
    if n == 0:
        assert windows == []
    else:
        assert windows[0][0] == 0 and windows[-1][1] == n
        assert len(windows) == -(-n // window)


@given(n=st.integers(480001, 5_000_000))
def test_no_window_of_a_long_clip_is_too_short_to_hear(n):
    windows = split_windows(n, 480000)
    assert min(end - start for start, end in windows) >= MIN_SAMPLES
    assert all(start % 160 == 0 for start, _ in windows)


@pytest.mark.parametrize(
    ("n", "windows"),
    [
        (1, [(0, 1)]),
        (480000, [(0, 480000)]),
        (640000, [(0, 480000), (480000, 640000)]),
        (480001, [(0, 240160), (240160, 480001)]),
        (961000, [(0, 480000), (480000, 720640), (720640, 961000)]),
    ],
)
def test_windows_are_full_but_for_the_last_unless_it_would_be_tiny(n, windows):
    assert split_windows(n, 480000) == windows
