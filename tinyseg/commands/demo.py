"""Train a small SD-UNet on synthetic sections, in minutes, and segment a section that it has not seen.

    tinyseg demo
    tinyseg demo --out runs/first --epochs 8
    tinyseg predict --checkpoint runs/demo/best.safetensors runs/demo/section.png     # afterwards
    tinyseg export runs/demo/best.safetensors --format html --example runs/demo/section.png --out runs/demo/export

It is ``tinyseg train-isbi --width 16 --epochs 24 --batch-size 2 --out runs/demo``, and takes all its options.
"""

from PIL import Image

from tinyseg.commands import together, train_isbi
from tinyseg.data import em_sections

DEFAULTS = train_isbi.DEFAULTS | {"width": 16, "epochs": 24, "batch_size": 2}
OUT = "runs/demo"


def main():
    together.run_together(show_training, out_of_memory=train_isbi.LESS_MEMORY)


def show_training():
    folder = train_isbi.train_network(train_isbi.parse_arguments(build_parser(), DEFAULTS, OUT))
    if together.group().rank > 0:
        return
    section = folder / "section.png"
    Image.fromarray(em_sections(num_sections=1, size=512, seed=1000)[0][0]).save(section)
    print(
        f"Now segment a section that it has not seen, {section}:\n"
        f"  tinyseg predict --checkpoint {folder / 'best.safetensors'} {section}\n"
        "Or make a page of it, one file that runs in any browser:\n"
        f"  tinyseg export {folder / 'best.safetensors'} --format html --example {section} --out {folder / 'export'}"
    )


def build_parser():
    return train_isbi.build_parser(__doc__, defaults=DEFAULTS, out=OUT)
