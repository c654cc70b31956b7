"""The lessons of the course and their tasks: which functions of which files of tinyseg a student writes."""

import pathlib
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent


class Task(NamedTuple):
    """Functions to write, and a test of them: ``test_K_…`` of the lesson's checks for the lesson's task K.

    Attributes
    ----------
    title : str
    bodies : tuple of str
        "group_norm.forward": the function `forward` of the lesson's file group_norm.py. Empty if the task is to
        bring together what has been written.
    hint : str
        Shown when the test has failed three times.
    needs : tuple of str
        Packages without which the task cannot be checked.
    """

    title: str
    bodies: tuple[str, ...]
    hint: str
    needs: tuple[str, ...] = ()


class Lesson(NamedTuple):
    """A lesson.

    Attributes
    ----------
    folder : str
        Its folder in a student's copy.
    title : str
    files : dict of str to str
        For each file to work on the module of tinyseg that it takes the place of.
    tasks : tuple of Task
    seconds : int
        After which its checks are stopped.
    sources : dict of str to str
        The modules that files are made from, where these are not those that they take the place of.
    """

    folder: str
    title: str
    files: dict[str, str]
    tasks: tuple[Task, ...]
    seconds: int = 60
    sources: dict[str, str] = {}

    @property
    def number(self):
        """1 for the first lesson."""
        return int(self.folder.partition("_")[0])

    @property
    def numbered(self):
        """{"5.1": task, …}: its tasks by what they are called."""
        return {f"{self.number}.{k}": task for k, task in enumerate(self.tasks, 1)}

    def bodies(self):
        """Return {"pool.max_forward": "5.1", …}: the task of each function to write."""
        return {body: number for number, task in self.numbered.items() for body in task.bodies}

    @property
    def page(self):
        """The path of what a student reads."""
        return HERE / "pages" / f"{self.folder}.md"

    @property
    def checks(self):
        """The path of its tests."""
        return HERE / "checks" / f"lesson_{self.number}.py"


LESSONS = (
    Lesson(
        "1_engine", "The engine: a graph, and the chain rule", {"engine.py": "tinyseg.autograd.engine"},
        (
            Task(
                "a call of a Function records the graph", ("engine.Function.__call__",),
                "Make tensors of the inputs (as_tensors), remember needs, input_shapes and input_dtypes, and wrap "
                "self.apply(*arrays) in a Tensor. Only if one of the inputs needs a gradient do you set parents, and "
                "requires_grad and creator of the result. A parent is t.creator, or t itself if it has none.",
            ),
            Task(
                "the order of the nodes", ("engine._topological",),
                "A node may be appended when all its parents have been. Without recursion: keep a list of what is "
                "still to do, and put each node into it twice, once to look at its parents and once to append it.",
            ),
            Task(
                "a leaf adds up its gradients", ("engine._accumulate",),
                "Three cases: there is a gradient already (add, to a new array); there is none, and others hold the "
                "array (copy it); there is none, and nobody else holds it (keep it).",
            ),
            Task(
                "the backward pass", ("engine._backward",),
                "Keep a dict from each node to the sum of the gradients of its output. Take the nodes from the end of "
                "the order. node.gradients(gy) gives one gradient for each of node.parents: a node's is added to the "
                "dict, a leaf's goes to _accumulate, and where the parent is None nothing is to be done.",
            ),
        ),
    ),
    Lesson(
        "2_arithmetic", "Elementwise ops, and how to check a gradient",
        {
            "arithmetic.py": "tinyseg.ops.arithmetic",
            "activation.py": "tinyseg.ops.activation",
            "gradcheck.py": "tinyseg.ops.gradcheck",
        },
        (
            Task(
                "the transpose of broadcasting", ("arithmetic.unbroadcast",),
                "Broadcasting puts axes in front, and repeats axes of length 1. Sum over both kinds, keep the second.",
            ),
            Task(
                "product and quotient", ("arithmetic.Multiply.backward", "arithmetic.Divide.backward"),
                "self.saved holds what forward has saved, in that order. self.to_inputs(ga, gb) undoes broadcasting.",
            ),
            Task(
                "sum and mean", ("arithmetic.Sum.backward", "arithmetic.Mean.backward"),
                "The gradient of a sum is gy, repeated. gy.reshape(self.kept) has the axes that were summed as 1; "
                "repeat that to self.input_shapes[0]. The mean is a sum divided by self.count.",
            ),
            Task(
                "the rectifier", ("activation.relu_forward", "activation.relu_grad"),
                "At y = 0 no gradient passes. Use xp.where, so that an infinite gy times 0 does not become NaN.",
            ),
            Task(
                "the sigmoid, without overflow", ("activation.sigmoid_forward", "activation.sigmoid_grad"),
                "exp(-|x|) is at most 1. For x < 0 multiply numerator and denominator of 1 / (1 + exp(-x)) by exp(x).",
            ),
            Task(
                "a check of gradients", ("gradcheck.check_grads",),
                "For each input by itself: draw v, compute f at x + eps v and x - eps v with the other inputs as they "
                "are, and compare sum(u · difference) / (2 eps) with sum(v · x.grad). Draw u at random, too.",
            ),
        ),
    ),
    Lesson(
        "3_convolution", "Convolution, whole and in two halves",
        {
            "depthwise_conv.py": "tinyseg.ops.depthwise_conv",
            "pointwise_conv.py": "tinyseg.ops.pointwise_conv",
            "conv2d.py": "tinyseg.ops.conv2d",
        },
        (
            Task(
                "depthwise: forward", ("depthwise_conv.forward",),
                "taps(X, …) yields for each tap (u, v) the view of X that it reads for all outputs. Multiply it by "
                "w[:, u, v], one number a channel, and add all up.",
            ),
            Task(
                "depthwise: the gradient of the kernels", ("depthwise_conv.grad_w",),
                "Each tap's weight was multiplied by its window: gw[:, u, v] is the sum of window · gy over images, "
                "rows and columns.",
            ),
            Task(
                "depthwise: the gradient of the image", ("depthwise_conv.grad_x",),
                "Make zeros of the padded size, and add gy · w[:, u, v] into the window of each tap. Windows overlap, "
                "so add, do not assign; at the end take the border off.",
            ),
            Task(
                "pointwise: forward", ("pointwise_conv.forward",),
                "Reshape x to (N, C, H·W): then it is one product of matrices for each image.",
            ),
            Task(
                "pointwise: both gradients", ("pointwise_conv.grad_x", "pointwise_conv.grad_w"),
                "Y = W X has GX = Wᵀ GY and GW = GY Xᵀ. The weights are the same for all images: sum over these.",
            ),
            Task(
                "standard: windows as columns", ("conv2d.im2col",),
                "Fill an array (C, KH, KW, OH, OW), one tap at a time, and reshape it at the end.",
            ),
            Task(
                "standard: forward", ("conv2d.forward",),
                "For each pair that strips(X, y, …) yields, write rows_of(w) @ im2col(…) into ys, which is a view.",
            ),
            Task(
                "standard: both gradients", ("conv2d.grad_w", "conv2d.grad_x"),
                "GW = Σ GY colsᵀ. The gradient of the columns is Wᵀ GY; add it back, tap by tap, to where im2col read.",
            ),
        ),
    ),
    Lesson(
        "4_normalization", "Gradients through a mean and a deviation",
        {
            "group_norm.py": "tinyseg.ops.group_norm",
            "weight_standardization.py": "tinyseg.ops.weight_standardization",
        },
        (
            Task(
                "group normalization: forward", ("group_norm.forward",),
                "Reshape x to (N, G, m): then mean and variance are over the last axis. The variance divides by m, and "
                "ε is added to it before the root.",
            ),
            Task(
                "group normalization: backward", ("group_norm.backward",),
                "Both means are over the values of a group, (N, G, m); the sums of γ and β are over images, rows and "
                "columns. γ belongs to gx̂, and so into both means.",
            ),
            Task(
                "weight standardization: forward", ("weight_standardization.forward",),
                "ε is added to the deviation here, not to the variance. Return σ, with the axes kept.",
            ),
            Task(
                "weight standardization: backward", ("weight_standardization.grad_v",),
                "Take the two terms of the equation one by one. Where σ = 0 the second is 0: do not divide by it.",
            ),
        ),
    ),
    Lesson(
        "5_unet", "Down, up and across: a U-Net",
        {
            "pool.py": "tinyseg.ops.pool",
            "upsample.py": "tinyseg.ops.upsample",
            "shape.py": "tinyseg.ops.shape",
            "unet.py": "tinyseg.models.unet",
        },
        (
            Task(
                "max pooling: forward", ("pool.max_forward",),
                "Pad with -∞. Go through the taps, and keep the largest value so far and the number of its tap; the "
                "first tap wins a tie.",
            ),
            Task(
                "max pooling: backward", ("pool.max_grad_x",),
                "For each tap add gy where it won, and 0 elsewhere, into its window of gX.",
            ),
            Task(
                "nearest upsampling", ("upsample.nearest_forward", "upsample.nearest_grad_x"),
                "Each pixel was repeated fh · fw times: its gradient is the sum of that many numbers.",
            ),
            Task(
                "joining along an axis", ("shape.concat_forward", "shape.concat_backward"),
                "The backward pass cuts gy at the given indices.",
            ),
            Task(
                "the blocks", ("unet.Block.forward", "unet.Up.forward"),
                "A convolution of tinyseg takes several inputs and joins them. The skip comes first.",
            ),
            Task(
                "the U", ("unet.UNet.forward",),
                "Pool before every level but the first. Drop after the last len(self.drops) levels. Keep what each "
                "level gives, and hand it back in reverse order; the deepest level gives no skip.",
            ),
        ),
    ),
    Lesson(
        "6_training", "Loss, optimizer, and a step of training",
        {"loss.py": "tinyseg.ops.loss", "optim.py": "tinyseg.optim", "step.py": "tinyseg.training.step"},
        (
            Task(
                "binary cross-entropy: forward", ("loss.bce_forward",),
                "log(1 + exp(-z)) = max(-z, 0) + log(1 + exp(-|z|)), and that cannot overflow. It is a sum, no mean.",
            ),
            Task(
                "binary cross-entropy: backward", ("loss.bce_grad",),
                "σ(-z) is sigmoid_forward(-z). Where the weight is 0, z takes no part, even if it is NaN.",
            ),
            Task(
                "gradient descent with momentum", ("optim.SGD.update",),
                "Both v and w are changed in place: v *= …, v += …, w -= …. Without Nesterov w moves by v.",
            ),
            Task(
                "Adam", ("optim.adam", "optim.Adam.numbers"),
                "Everything is in place. The corrections for the first steps are in `numbers`: with √(1-β₂ᵗ) taken out "
                "of √v̂, ε and the rate are multiplied by it, and the rate is divided by 1-β₁ᵗ. t is self.counts[k].",
            ),
            Task(
                "a step of training", ("step.Step.__call__",),
                "Forward, loss, zero_grad, backward, clip, step, in this order. Nothing is changed if the loss or the "
                "norm is not finite; figures.updated says whether it was.",
            ),
        ),
    ),
    Lesson(
        "7_sd_unet", "SD-UNet finds membranes, with nothing but your code",
        {"separable_conv.py": "tinyseg.ops.separable_conv", "pool_kernel.py": "tinyseg.fast.cpu.pool"},
        (
            Task(
                "separable convolution: forward", ("separable_conv.forward",),
                "halves(X, wd, wp) gives your two files of lesson 3: call forward of the first, and with its result "
                "that of the second.",
            ),
            Task(
                "separable convolution: backward", ("separable_conv.backward",),
                "The same steps in reverse order. The depthwise result is not kept: compute it again, for the gradient "
                "of the pointwise weights.",
            ),
            Task(
                "SD-UNet learns", (),
                "If lessons 3 to 6 are right, so is this. Check those again that are not yours yet.",
            ),
            Task(
                "one thing made fast", ("pool_kernel.pool_channel",),
                "Four loops: rows and columns of the output, rows and columns of the window. Begin each window with "
                "its first tap as the largest, and let a later one win only if it is larger.",
                needs=("numba",),
            ),
        ), 420, {"pool_kernel.py": "tinyseg.learn.course.pool_kernel"},
    ),
)  # fmt: skip


TASKS = {number: lesson for lesson in LESSONS for number in lesson.numbered}  # "3.2": its lesson


def find_lesson(number):
    """Return the lesson of a number; a ValueError says which there are."""
    if not 1 <= number <= len(LESSONS):
        raise ValueError(f"expected a lesson from 1 to {len(LESSONS)}, found {number}.")
    return LESSONS[number - 1]
