"""What PyTorch's quantized kernels do to images whose memory format its two rules disagree on, and to views. Imports torch when called."""

__all__ = ["one_pixel", "permuted_image", "groups_of_one", "range_of_gaps"]


def _codes(numbers, scale=1.0):
    import torch

    torch.backends.quantized.engine = "fbgemm"
    torch.set_num_threads(1)
    return torch.quantize_per_tensor(torch.as_tensor(numbers, dtype=torch.float32), scale, 0, torch.quint8)


def one_pixel():
    """Return what becomes of the first of three channels, 10, 20 and 30, when an image of one pixel is made one of 2x2."""
    from torch.nn import functional

    return functional.interpolate(_codes([10, 20, 30]).reshape(1, 3, 1, 1), size=(2, 2))[0, 0].int_repr().flatten().tolist()


def permuted_image():
    """Return the first channel of a pool over windows of one row and two columns, of an image (1, 4, 3) whose channels are constant and lie last."""
    from torch.nn import functional

    image = _codes([[[10, 20, 30]] * 4])
    return functional.max_pool2d(image.permute(2, 0, 1).unsqueeze(0), (1, 2))[0, 0].int_repr().flatten().tolist()


def groups_of_one():
    """Return how many of three images of one pixel are normalized, by groups of one channel each: all numbers are their bias then."""
    import torch

    x, bias = _codes(torch.arange(192.0).reshape(3, 64, 1, 1)), torch.full((64,), 0.5)
    y = torch.ops.quantized.instance_norm(x, torch.ones(64), bias, 1e-5, 0.1, 0).int_repr()
    return [int((image == 5).all()) for image in y]


def range_of_gaps():
    """Return the thousandths of a number, of 1.0, after a dynamically quantized convolution with the weight 1: of a view that leaves out a column of hundreds, and of a copy of it."""
    import torch

    x = torch.tensor([[1.0, 2.0, 100.0], [3.0, 4.0, 100.0]]).reshape(1, 1, 2, 3)[..., :2]
    weight = torch.quantize_per_tensor(torch.ones(1, 1, 1, 1), 1.0, 0, torch.qint8)
    _codes([0])
    packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [0, 0], [1, 1], 1)
    return [int(float(torch.ops.quantized.conv2d_dynamic(v, packed, False)[0, 0, 0, 0]) * 1000) for v in (x, x.contiguous())]
