"""From crops to a trained network.

    recipes --> trainer: crops --sampler--> x --objective--> cost, x_hat --> loss --> weights
                                              rate, ncode     adversary      optimiser

machine: device, threads, memory. resume: checkpoints. finite: ends what diverges. job: elsewhere.
"""
