import pytest
import torch

from signbridge.model.threads import threads_for


@pytest.mark.parametrize(
    ("width", "device", "wanted"), [(128, "cpu", 1), (4096, "cpu", 2), (128, "cuda", 2)]
)
def test_only_a_narrow_model_on_a_cpu_gets_one_thread(width, device, wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(width, torch.device(device)):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
