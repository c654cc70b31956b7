"""What is trained here leaves home: as one HTML file, a page of C, an ONNX file, or a package of bioimage.io.

`network.py` says what a trained network computes, as plain arrays; each format has a folder that writes it from these.
`int8.py` computes it with integers of 8 bits.
"""

import lazy_loader

# What __init__.pyi lists is imported when it is used: `tinyseg predict` needs none of it.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
