"""Networks and what they are trained for.

x --analysis--> latent y --synthesis--> x_hat --losses--> one number a picture
"""
