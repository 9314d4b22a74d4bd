"""Copies on a device, and whether what came from there equals what came from the CPU."""

import copy

import torch


def there(value, device):
    """Copy a model, a graph, a tensor or a dictionary of tensors to a device; PyG moves a graph in place."""
    if isinstance(value, dict):
        return {name: part.to(device) for name, part in value.items()}
    return copy.deepcopy(value).to(device)


def assert_equal(found, expected, tolerance=1e-4, device=None):
    """Assert that a tensor, or those of a dictionary, equal others that are on the CPU, and perhaps where they are."""
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_equal(found[name], expected[name], tolerance, device)
        return
    assert device is None or found.device == device
    assert found.dtype == expected.dtype
    if not expected.is_floating_point():
        assert torch.equal(found.cpu(), expected)
        return
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=tolerance, atol=tolerance, equal_nan=True)
