"""Show what a network costs, layer by layer: parameters, multiply-adds, memory and time.

    tinyseg profile                                              # SD-UNet for an image of 256 × 256 pixels
    tinyseg profile --model unet --width 16 --size 512
    tinyseg profile --checkpoint runs/isbi/best.safetensors --training
    tinyseg profile --compare unet sdunet --out models.png       # several side by side, with a picture

Time and memory are measured here and now: with other programs beside it they are larger.
"""

import tinyseg as ts
from tinyseg.commands.numbers import Number, make_parser, refuse_given
from tinyseg.commands.options import a_path, add_device_options, choose_device
from tinyseg.commands.script import run_script
from tinyseg.commands.tables import table


def main():
    run_script(profile, out_of_memory="give a smaller --size or --batch-size")


def profile():
    args = parse_arguments()
    device = choose_device(args)
    if args.compare:
        models = {name: ts.models.build(name, width=args.width).to(device) for name in args.compare}
        found = ts.profile.compare(models, (args.batch_size, 1, args.size, args.size), args.out)
        rows = [(name, [f"{f['parameters']:,}", f"{f['multiply_adds']:,}", f"{f['latency']['median']:.4f}"])
                for name, f in found.items()]  # fmt: skip
        print(table(["parameters", "multiply-adds", "seconds an inference"], rows))
        if args.out:
            print(f"wrote {args.out}")
        return
    model = ts.checkpoint.load(args.checkpoint) if args.checkpoint else ts.models.build(args.model, width=args.width)
    model = model.to(device)
    shape = (args.batch_size, model.in_channels, args.size, args.size)
    ts.profile.summary(model, shape)
    for measure in (ts.profile.memory, ts.profile.latency):
        print(measure(model, shape, training=args.training))


def build_parser():
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--model", choices=list(ts.models.MODELS), default="sdunet", help="the network (default: sdunet)")
    add("--width", type=Number(int, 1, 4096), default=64, help="channels of the first level (default: 64)")
    add("--checkpoint", type=a_path, help="a trained network instead")
    add("--compare", nargs="+", choices=list(ts.models.MODELS), metavar="MODEL", help="several networks, side by side")
    add("--out", type=a_path, help="with --compare: a picture of them to write, .png, .pdf or .svg")
    add("--size", type=Number(int, 16, 65536), default=256, help="height and width of the image (default: 256)")
    add("--batch-size", type=Number(int, 1, 4096), default=1, help="images at a time (default: 1)")
    add("--training", action="store_true", help="measure steps of training, not inference")
    add_device_options(parser)
    return parser


def parse_arguments():
    parser = build_parser()
    args = parser.parse_args()
    if args.checkpoint:
        refuse_given(args, ("model", "width", "compare"), "the network is that of --checkpoint: leave it out")
    if args.compare:
        refuse_given(args, ("model", "training"), "this is for one network, and --compare names several: leave it out")
    elif args.out:
        refuse_given(args, ("out",), "this is the picture that --compare draws: give --compare too, or leave it out")
    return args
