"""What is trained here leaves home: as one HTML file, a page of C, an ONNX file, or a package of bioimage.io."""
