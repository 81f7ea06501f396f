"""From crops to a trained network.

crops --sampler--> x --network, rate proxy--> rate + weight * distortion --> weights, curves
"""
