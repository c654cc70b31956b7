"""Files of kinds that are not read: what they are, and how to make ones of them that are.

    how_to_convert(["scan.dcm"])        # " DICOM is not read: convert it to NIfTI, for instance with dcm2niix."

Other programs read them better than this library would, so it says which.
"""

import re

# Pictures and microscopes' files, which nobody expects to be left out when a folder is read, each with what to do.
PICTURES = (".gif", ".webp", ".jp2", ".j2k", ".jpe", ".jfif", ".tga", ".pgm", ".ppm", ".pnm", ".heic", ".avif", ".psd")
MICROSCOPES = (".czi", ".nd2", ".lif", ".lsm", ".oib", ".oif", ".dm3", ".dm4", ".mrc")
VOLUMES = (".mha", ".mhd", ".nrrd", ".nhdr", ".mgz", ".mgh", ".hdr", ".img")
UNREAD = (*PICTURES, *MICROSCOPES, ".nrrd", ".mha")
CONVERSIONS = (
    (PICTURES, "Pictures of this kind are not read: save them as PNG or TIFF."),
    (MICROSCOPES, "Microscopes' own files are not read: save them as TIFF (Fiji: File > Import > Bio-Formats)."),
    (
        VOLUMES,
        "MetaImage, NRRD, Analyze and MGH are not read: convert them to NIfTI, for instance with SimpleITK: "
        'SimpleITK.WriteImage(SimpleITK.ReadImage("scan.mha"), "scan.nii.gz").',
    ),
    ((".dcm", ".dicom", ".ima"), "DICOM is not read: convert it to NIfTI, for instance with dcm2niix."),
    (
        (".npy", ".npz"),
        "Files of NumPy are not read, since they may hold programs: save masks as PNG or TIFF (cellpose: --save_tif).",
    ),
    (
        (".h5", ".hdf", ".hdf5", ".mat", ".n5", ".zarr"),
        "Containers such as HDF5 are not read: save each array (S, H, W) as TIFF, "
        'tifffile.imwrite("stack.tif", array, photometric="minisblack").',
    ),
    ((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar"), "Archives are not read: unpack them first."),
)

# How files begin, for the sentence about a file under a wrong name, in small letters; and the endings of such files.
BEGINNINGS = {
    b"<html": ("a web page", ()), b"<!doc": ("a web page", ()), b"gif8": ("a GIF", ()), b"%pdf": ("a PDF", ()),
    b"riff": ("a WebP picture", ()), b"version https://git-lfs": (
        "a pointer of Git LFS (git lfs pull fetches the file)", ()
    ),
    b"\x89png": ("a PNG", (".png",)), b"\xff\xd8\xff": ("a JPEG", (".jpg", ".jpeg")),
    b"ii*\0": ("a TIFF", (".tif", ".tiff")), b"mm\0*": ("a TIFF", (".tif", ".tiff")),
    b"\x1f\x8b": ("a file compressed by gzip", (".nii.gz",)),
    b"\x5c\x01\0\0": ("NIfTI that is not compressed", (".nii",)),
    b"\0\0\x01\x5c": ("NIfTI that is not compressed", (".nii",)),
}  # fmt: skip

# What cellpose writes beside an image and its masks, without the ending.
LEFTOVER = re.compile(r"(.+?)_(flows|dP|outlines|cp_output|cp_outlines)(_cp_masks)?", re.IGNORECASE)


def leftovers(names):
    """Return the names of cellpose's flows and outlines whose image is among the names too."""
    stems = {name.rsplit(".", 1)[0].casefold() for name in names}
    found = {name: LEFTOVER.fullmatch(name.rsplit(".", 1)[0]) for name in names}
    return [name for name, parts in found.items() if parts and parts[1].casefold() in stems]


def how_to_convert(paths):
    """Return a sentence for each kind that is not read among files, led by a space; an empty text if there is none."""
    names = [str(path).lower() for path in paths]
    return "".join(f" {said}" for endings, said in CONVERSIONS if any(name.endswith(endings) for name in names))


def kind_by_content(start):
    """Return what the first bytes of a file say that it is, and the endings of such files; None if they say nothing."""
    start = start.lower()
    return next((kind for beginning, kind in BEGINNINGS.items() if start.startswith(beginning)), None)
