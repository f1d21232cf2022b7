"""Training by several processes: what they tell each other, and who takes which rows. Two of them, by torchrun."""

import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ppl_models.inference.pyro.feeding.batches import Batches
from ppl_models.inference.pyro.feeding.columns import Columns
from ppl_models.inference.pyro.feeding.distributed import Group, current, seed_of, shut_down
from tests.helpers.processes import torchrun

BEGIN = """
import sys, warnings
warnings.simplefilter("error")
import torch
from pathlib import Path
from ppl_models.inference.pyro.feeding.distributed import current, shut_down
from tests.helpers.talking import talk
"""

WORK = """
talk(Path(sys.argv[1]), "cuda")
shut_down()
"""

DEATH = """
group = current("cpu")
group.barrier()
if group.rank == 1:
    raise ValueError("rank 1 is gone")
group.barrier()
print("never here")
"""


def by_two(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Two processes that run a script."""
    script = folder / "script.py"
    script.write_text(BEGIN + 'if __name__ == "__main__":\n' + textwrap.indent(code, "    "))
    return torchrun(folder, [str(script), str(folder)])


@pytest.fixture(
    scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
)  # one run, many looks at what it left
def ranks(request, tmp_path_factory) -> list[dict[str, Tensor]]:
    if request.param == "cpu":
        folder = request.getfixturevalue("two_processes")
    elif torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    else:
        folder = tmp_path_factory.mktemp("ranks")
        done = by_two(folder, WORK)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr and "Traceback" not in done.stderr, done.stderr
    return [load_file(folder / f"talk{rank}.safetensors") for rank in range(2)]


def test_ranks(ranks):
    assert [r["group"].tolist() for r in ranks] == [[0, 2, 1], [1, 2, 0]]


def test_means(ranks):
    for found in ranks:
        assert found["flat"].tolist() == [0.5, 1.5, 2.5, 3.5]
        assert (found["many0"] == 0.5).all() and torch.equal(found["many1"], torch.arange(6.0).view(2, 3).T / 2)
        assert found["many2"] == 1.5 and found["many2"].shape == ()
        assert found["mean"] == pytest.approx(0.6, abs=1e-15)


def test_what_rank_0_has_all_have(ranks):
    for found in ranks:
        assert found["whole"].tolist() == [0, 1, 2, 3, 4]
        assert (
            (found["mixed0"] == 7).all() and found["mixed1"].tolist() == [0, 0] and found["mixed2"].tolist() == [True]
        )


def test_what_all_have_rank_0_gets(ranks):
    assert [ranks[0][f"equal{i}"].tolist() for i in range(2)] == [[1, 1, 1], [2, 2, 2]]
    assert [ranks[0][f"longer{i}"].tolist() for i in range(2)] == [[1, 1], [2, 2, 2]]
    assert "equal0" not in ranks[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_every_row_once_an_epoch_over_all_ranks(ranks, workers: int):
    rows = torch.stack([found[f"rows{workers}"] for found in ranks])  # rank, step, row
    assert rows.shape == (2, 6, 5)
    epochs = [rows[:, i : i + 2].flatten().tolist() for i in (0, 2, 4)]
    assert all(len(set(epoch)) == 20 for epoch in epochs) and epochs[0] != epochs[1]
    # rank r of step i takes order[(2 i + r) 5 : (2 i + r + 1) 5]
    one, other = (found[f"order{workers}"] for found in ranks)
    assert torch.equal(one, other)
    assert torch.equal(rows[:, 2:4].transpose(0, 1).flatten(), one[:20])
    if not workers:  # rank 0 draws the order as one process does
        torch.manual_seed(0)
        alone = Batches(Columns(torch.arange(22), "data"), 5)
        assert torch.equal(rows[:, :2].transpose(0, 1).flatten(), torch.cat([next(alone)[0] for _ in range(4)]))


def test_noise_of_each_rank_is_its_own(ranks):
    assert not torch.equal(ranks[0]["noise"], ranks[1]["noise"])
    for workers in (0, 1):
        assert not torch.equal(*(found[f"binary{workers}"] for found in ranks))


def test_all_rows_keep_their_order(ranks):
    assert torch.cat([found["all"] for found in ranks]).tolist() == list(range(22))


@pytest.mark.slow
def test_the_death_of_one_ends_all(tmp_path):
    done = by_two(tmp_path, DEATH)
    assert done.returncode != 0 and "rank 1 is gone" in done.stderr and "never here" not in done.stdout
    assert "Timed out" not in done.stderr  # the other has not waited for the end of the half hour that torch gives


# In one process


def test_without_torchrun_there_is_no_group(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert current() is None and current("cpu") is None
    shut_down()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert current() is None
    assert not torch.distributed.is_initialized()


def test_more_processes_than_devices(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "64", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "64"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="found 64 processes and . CUDA devices .*torchrun --nproc-per-node"):
        current("cuda")
    assert not torch.distributed.is_initialized()


def test_seeds():
    assert seed_of(0, 0) == 0 and seed_of(2**40, 0) == 2**40
    seeds = {seed_of(seed, rank) for seed in range(50) for rank in range(1, 50)}
    assert len(seeds) == 50 * 49 and all(0 <= seed < 2**32 for seed in seeds)
    assert len({seed >> 24 for seed in seeds}) == 256  # and mixed, not counted on
    with pytest.raises(ValueError, match="found seed=-1 and rank=0"):
        seed_of(-1, 0)


def test_what_cannot_be_sent():
    group = Group(0, 2, torch.device("cpu"))
    with pytest.raises(TypeError, match=r"average_: found a tensor of torch.int64, want floating"):
        group.average_([torch.zeros(2), torch.arange(2)])
    for wrong in (torch.zeros(2), torch.zeros(2, 2, dtype=torch.uint8)):
        with pytest.raises(TypeError, match=r"gather_bytes: found .* want uint8 of \(n,\)"):
            group.gather_bytes(wrong)
