"""A trained model for use elsewhere: ONNX, timm's format for the Hugging Face hub, a model card."""
