"""Questions beside the grid: restoration, bit errors, twin decoders, tolerance of noise."""
