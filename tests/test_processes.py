"""Processes of their own begin with everything imported."""

from processes import Python


def test_a_process_of_its_own_waits_for_no_import():
    process = Python("import sys; print(*sorted({'pytest', 'warm', 'weft.training.run'} & set(sys.modules)))")
    assert process.communicate().split() == ["pytest", "warm", "weft.training.run"]
