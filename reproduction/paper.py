"""What Gadosey et al. (2020) report, to compare with what we measure, and what each figure means.

P. K. Gadosey, Y. Li, E. A. Agyekum, T. Zhang, Z. Liu, P. T. Yamak, F. Essaf: SD-UNet: Stripping down U-Net for
segmentation of biomedical images on platforms with low computational budgets. Diagnostics 2020, 10(2):110.
"""

ROWS = {  # the six networks of Table 1, as `tinyseg.models.MODELS` names them
    "unet": "U-Net",
    "unet_gn": "U-Net (GN=32)",
    "unet_dw_bn": "U-Net (depthwise+BN)",
    "unet_dw_gn": "U-Net (depthwise+GN=32)",
    "sdunet_bn": "SD-UNet (depthwise+BN+WS)",
    "sdunet": "SD-UNet",
}
# Millions of parameters, "FLOPs" in millions, "size in memory" in MB, ms on a Tesla K40c at 256 x 256 x 1.
TABLE_1 = {
    "unet": {"parameters": 31, "flops": 62.04, "megabytes": 372.5, "milliseconds": 188},
    "unet_gn": {"parameters": 26, "flops": 51.9, "megabytes": 311.7, "milliseconds": 283},
    "unet_dw_bn": {"parameters": 3.9, "flops": 7.8, "megabytes": 47.0, "milliseconds": 94},
    "unet_dw_gn": {"parameters": 3.9, "flops": 7.7, "megabytes": 47.1, "milliseconds": 87},
    "sdunet_bn": {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 99},
    "sdunet": {"parameters": 3.9, "flops": 7.8, "megabytes": 15.8, "milliseconds": 107},
}
TABLE_1_NOTES = (
    "The paper's FLOPs are 2 × parameters: what a profiler counts that does not know the size of the image. They say "
    "nothing of the work that an image takes; the multiply-adds here are counted from the convolutions as they ran.",
    "The paper's sizes are 12 bytes a parameter for the first four rows (weights and both moments of Adam) and 4 bytes "
    'for the last two (weights alone). "23× smaller" compares the one with the other; like with like it is 7.9×.',
    "U-Net (GN=32) with 26 million parameters cannot be derived from the text: GroupNorm adds 2 values a channel to "
    "U-Net's 31.0 million.",
    "The paper's times are of Keras on a Tesla K40c, 256 × 256 × 1, one image.",
)
# Of ISBI 2012. The paper does not say which sections were scored; V^Rand and V^Info are of the hidden test labels.
TABLE_2 = {
    "unet": {"loss": 0.0533, "accuracy": 0.9767, "mean_iou": 0.8735, "dice": 0.9851},
    "unet_gn": {"loss": 0.0439, "accuracy": 0.9808, "mean_iou": 0.8867, "dice": 0.9877},
    "unet_dw_bn": {"loss": 0.0435, "accuracy": 0.9362, "mean_iou": 0.7462, "dice": 0.9591},
    "unet_dw_gn": {"loss": 0.1393, "accuracy": 0.9394, "mean_iou": 0.7654, "dice": 0.9613},
    "sdunet_bn": {"loss": 0.1065, "accuracy": 0.9636, "mean_iou": 0.8210, "dice": 0.9767},
    "sdunet": {
        "loss": 0.0775, "accuracy": 0.9673, "mean_iou": 0.8326, "dice": 0.9784, "v_rand": 0.9142, "v_info": 0.9678,
    },
}  # fmt: skip
TABLE_2_NOTES = (
    "Loss is the binary cross-entropy of the sections that are scored; the paper does not say which sections its own "
    "figures are of.",
    "A Dice of 98.51 and an IoU of 87.35 cannot be of one foreground: that IoU would be D/(2 - D) = 97.1. The paper's "
    '"mean IOU" is something else, perhaps a mean over thresholds (notebook 10 tries the readings); ours is the mean '
    "of the two classes' IoU at threshold 0.5.",
    "The paper's V^Rand and V^Info are the challenge's, on 30 sections with hidden labels; ours are the same score on "
    "the sections held out here.",
)
# Of the Decathlon's brain tumours; "loss" is of the training.
TABLE_3 = {
    "unet": {"train_loss": 0.5601, "accuracy": 0.9871, "dice": 0.8030, "milliseconds": 91},
    "sdunet": {"train_loss": 0.0666, "accuracy": 0.9866, "dice": 0.8275, "milliseconds": 56},
}
TABLE_3_NOTES = (
    "The paper's Dice is one figure for all; it does not say over which classes or slices the mean was taken. Ours is "
    "per patient, all slices of a volume together, and `Dice` the mean of the three regions.",
    "Losses are of the training, weighted sums of negative Dice and cross-entropy. The paper does not give its "
    "weights, so that its losses and ours are on different scales.",
)
