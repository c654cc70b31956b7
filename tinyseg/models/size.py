"""What a U-Net costs, from its options alone: asked before anything is built, since a file may ask for any number."""

BYTES = 4  # of a float32
# Memory of a pass, in float32 arrays as large as the first level's output (measured: docs/results.md). A training step
# takes about 22 of them; what needs more than 16 arrays in all is refused.
INFERENCE, TRAINING = 10, 16


def fewest_weights(
    in_channels, num_classes, width, levels, separable, stem_layers, bottleneck_layers, head="direct", **others
):
    """Return how many weights the kernels of a `tinyseg.models.unet.UNet` have; biases and norms are not counted.

    All options are whole numbers above 0, but `separable` and `head`. The others do not matter.
    """

    def conv(c_in, c_out, k, dense=False):
        return c_in * c_out * k * k if dense or not separable else c_in * (c_out + k * k)

    total = conv(in_channels, width, 3, dense=True) + (stem_layers - 1) * conv(width, width, 3)
    for level in range(1, levels):
        above, here = width << (level - 1), width << level
        layers = bottleneck_layers if level == levels - 1 else 2
        total += conv(above, here, 3) + (layers - 1) * conv(here, here, 3)
        total += conv(here, above, 2) + conv(here, above, 3) + conv(above, above, 3)  # the decoder's
    return total + (width * num_classes if head == "direct" else conv(width, 2 * num_classes, 3))


def least_memory(weights, width, pixels, training):
    """Return the fewest bytes that a pass takes.

    Parameters
    ----------
    weights : int
    width : int
        Channels of the first level.
    pixels : int
        Of all images that go through the network at once.
    training : bool
        A training step with Adam, or inference.
    """
    copies, arrays = (4, TRAINING) if training else (1, INFERENCE)  # weights, gradients and Adam's two moments
    return BYTES * (copies * weights + arrays * width * pixels)
