"""A trained model for other programs and for other people: ONNX, torch.export, one safetensors file, the Hub."""
