"""From crops to a trained network.

    recipes --> trainer: crops --sampler--> x --objective--> cost, x_hat --> loss --> weights
                                              rate, ncode     adversary      optimiser

machine: device, threads, memory. guards: checkpoints, an end of what diverges. job: elsewhere.
"""
