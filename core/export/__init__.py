"""The encoder and the decoder of a trained model as files that other programs run."""
