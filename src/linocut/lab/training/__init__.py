"""From crops to a trained network.

    recipes --> trainer: crops --sampler--> x --objective--> cost, x_hat --> loss --> weights
                                              rate, ncode    adversary       optimiser
                                                             game, ncode
    game: a finished decoder --what files hold--> one that has learned against a discriminator

machine: device, threads, memory. parallel: several processes. guards: checkpoints, an end of what
diverges.
"""
