import pytest
import torch

from models.weights import read_state
from pipeline.errors import UserError


@pytest.mark.parametrize("found", [{}, {"epoch": 3}, [1, 2]])
def test_a_file_without_tensors_is_refused(tmp_path, found):
    torch.save(found, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt: holds no weights"):
        read_state(tmp_path / "odd.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    torch.save({"a": torch.tensor([float("nan")])}, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="not finite"):
        read_state(tmp_path / "nan.pt")


@pytest.mark.parametrize("odd", [torch.eye(2).to_sparse(), torch.empty(2, device="meta")])
def test_tensors_without_plain_numbers_are_refused(tmp_path, odd):
    torch.save({"a": odd}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match=r"odd\.pt: holds sparse, quantised or absent numbers"):
        read_state(tmp_path / "odd.pt")
