"""A trained network as an ONNX file, float or with 8 bits."""
