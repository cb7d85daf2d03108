"""On a GPU weft gives what it gives on a CPU: ``pytest tests/gpu/checks.py`` on a machine that has one.

Elsewhere the same checks run on a stand-in for one, which must be there before a process first trains: so here they
run in a process of their own.
"""

from pathlib import Path

import pytest
import stand_in
import torch

from marks import nightly
from processes import Python


@pytest.mark.slow
@pytest.mark.parametrize("which", ["not nightly", nightly("nightly")])
def test_the_checks_pass_in_a_process_of_their_own(which):
    checks = Path(__file__).with_name("checks.py")
    program = "import pytest, sys; sys.exit(pytest.main(['-p', 'no:cacheprovider', *sys.argv[1:]]))"
    done = Python(program, checks, "-m", which)
    said = done.communicate()
    assert done.returncode == 0, said[-4000:]


def test_the_stand_in_refuses_what_a_gpu_refuses():
    with stand_in.stand_in() as gpu:
        there, here = torch.ones(3, device=gpu), torch.ones(3)
        for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: there.add_(here)):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(RuntimeError, match="indices should be"):
            here[torch.zeros(2, dtype=torch.long, device=gpu)]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert (there + 1 + there.cpu().to(gpu)).tolist() == [3, 3, 3]
        assert there[torch.tensor([0, 1])].device.type == gpu and there.cpu().device.type == "cpu"
