"""Train a small SD-UNet on synthetic sections, in minutes, and segment a section that it has not seen.

    tinyseg demo
    tinyseg demo --out runs/first --epochs 8
    tinyseg predict --checkpoint runs/demo/best.safetensors runs/demo/section.png     # afterwards

It is ``tinyseg train-isbi --width 16 --epochs 24 --out runs/demo``, and takes all its options.
"""

import sys

from PIL import Image

from tinyseg.commands import train_isbi
from tinyseg.commands.numbers import make_parser
from tinyseg.commands.script import run_script
from tinyseg.data import em_sections

OPTIONS = ["--width", "16", "--epochs", "24", "--out", "runs/demo"]


def build_parser():
    return train_isbi.build_parser()  # --help is this program's own


def main():
    run_script(show_training, out_of_memory="give a smaller --batch-size, --size or --width")


def show_training():
    _, words = make_parser(__doc__).parse_known_args()
    sys.argv = ["tinyseg train-isbi", *OPTIONS, *words]  # of an option that is there twice the second counts
    folder = train_isbi.train_network(train_isbi.parse_arguments())
    section = folder / "section.png"
    Image.fromarray(em_sections(num_sections=1, size=512, seed=1000)[0][0]).save(section)
    print(
        f"Now segment a section that it has not seen, {section}:\n"
        f"  tinyseg predict --checkpoint {folder / 'best.safetensors'} {section}"
    )
