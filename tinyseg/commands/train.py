"""Train a network on your own images and their masks.

    tinyseg train images masks                              # two folders, or two stacks; white is what is to be found
    tinyseg train cells --out runs/cells                    # one with both: images/ and labels/, or a.png, a_mask.png
    tinyseg train images masks --class-names background,nucleus,membrane    # masks of three values: classes
    tinyseg train --resume runs/train                       # go on where it stopped

It is ``tinyseg train-isbi`` for images of anything, and takes all its options. Images are grey, PNG, JPEG, BMP or TIFF,
and of one size; files are paired by their names. The last four are held out (--val-sections), and scored at the end.
Masks with a few values have classes, which a classes.json beside them names, or --class-names.
"""

from tinyseg.commands import train_isbi
from tinyseg.commands.options import folder_name
from tinyseg.commands.together import run_together

DEFAULTS = train_isbi.DEFAULTS | {"target": "foreground"}
OUT = "runs/train"


def main():
    run_together(train, out_of_memory=train_isbi.LESS_MEMORY)


def train():
    parser = build_parser()
    args = train_isbi.parse_arguments(parser, DEFAULTS, OUT)
    if args.data is None:
        parser.error("give the images to train on, a folder or a stack, and their masks if they are not in it")
    train_isbi.train_network(args)


def build_parser():
    parser = train_isbi.build_parser(__doc__, "IMAGES [MASKS]", DEFAULTS, OUT)
    parser.add_argument("images", metavar="IMAGES", nargs="?", type=folder_name, help="as --data: a stack or a folder")
    parser.add_argument("masks", metavar="MASKS", nargs="?", type=folder_name, help="as --labels: a stack or a folder")
    return parser
