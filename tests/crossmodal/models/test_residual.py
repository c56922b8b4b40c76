import pytest
import torch

from crossmodal.models.residual import ResidualNetwork


@pytest.mark.parametrize("kernel", [3, 9])
@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 24), (1, 7), (3, 1), (1, 9, 5), (2, 16, 16)])
def test_points_and_fields_of_any_size(shape, depth, kernel):
    """Sizes that are not divisible too; every parameter takes part."""
    for dense, expected in ((False, (2, 5)), (True, (2, 5, *shape[1:]))):
        model = ResidualNetwork(shape, 5, dense, 8, depth, kernel)
        out = model(torch.randn(2, *shape))
        assert out.shape == expected
        out.square().sum().backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_samples_of_a_batch_know_nothing_of_each_other():
    """So batches may be divided among processes."""
    torch.manual_seed(0)
    model, x = ResidualNetwork((2, 20), 3, False, 16, 3, 5), torch.randn(4, 2, 20)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


def test_a_field_sees_the_coarsest_level():
    """What is far away changes it, through the levels below, and what is near through those above."""
    torch.manual_seed(0)
    x, reach = torch.zeros(1, 1, 64), {}
    for depth in (1, 4):
        model = ResidualNetwork((1, 64), 1, True, 8, depth, 3)
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.GroupNorm)):
            norm.forward = lambda x: x  # which sees the whole grid
        changed = x.clone()
        changed[..., 32] = 1
        places = (model(changed) - model(x)).abs().flatten().nonzero().flatten()
        reach[depth] = (places - 32).abs().max().item()
    assert reach[1] == 3  # three kernels of length 3
    assert reach[4] > 15
